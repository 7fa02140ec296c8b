"""What a run does when its learner dies: go on from the newest checkpoint, but not forever."""

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


def recovering(recipe: R, attempt: Callable[[R], bool], folder: RunFolder, interrupt: Interrupt) -> bool:
    """Run `attempt(recipe)`, again and again while its learner dies: each goes on from the newest checkpoint.

    Tried again it is `learner.max_restarts` times without a new checkpoint in between; and after the learner ran
    out of memory once, with half of `learner.tokens_per_microbatch`.

    Args:
        recipe: what is run; its learner says how often.
        attempt: goes on from the folder's newest checkpoint; returns whether all is done, else an end was asked for.
        folder: of the run.
        interrupt: whether an end was asked for.

    Returns: whether all is done; False when a signal ended it early, state saved.
    Raises: RunError when it cannot go on, or was ended before there was anything to save.
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
                "the learner died; the run goes on from %s (attempt %d of %d): %s",
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
    tried = spec.tokens_per_microbatch
    if again or tried == 1:
        raise RunError(
            f"learner.tokens_per_microbatch={tried}: the learner is out of memory{' again' if again else ''} "
            f"({error}). Set it lower still, or learner.activation_checkpointing=true, a higher learner.zero, "
            "learner.offload=true, or more learner.ranks, then go on with --resume"
        ) from error
    logger.error(
        "the learner ran out of memory with learner.tokens_per_microbatch=%d: it is tried once more with %d. "
        "The update is the same, in smaller pieces: put that into the recipe",
        tried,
        tried // 2,
    )
    smaller = spec.model_copy(update={"tokens_per_microbatch": tried // 2})
    return recipe.model_copy(update={"learner": smaller})


def _newest(folder: RunFolder) -> Path | None:
    """The newest checkpoint by name; whether it is good is found out by whoever loads it."""
    return max(folder.checkpoints.glob("step-*"), default=None)
