"""The folder of a run: its files, and the lock of the process that writes it."""

from __future__ import annotations

import logging
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from morl.errors import MorlError, UsageError
from morl.files import replacing
from morl.run.checkpoint import newest_good, step_of

if TYPE_CHECKING:
    from filelock import BaseFileLock

    from morl.recipe import PreferenceRecipe, Recipe, SftRecipe

logger = logging.getLogger(__name__)


class RunFolder:
    """The folder of a run, `runs/<name>/`.

    `RunFolder(path)` gives the paths of an existing run; `RunFolder.open` locks the folder
    for the process that writes the run, until `close`.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path).absolute()
        self._lock: BaseFileLock | None = None
        self._handlers: list[logging.Handler] = []
        self._earlier: tuple[bytes, list[str]] | None = None
        """Of a resumed run: the recipe of its existing checkpoints, and their names."""

    @classmethod
    def open(
        cls, recipe: Recipe | PreferenceRecipe | SftRecipe, *, resume: bool = False, path: Path | None = None
    ) -> Self:
        """Lock the folder of the recipe's run, or `path`, and write `recipe.yaml` into it.

        With `resume`, an existing run continues and each changed key of the recipe is logged;
        if it fails before its first new checkpoint, the recipe of the old ones is restored.
        When the recipe's folder holds no run yet, a new one starts, so that a cluster can
        restart a job with the same command.

        Raises: UsageError when the folder holds a run and `resume` is False, when `path`
        holds none to resume, or when another process is writing to it.
        """
        run = cls(Path(recipe.run.dir) / recipe.run.name if path is None else path)
        if resume and path is not None and not run.holds_a_run():
            raise UsageError(f"{path}: there is no run here to resume")
        try:
            run.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(f"run.dir: {run.path} cannot be created: {error}") from error
        run._claim()
        try:
            if run.holds_a_run() and not resume:
                raise UsageError(
                    f"{run.path} already holds a run: continue it (--resume), or give this one "
                    "another name (run.name=…)"
                )
            run._start_logging()
            run._save_recipe(recipe.to_yaml(), resume)
        except BaseException:
            run.close()
            raise
        return run

    def close(self) -> None:
        """Stop logging to the folder and release its lock."""
        for handler in self._handlers:
            logging.getLogger("morl").removeHandler(handler)
            handler.close()
        self._handlers.clear()
        if self._earlier is not None and self._earlier[1] == self._saved():
            # The changed recipe made no checkpoint, perhaps because it does not fit: keep that of the checkpoints.
            with replacing(self.recipe) as file:
                file.write(self._earlier[0])
        self._earlier = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if isinstance(error, Exception):
            self._log_end(error)
        if error is None:
            self._earlier = None
        self.close()

    def _log_end(self, error: Exception) -> None:
        """Write the error that ended the run to its log only: the command line prints it."""
        # An error that morl raises on purpose needs no traceback.
        trace = None if isinstance(error, MorlError) else (type(error), error, error.__traceback__)
        text = (type(error).__name__, error)
        record = logger.makeRecord(logger.name, logging.ERROR, __file__, 0, "the run failed: %s: %s", text, trace)
        for handler in self._handlers[:1]:
            handler.handle(record)

    @property
    def recipe(self) -> Path:
        """The recipe as resolved."""
        return self.path / "recipe.yaml"

    @property
    def metrics(self) -> Path:
        """One row per step."""
        return self.path / "metrics.jsonl"

    @property
    def eval(self) -> Path:
        """One row per evaluation of a set."""
        return self.path / "eval.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

    @property
    def log(self) -> Path:
        """Log lines with timestamps."""
        return self.path / "log.txt"

    @property
    def report(self) -> Path:
        """The HTML report."""
        return self.path / "report.html"

    @property
    def skipped(self) -> Path:
        """Folder of batches with a non-finite loss or gradient."""
        return self.path / "skipped"

    def samples(self, step: int) -> Path:
        """The samples of one step with their scores."""
        return self.path / "samples" / f"step-{step:06d}.jsonl.zst"

    def steps_done(self) -> int:
        """The step of the newest good checkpoint; 0 without one."""
        newest = newest_good(self.checkpoints)
        return 0 if newest is None else step_of(newest)

    def holds_a_run(self) -> bool:
        """Whether the folder holds any work; the recipe and log of a failed start do not count."""
        files = (self.metrics, self.eval)
        folders = (self.checkpoints, self.path / "samples")
        return any(file.is_file() and file.stat().st_size for file in files) or any(
            folder.is_dir() and any(folder.glob("step-*")) for folder in folders
        )

    def _claim(self) -> None:
        import filelock

        # The operating system releases it however the process dies.
        lock = filelock.FileLock(self.path / ".lock", thread_local=False)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise UsageError(
                f"{self.path}: another process is writing this run; wait for it, or give this one "
                "another name (run.name=…)"
            ) from None
        except (NotImplementedError, OSError) as error:
            logger.warning("%s cannot be locked (%s); make sure that only one process writes here", self.path, error)
        else:
            self._lock = lock

    def _start_logging(self) -> None:
        from rich.logging import RichHandler

        to_file = logging.FileHandler(self.log, encoding="utf-8")
        to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        to_console = RichHandler(level=logging.WARNING, show_path=False, markup=False)
        self._handlers = [to_file, to_console]
        root = logging.getLogger("morl")
        root.setLevel(logging.INFO)
        for handler in self._handlers:
            root.addHandler(handler)

    def _saved(self) -> list[str]:
        """Names of the checkpoints."""
        return sorted(path.name for path in self.checkpoints.glob("step-*"))

    def _save_recipe(self, text: str, resume: bool) -> None:
        if resume and self.recipe.is_file():
            if self._saved():
                self._earlier = self.recipe.read_bytes(), self._saved()
            for key, old, new in changes(_load_yaml(self.recipe.read_text("utf-8")), _load_yaml(text)):
                logger.warning("the recipe has changed since this run began: %s was %s, is now %s", key, old, new)
        elif resume:
            # A restartable job names --resume at its first start too: not worth a line on the console.
            logger.info("%s: nothing to resume yet; the run starts from the beginning", self.path)
        with replacing(self.recipe) as file:
            file.write(text.encode())


def changes(old: Any, new: Any, path: str = "") -> Iterator[tuple[str, str, str]]:
    """Each key path whose value differs, with both values as text; "not set" where one is missing."""
    if old == new:
        return
    old_items, new_items = _items(old), _items(new)
    if old_items is None or new_items is None:
        yield path, _shown(old), _shown(new)
        return
    for key in {**old_items, **new_items}:
        yield from changes(
            old_items.get(key, _NOT_SET), new_items.get(key, _NOT_SET), f"{path}.{key}" if path else str(key)
        )


def _items(value: Any) -> Mapping[Any, Any] | None:
    if isinstance(value, list):
        return dict(enumerate(value))
    return value if isinstance(value, Mapping) else None


_NOT_SET = object()


def _shown(value: Any) -> str:
    return "not set" if value is _NOT_SET else textwrap.shorten(repr(value), 120, placeholder=" …")


def _load_yaml(text: str) -> Any:
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).load(text)
