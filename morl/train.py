"""The training loop: rollout, reward, update, weight sync; each stage is one call.

    prompts -> samples -> scores -> groups -> batch -> one optimiser step -> new weights -> engines

Training is fully on-policy: every sample carries the version of the policy that learns from it,
and each batch of rollouts is used for exactly one optimiser step.
"""

from __future__ import annotations

import time
from pathlib import Path

from morl.evaluation import evaluate, sets_due
from morl.event_loop import run_coroutine
from morl.recipe import Recipe
from morl.run import Interrupt, RunFolder, TrainingRun, open_training_run, with_restarts
from morl.track import step_metrics


def train(recipe: Recipe, *, resume: bool | Path = False, local: bool = False) -> bool:
    """Train the recipe's policy and write everything to its run folder.

    Args:
        recipe: the model, its objectives and how it learns.
        resume: continue from the newest good checkpoint, of this run's folder or of the one given.
        local: run learner and engine in this process, without Ray.

    Returns: whether all steps are done; False when a signal stopped the run early, its state saved.
    Raises: MorlError when the run cannot start or continue.
    """
    path = resume if isinstance(resume, Path) else None
    with Interrupt() as interrupt, RunFolder.open(recipe, resume=bool(resume), path=path) as folder:
        if folder.steps_done() >= recipe.run.steps and not sets_due(recipe, folder.eval, recipe.run.steps):
            return True
        return with_restarts(
            recipe, lambda current: run_coroutine(_train(current, folder, interrupt, local)), folder, interrupt
        )


async def _train(recipe: Recipe, folder: RunFolder, interrupt: Interrupt, local: bool) -> bool:
    every, steps = recipe.run.checkpoint_every, recipe.run.steps
    async with open_training_run(recipe, folder, local=local) as run:
        await _evaluate_if_due(run, interrupt)
        while run.step < steps and not interrupt.requested:
            await _step(run)
            if run.step == steps or (every and run.step % every == 0):
                run.save()
            await _evaluate_if_due(run, interrupt)
        run.save()
        return run.step >= steps and not sets_due(recipe, folder.eval, steps)


async def _evaluate_if_due(run: TrainingRun, interrupt: Interrupt) -> None:
    """Evaluate the sets that are due; a signal cancels this, and the resumed run evaluates what is missing."""
    due = sets_due(run.recipe, run.folder.eval, run.step)
    if due:
        await interrupt.run_until_requested(evaluate(run.evaluation, run.tracker, step=run.step, only=due))


async def _step(run: TrainingRun) -> None:
    """One rollout batch, one optimiser step, one weight sync."""
    began, recipe, step = time.perf_counter(), run.recipe, run.step + 1
    run.scorer.begin_step(step)
    rollout = await run.collector.collect(
        run.mixture.draw(recipe.rollout.prompts_per_step),
        key=f"step-{step}",
        samples=recipe.rollout.samples_per_prompt,
        sampling=run.sampling,
        version=run.learner.policy_version,
    )
    run.health.check_scores(step, rollout.groups, recipe.scoring.min_scored)
    batch = run.learner.batch(rollout.groups)
    learner_metrics = run.learner.step(batch)
    sync_s = await run.sync.publish(run.learner, run.engines)
    run.step = step
    reward_metrics = step_metrics(rollout.groups, {name: spec.pass_at for name, spec in recipe.objectives.items()})
    times = {"time/sync_s": sync_s, "time/step_s": time.perf_counter() - began}
    run.record(rollout, batch, reward_metrics | learner_metrics | times)
