"""Atomic checkpoints.

A checkpoint is a folder `step-000010` with a `manifest.json` that holds the size and the
SHA-256 of every file. It is written under a hidden name and renamed when everything is on
the disk, so that the last good one can be found whenever the process is killed. Files may
be written in the background while training continues.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from morl.errors import CheckpointError, UsageError
from morl.files import disk_remedy, fsync_path, replacing

FORMAT = 1
MANIFEST = "manifest.json"
STATE = "trainer.json"

POLL_S = 0.05
"""Interval of asking whether everything has been written."""

_NAME = re.compile(r"step-(\d{6,})")

logger = logging.getLogger(__name__)


def step_of(path: Path) -> int:
    """The step of a checkpoint folder: 10 for `…/step-000010`.

    Raises: CheckpointError when the name is not that of a checkpoint.
    """
    match = _NAME.fullmatch(Path(path).name)
    if match is None:
        raise CheckpointError(f"{path}: not a checkpoint; its folder would be named like step-000010")
    return int(match[1])


def newest_good(root: Path) -> Path | None:
    """The latest complete checkpoint under `root`, or None. Changes nothing on the disk.

    Torn ones are skipped, with a warning that names the file and its fault.
    """
    return _newest_good(root)[0]


def _newest_good(root: Path) -> tuple[Path | None, list[str]]:
    """The latest complete checkpoint, and the faults of those after it."""
    faults: list[str] = []
    for folder in reversed(_folders(root)):
        fault = find_fault(folder)
        if fault is None:
            return folder, faults
        logger.warning("checkpoint %s is skipped: %s", folder, fault)
        faults.append(f"{folder.name}/{fault}")
    return None, faults


def find_fault(folder: Path, *, contents: bool = True) -> str | None:
    """The fault of a checkpoint, `<file>: <fault>`, or None when it is complete.

    Without `contents`, sizes are compared but not hashes.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        version, step, files = manifest["format"], manifest["step"], dict(manifest["files"])
    except FileNotFoundError:
        return f"{MANIFEST}: missing"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{MANIFEST}: unreadable: {error!r}"
    if version != FORMAT:
        return f"{MANIFEST}: written in format {version}; this version of morl reads format {FORMAT}"
    if step != step_of(folder):
        return f"{MANIFEST}: of step {step}"
    with ThreadPoolExecutor() as pool:
        faults = pool.map(lambda name: _file_fault(folder, name, files[name], contents), sorted(files))
        return next((fault for fault in faults if fault), None)


def read_state(folder: Path) -> dict[str, Any]:
    """The trainer's state in a checkpoint. Raises: CheckpointError when it is missing or unreadable."""
    path = folder / STATE
    try:
        state: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from error
    return state


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write the trainer's state, plain JSON values, into a checkpoint being written."""
    with replacing(folder / STATE) as file:
        file.write(json.dumps(dict(state), indent=1, sort_keys=True).encode())


