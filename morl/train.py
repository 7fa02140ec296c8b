"""The training loop: rollout, reward, update, sync; everything else is said by its name.

    prompts -> samples -> scores -> groups -> batch -> one optimiser step -> new weights -> engines

Each step is fully on-policy: every sample carries the version of the policy that is about
to learn from it, and each batch of rollouts is used for exactly one optimiser step.
"""

from __future__ import annotations

import time
from pathlib import Path

from morl.evaluation import evaluate, unmeasured
from morl.event_loop import run_coroutine
from morl.recipe import Recipe
from morl.run import Interrupt, Parts, RunFolder, build_parts, recovering
from morl.track import step_metrics


def train(recipe: Recipe, *, resume: bool | Path = False, local: bool = False) -> bool:
    """Train the recipe's policy and write everything to its run folder.

    Args:
        recipe: what to train, on what, and how.
        resume: go on from the newest good checkpoint, of this run folder or of the one given.
        local: run learner and engine in this process, without Ray.

    Returns: whether all steps are done; False when a signal ended it early, state saved.
    Raises: MorlError when the run cannot start or go on.
    """
    where = resume if isinstance(resume, Path) else None
    with Interrupt() as interrupt, RunFolder.open(recipe, resume=bool(resume), path=where) as folder:
        if folder.steps_done() >= recipe.run.steps and not unmeasured(recipe, folder.eval, recipe.run.steps):
            return True
        return recovering(recipe, lambda own: run_coroutine(_train(own, folder, interrupt, local)), folder, interrupt)


async def _train(recipe: Recipe, folder: RunFolder, interrupt: Interrupt, local: bool) -> bool:
    every, steps = recipe.run.checkpoint_every, recipe.run.steps
    async with build_parts(recipe, folder, local=local) as parts:
        await _evaluate_if_due(parts, interrupt)
        while parts.step < steps and not interrupt.requested:
            await _step(parts, recipe)
            if parts.step == steps or (every and parts.step % every == 0):
                parts.save()
            await _evaluate_if_due(parts, interrupt)
        parts.save()
        return parts.step >= steps and not unmeasured(recipe, folder.eval, steps)


async def _evaluate_if_due(parts: Parts, interrupt: Interrupt) -> None:
    """Measure the sets that are due; a signal ends it, and the run that goes on makes up for what is missing."""
    due = unmeasured(parts.recipe, parts.folder.eval, parts.step)
    if due:
        await interrupt.unless_requested(evaluate(parts.evaluation, parts.tracker, step=parts.step, only=due))


async def _step(parts: Parts, recipe: Recipe) -> None:
    began, learner, step = time.perf_counter(), parts.learner, parts.step + 1
    parts.scorer.begin_step(step)
    rollout = await parts.collector.collect(
        parts.mixture.draw(recipe.rollout.prompts_per_step),
        key=f"step-{step}",
        samples=recipe.rollout.samples_per_prompt,
        sampling=parts.sampling,
        version=learner.policy_version,
    )
    parts.health.check_scores(step, rollout.groups, recipe.scoring.min_scored)
    batch = learner.batch(rollout.groups)
    learned = learner.step(batch)
    synced = await parts.sync.publish(learner, parts.engines)
    parts.step = step
    parts.record(
        rollout,
        batch,
        step_metrics(rollout.groups, {name: spec.pass_at for name, spec in recipe.objectives.items()})
        | learned
        | {"time/sync_s": synced, "time/step_s": time.perf_counter() - began},
    )
