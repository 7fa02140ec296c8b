"""The trackers of a run: JSONL and the console always, wandb and TensorBoard on request."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from morl.track.jsonl_files import JsonlTracker, read_rows, truncate

if TYPE_CHECKING:
    from morl.recipe import RunFolderSpec, TrackSpec


class _Tracked(Protocol):
    """Any kind of recipe with a run and trackers."""

    @property
    def run(self) -> RunFolderSpec: ...
    @property
    def track(self) -> TrackSpec: ...
    def model_dump(self, *, mode: str) -> dict[str, Any]: ...


class Tracker(Protocol):
    """Records the metrics of a run."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record one step's metrics, by name."""

    def log_eval(self, row: Mapping[str, Any]) -> None:
        """Record one evaluation: `step`, `set` and its results."""

    def close(self) -> None:
        """Write what is pending, and release files and connections."""


class Trackers:
    """Several trackers as one."""

    def __init__(self, trackers: Sequence[Tracker]) -> None:
        self._trackers = tuple(trackers)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the step to each tracker."""
        for tracker in self._trackers:
            tracker.log(step, metrics)

    def log_eval(self, row: Mapping[str, Any]) -> None:
        """Log the evaluation to each tracker."""
        for tracker in self._trackers:
            tracker.log_eval(row)

    def close(self) -> None:
        """Close each tracker."""
        for tracker in self._trackers:
            tracker.close()


def make_tracker(recipe: _Tracked, run_dir: Path, resumed_step: int = 0, *, console: Tracker | None = None) -> Tracker:
    """The trackers that the recipe asks for, writing into `run_dir`, and one for the console.

    `console` replaces the table of objectives, which only a training recipe has. Rows of steps
    after `resumed_step`, which will be repeated, are dropped; 0, without a resume, drops all.

    Raises: MissingExtraError when a tracker's package is not installed.
    """
    from morl.track.console import ConsoleTracker

    optional = _optional_trackers(recipe, run_dir, resumed_step)
    metrics, evaluations = run_dir / "metrics.jsonl", run_dir / "eval.jsonl"
    for path in (metrics, evaluations):
        # Step 0 is the evaluation before training, which a new run repeats.
        truncate(path, resumed_step or -1)
    for path in (run_dir / "samples").glob("step-*.jsonl.zst"):
        if int(path.name.split(".")[0].removeprefix("step-")) > resumed_step:
            path.unlink()
    if console is None:
        objectives = tuple(getattr(recipe, "objectives", ()))
        console = ConsoleTracker(
            recipe.run.name,
            objectives,
            steps=getattr(recipe.run, "steps", 0),
            done=resumed_step,
            first_rewards=_first_rewards(metrics, objectives),
        )
    return Trackers([JsonlTracker(metrics, evaluations), *optional, console])


def _optional_trackers(recipe: _Tracked, run_dir: Path, resumed_step: int) -> list[Tracker]:
    trackers: list[Tracker] = []
    if recipe.track.wandb is not None:
        from morl.track.wandb import WandbTracker

        config = recipe.model_dump(mode="json")
        trackers.append(WandbTracker(recipe.track.wandb, name=recipe.run.name, run_dir=run_dir, config=config))
    if recipe.track.tensorboard:
        from morl.track.tensorboard import TensorboardTracker

        trackers.append(TensorboardTracker(run_dir / "tensorboard", done=resumed_step))
    return trackers


def _first_rewards(metrics: Path, objectives: Sequence[str]) -> dict[str, float]:
    """The first reward of each objective in the rows on disk."""
    first: dict[str, float] = {}
    for row in read_rows(metrics):
        for name in objectives:
            value = row.get(f"objective/{name}/reward")
            if value is not None:
                first.setdefault(name, value)
        if len(first) == len(objectives):
            break
    return first