class CheckpointStore:
    """The checkpoints of the run that this process writes.

    Only one process at a time may open it: opening deletes what a killed process left
    half-written. Readers use `newest_good`.
    """

    def __init__(self, root: Path, keep: int) -> None:
        """Open `root`, creating it if missing, and keep its newest `keep` >= 1 checkpoints."""
        if keep < 1:
            raise UsageError(f"run.keep_checkpoints must be at least 1, not {keep}")
        self.root = Path(root).absolute()
        self.keep = keep
        self._thread = ThreadPoolExecutor(1, "checkpoint")
        self._in_flight: Future[None] | None = None
        self.root.mkdir(parents=True, exist_ok=True)
        self._clear_leftovers()

    def newest_good(self) -> Path | None:
        """The latest complete checkpoint, or None without any; torn ones are skipped with a warning.

        Raises: CheckpointError when all are torn: a fresh start would drop what they hold.
        """
        newest, faults = _newest_good(self.root)
        if newest is None and faults:
            raise CheckpointError(
                f"{self.root}: none of its checkpoints can be resumed: {'; '.join(faults)}. "
                "Repair them, or start another run (run.name=…); to restart this one, delete its folder"
            )
        return newest

    @contextmanager
    def writing(self, step: int, *, written: Callable[[], bool] | None = None) -> Iterator[Path]:
        """An empty folder to write the checkpoint of `step` into; it becomes a checkpoint once it is complete.

        Without `written` that is at the end of the block. With it the block only starts the writing: a background
        thread polls `written()`, seals the checkpoint when that returns True, and fails with its error.
        One checkpoint is written at a time: the next waits for it.

        When the block, `written` or the disk fails, the folder is deleted and the older checkpoints stay.
        For a moment there are `keep` + 1 checkpoints on the disk.

        Raises: CheckpointError when the disk is full or not writable, for this checkpoint or the one before.
        """
        self.wait()
        target = self.root / f"step-{step:06d}"
        draft = self._hidden(target, "tmp")
        with self._deleted_on_failure(draft, target):
            draft.mkdir()
            yield draft
        if written is None:
            self._finish(draft, target, lambda: True)
        else:
            self._in_flight = self._thread.submit(self._finish, draft, target, written)

    def check(self) -> None:
        """Raises: the error of the checkpoint in flight, if it has failed; never waits."""
        if self._in_flight is not None and self._in_flight.done():
            self.wait()

    def wait(self) -> None:
        """Wait for the checkpoint in flight. Raises: CheckpointError when it failed."""
        future, self._in_flight = self._in_flight, None
        if future is not None:
            future.result()

    def close(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Wait for the checkpoint in flight; its failure is only logged when another error is propagating.

        Takes the arguments of `__exit__`. Raises: CheckpointError.
        """
        try:
            self.wait()
        except Exception as failure:
            if error is None:
                raise
            logger.warning("%s", failure)
        finally:
            self._thread.shutdown()

    def _finish(self, draft: Path, target: Path, written: Callable[[], bool]) -> None:
        with self._deleted_on_failure(draft, target):
            while not written():
                time.sleep(POLL_S)
            _seal(draft, step_of(target))
            self._publish(draft, target)
        self._prune(step_of(target))

    @contextmanager
    def _deleted_on_failure(self, draft: Path, target: Path) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            remedy = disk_remedy(error, self.root)
            shutil.rmtree(draft, ignore_errors=True)
            if remedy is None:
                raise
            raise CheckpointError(
                f"{target}: the checkpoint could not be written: {remedy}; older checkpoints are intact"
            ) from error

    def _publish(self, draft: Path, target: Path) -> None:
        """Rename the draft to its final name; an earlier checkpoint of the same step is moved aside first."""
        aside = self._hidden(target, "old")
        if target.exists():
            target.rename(aside)
        draft.rename(target)
        fsync_path(self.root)
        shutil.rmtree(aside, ignore_errors=True)

    def _prune(self, step: int) -> None:
        """Drop all but the newest `keep` checkpoints up to `step`, and all later ones.

        Later ones exist only where a run resumed from an earlier step. Torn ones do not count,
        or they would displace good ones.
        """
        complete = [folder for folder in _folders(self.root) if find_fault(folder, contents=False) is None]
        kept = [folder for folder in complete if step_of(folder) <= step][-self.keep :]
        for folder in _folders(self.root):
            if folder not in kept:
                self._drop(folder)

    def _drop(self, folder: Path) -> None:
        # Renamed first: a half-deleted folder must not look like a checkpoint.
        doomed = self._hidden(folder, "tmp")
        try:
            folder.rename(doomed)
            shutil.rmtree(doomed)
        except OSError as error:
            logger.warning("checkpoint %s could not be deleted: %s", folder, error)

    def _clear_leftovers(self) -> None:
        for aside in self.root.glob(".step-*.old-*"):
            target = self.root / aside.name[1:].partition(".")[0]
            if target.exists():
                shutil.rmtree(aside, ignore_errors=True)
            else:
                aside.rename(target)
        for draft in self.root.glob(".step-*.tmp-*"):
            logger.info("%s was left half-written and is deleted", draft)
            shutil.rmtree(draft, ignore_errors=True)

    def _hidden(self, folder: Path, kind: str) -> Path:
        return self.root / f".{folder.name}.{kind}-{uuid.uuid4().hex[:8]}"


def _folders(root: Path) -> list[Path]:
    """The checkpoint folders, oldest first, torn ones included."""
    if not root.is_dir():
        return []
    return sorted((path for path in root.iterdir() if _NAME.fullmatch(path.name) and path.is_dir()), key=step_of)


def _seal(folder: Path, step: int) -> None:
    """Flush every file to the disk, then write the manifest."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    with ThreadPoolExecutor() as pool:
        entries = dict(pool.map(lambda path: (path.relative_to(folder).as_posix(), _entry(path)), files))
    for inner in folder.rglob("*"):
        if inner.is_dir():
            fsync_path(inner)
    with replacing(folder / MANIFEST) as file:
        file.write(json.dumps({"format": FORMAT, "step": step, "files": entries}, indent=1).encode())


def _entry(path: Path) -> dict[str, Any]:
    fsync_path(path)
    return {"bytes": path.stat().st_size, "sha256": _digest(path)}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _file_fault(folder: Path, name: str, entry: Mapping[str, Any], contents: bool) -> str | None:
    path = folder / name
    try:
        size = path.stat().st_size
        if size != entry["bytes"]:
            return f"{name}: {size} bytes instead of {entry['bytes']}"
        if contents and _digest(path) != entry["sha256"]:
            return f"{name}: its contents do not match the manifest's hash"
    except FileNotFoundError:
        return f"{name}: missing"
    except OSError as error:
        return f"{name}: unreadable: {error}"
    return None
