"""Supervised runs, shared by `morl sft` and `morl rm`: optimiser steps, checkpoints, metrics and resuming."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic

from morl.announce import announce
from morl.cluster import Cluster
from morl.files import put_in_place
from morl.learner import M, Rank, RankGroup, RankSettings, start_rank_group
from morl.recipe import PreferenceRecipe, SftRecipe
from morl.run.checkpoint import CheckpointStore, read_state, step_of, write_state
from morl.run.folder import RunFolder
from morl.run.health import HealthCheck
from morl.track import Tracker, make_tracker
from morl.types import Batch


class SupervisedRun(Generic[M]):
    """A model on its ranks, with the checkpoints and metrics of its run."""

    def __init__(
        self,
        ranks: RankGroup[M],
        tracker: Tracker,
        health: HealthCheck,
        checkpoints: CheckpointStore,
        every: int,
        step: int,
        resumed: Mapping[str, Any] | None,
    ) -> None:
        self.ranks = ranks
        self.tracker = tracker
        self.resumed = resumed
        """The state passed to `save` for the checkpoint that this run resumes from; None without one."""
        self.step = step
        """Optimiser steps of the run done."""
        self._health = health
        self._checkpoints = checkpoints
        self._every = every

    def learn(self, batch: Batch, metrics_of: Callable[[M], dict[str, float]], *, number: int, steps: int) -> None:
        """Take one optimiser step on the mean loss of a batch, and log it.

        Args:
            batch: the rows to learn from.
            metrics_of: named metrics from the ranks' totals; those of the learner are added.
            number: the step in the learning-rate schedule, counted from 1.
            steps: length of that schedule.

        Raises: RunError when the run must not continue; CheckpointError when a checkpoint in flight failed.
        """
        total = self.ranks.step(batch, number, steps)
        self.step += 1
        metrics = metrics_of(total) | {
            "learner/grad_norm": total.grad_norm,
            "learner/skipped": total.skipped,
            "learner/lr": total.learning_rate,
            "learner/tokens_per_s": len(batch.token_ids_T) / total.seconds,
            "time/learner_s": total.seconds,
        }
        self.tracker.log(self.step, metrics)
        self._health.check_step(self.step, batch, metrics, loss=total.loss, nonfinite_rows=self.ranks.nonfinite_rows)
        self._checkpoints.check()

    @property
    def due(self) -> bool:
        """Whether the recipe asks for a checkpoint after this step."""
        return bool(self._every) and self.step % self._every == 0

    def save(self, state: Mapping[str, Any] = MappingProxyType({})) -> None:
        """Start a checkpoint of the model and of `state`, plain JSON values; it is written during the next step."""
        with self._checkpoints.writing(self.step, written=self.ranks.saved) as draft:
            self.ranks.call("save", draft / "learner", True)
            write_state(draft, {"step": self.step, **state})

    def publish(self, folder: Path, files: Mapping[str, str] = MappingProxyType({})) -> None:
        """Write the model and the named text files beside it to `folder`, atomically."""
        draft = folder.with_name(f".{folder.name}")
        self.ranks.call("publish", draft, self.step)
        for name, text in files.items():
            (draft / name).write_text(text, "utf-8")
        put_in_place(draft, folder)
        announce(f"wrote {folder}")


@contextmanager
def open_supervised_run(
    recipe: SftRecipe | PreferenceRecipe,
    folder: RunFolder,
    cluster: Cluster,
    kind: type[Rank[M]],
    settings: RankSettings,
    *,
    console: Tracker,
    start: int = 0,
) -> Iterator[SupervisedRun[M]]:
    """The run at its newest good checkpoint, or with the model that `settings` loads; closed at the end of the block.

    Args:
        recipe: of the run.
        folder: of the run.
        cluster: where the ranks are placed.
        kind: class of the ranks.
        settings: of the ranks.
        console: shows each step.
        start: steps of the run before this model's first; a checkpoint of those is not resumed from.
    """
    checkpoints = CheckpointStore(folder.checkpoints, recipe.run.keep_checkpoints)
    newest = checkpoints.newest_good()
    if newest is not None and step_of(newest) <= start:
        newest = None
    step = start if newest is None else step_of(newest)
    with ExitStack() as stack:
        ranks = start_rank_group(kind, settings, cluster)
        stack.callback(ranks.close)
        tracker = make_tracker(recipe, folder.path, step, console=console)
        stack.callback(tracker.close)
        stack.push(checkpoints.close)
        if newest is not None:
            ranks.call("load", newest / "learner")
        yield SupervisedRun(
            ranks,
            tracker,
            HealthCheck(settings.learner, settings.dtype, folder.skipped),
            checkpoints,
            recipe.run.checkpoint_every,
            step,
            None if newest is None else read_state(newest),
        )
