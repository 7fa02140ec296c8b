"""Restarts of a run whose learner died: from the newest checkpoint, a bounded number of times."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from morl.errors import RunError
from morl.learner import LearnerDiedError, LearnerMemoryError
from morl.recipe import PreferenceRecipe, Recipe, SftRecipe
from morl.run.folder import RunFolder
from morl.run.interrupt import Interrupt

logger = logging.getLogger(__name__)

R = TypeVar("R", Recipe, PreferenceRecipe, SftRecipe)


def with_restarts(recipe: R, attempt: Callable[[R], bool], folder: RunFolder, interrupt: Interrupt) -> bool:
    """Run `attempt(recipe)`, and again from the newest checkpoint each time its learner dies.

    It is retried `learner.max_restarts` times without a new checkpoint in between, and once with half of
    `learner.tokens_per_microbatch` when the learner ran out of memory.

    Args:
        recipe: of the run; its `learner.max_restarts` is the limit.
        attempt: continues from the folder's newest checkpoint; returns False when a signal stopped it early.
        folder: of the run.
        interrupt: of the run; no retry after a signal.

    Returns: whether all is done; False when a signal stopped the run early, its state saved.
    Raises: RunError when it cannot continue, or was stopped before there was anything to save.
    """
    restarts, halved = 0, False
    newest = _newest(folder)
    while True:
        try:
            done = attempt(recipe)
        except LearnerDiedError as error:
            before, newest = newest, _newest(folder)
            restarts = restarts + 1 if newest == before else 1
            if restarts > recipe.learner.max_restarts or interrupt.requested:
                raise
            logger.error(
                "the learner died; the run continues from %s (attempt %d of %d): %s",
                newest or "its beginning",
                restarts,
                recipe.learner.max_restarts,
                error,
            )
            if isinstance(error, LearnerMemoryError):
                recipe, halved = _with_smaller_microbatches(recipe, error, again=halved), True
        else:
            if not done and _newest(folder) is None:
                raise RunError(f"{interrupt.requested} before the first step was done: nothing is saved yet")
            return done


def _with_smaller_microbatches(recipe: R, error: LearnerMemoryError, *, again: bool) -> R:
    spec = recipe.learner
    tokens = spec.tokens_per_microbatch
    if again or tokens == 1:
        raise RunError(
            f"learner.tokens_per_microbatch={tokens}: the learner is out of memory{' again' if again else ''} "
            f"({error}). Lower it further, or set learner.activation_checkpointing=true, a higher learner.zero, "
            "learner.offload=true, or more learner.ranks, then continue with --resume"
        ) from error
    logger.error(
        "the learner ran out of memory with learner.tokens_per_microbatch=%d; one retry with %d. "
        "The update is the same, in smaller micro-batches: set that in the recipe",
        tokens,
        tokens // 2,
    )
    smaller = spec.model_copy(update={"tokens_per_microbatch": tokens // 2})
    return recipe.model_copy(update={"learner": smaller})


def _newest(folder: RunFolder) -> Path | None:
    """The newest checkpoint by name; loading it checks whether it is good."""
    return max(folder.checkpoints.glob("step-*"), default=None)
