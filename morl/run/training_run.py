"""A training run: its components, built in order and closed again, and its checkpoints."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from morl.announce import announce
from morl.cluster import Cluster
from morl.data import Mixture, load_prompts
from morl.errors import CheckpointError
from morl.evaluation import Evaluation
from morl.learner import Learner, PolicySettings, critic_settings
from morl.model import ChatCodec, check_frames, engine_options, resolve_model
from morl.recipe import Recipe, go_offline
from morl.rewards import Scorer
from morl.rollout import Collector, EnginePool, Rollout, Sampling, choose_engine, start_engines
from morl.run.checkpoint import CheckpointStore, read_state, write_state
from morl.run.folder import RunFolder
from morl.run.health import HealthCheck
from morl.sync import DiskSync, NcclSync, check_sync, open_sync, plan_sync
from morl.track import Tracker, make_tracker, write_samples
from morl.types import Batch


@dataclass(slots=True)
class TrainingRun:
    """The components of a training run, and its progress."""

    recipe: Recipe
    folder: RunFolder
    mixture: Mixture
    engines: EnginePool
    scorer: Scorer
    collector: Collector
    sampling: Sampling
    learner: Learner
    sync: DiskSync | NcclSync
    evaluation: Evaluation
    checkpoints: CheckpointStore
    tracker: Tracker
    health: HealthCheck
    step: int = 0
    """Optimiser steps done."""
    saved: int = 0
    """The step of the newest checkpoint."""
    checkpoint_s: float = 0.0
    """Seconds that checkpoints have blocked the loop since the last `record`."""

    def record(self, rollout: Rollout, batch: Batch, metrics: dict[str, float]) -> None:
        """Write the step's samples and metrics, then check them. Raises: RunError when the run must not continue."""
        if self.recipe.track.samples:
            write_samples(self.folder.samples(self.step), self.step, rollout.groups)
        measured = {
            "rollout/tokens": float(rollout.generated_tokens),
            "rollout/tokens_per_s": rollout.generated_tokens / max(rollout.generate_s, 1e-9),
            "time/rollout_s": rollout.generate_s,
            "time/reward_s": rollout.reward_wait_s,
            **{f"objective/{name}/skipped_rows": float(count) for name, count in self.mixture.passed_over.items()},
            "time/checkpoint_s": self.checkpoint_s,
        }
        self.checkpoint_s = 0.0
        self.tracker.log(self.step, metrics | measured)
        self.checkpoints.check()
        self.health.check_step(
            self.step,
            batch,
            metrics,
            loss=metrics["learner/loss"],
            nonfinite_rows=self.learner.nonfinite_rows,
            prompts=[group.prompt.id for group in rollout.groups],
        )

    def save(self) -> None:
        """Start a checkpoint of everything that `restore` needs, unless this step has one.

        It is written during the next step.
        """
        if self.saved == self.step:
            return
        began = time.perf_counter()
        with self.checkpoints.writing(self.step, written=self.learner.saved) as draft:
            learner = self.learner.save(draft / "learner", background=True)
            state = {"step": self.step, "mixture": self.mixture.state(), "rewards": self.scorer.state(), **learner}
            write_state(draft, state)
        self.saved = self.step
        self.checkpoint_s += time.perf_counter() - began

    def restore(self, checkpoint: Path) -> None:
        """Continue from a checkpoint."""
        state = read_state(checkpoint)
        self.mixture.restore(state["mixture"])
        self.scorer.restore(state.get("rewards", {}))
        self.learner.load(checkpoint / "learner", state)
        self.step = self.saved = state["step"]


@asynccontextmanager
async def open_training_run(recipe: Recipe, folder: RunFolder, *, local: bool) -> AsyncIterator[TrainingRun]:
    """The recipe's run at its newest good checkpoint, or at step 0; closed at the end of the block."""
    go_offline(recipe)
    async with AsyncExitStack() as stack:
        checkpoints = CheckpointStore(folder.checkpoints, recipe.run.keep_checkpoints)
        newest = checkpoints.newest_good()
        # Data first: a mistake in it should not wait for a model to load.
        objectives = recipe.objectives
        prompts = {name: load_prompts(spec, name, "objectives", name, "data") for name, spec in objectives.items()}
        mixture = Mixture(prompts, {name: spec.share for name, spec in objectives.items()}, recipe.run.seed)
        model = resolve_model(recipe.model.path)
        announce(f"model: {model}")
        codec = ChatCodec.load(model, recipe.rollout.max_prompt_tokens)
        if recipe.rollout.too_long == "skip":
            for prompt_set in prompts.values():
                prompt_set.skip_unless(codec.fits)
        specs = {f"objectives.{name}": spec for name, spec in objectives.items()}
        specs |= {f"eval.sets.{name}": spec for name, spec in recipe.eval_objectives().items()}
        check_frames(codec.media, specs)
        settings = PolicySettings.of(recipe, model, codec.banned_token_ids)
        critic = critic_settings(recipe, model)
        if critic is not None:
            announce(f"critic: {critic.model}")
        cluster = stack.enter_context(Cluster(recipe.cluster, local=local))
        engine, _ = choose_engine(recipe.rollout.engine)
        check_sync(recipe, engine, gpus=cluster.gpus, local=local, nodes=cluster.nodes)
        scorer = stack.enter_context(_scorer(recipe))
        await scorer.start()
        learner = Learner.start(
            settings,
            cluster,
            total_steps=recipe.run.steps,
            max_new_tokens=recipe.rollout.max_new_tokens,
            critic=critic,
        )
        stack.callback(learner.close)
        stack.push(checkpoints.close)
        plan = plan_sync(recipe, engine, learner.adapted_outside(), cluster.gpus)
        options = plan.engine_options | engine_options(engine, codec.media, list(specs.values()))
        engines = await start_engines(recipe, model, local=local, gpus=cluster.gpus, more=options)
        stack.push_async_callback(engines.close)
        collector = Collector(engines, codec, scorer.score, seed=recipe.run.seed)
        if recipe.learner.lora is not None:
            announce(f"LoRA reaches the engines {'as an adapter' if plan.adapter else 'merged'} ({plan.reason})")
        sync = open_sync(recipe, plan, folder.path, model)
        stack.callback(sync.close)
        run = TrainingRun(
            recipe=recipe,
            folder=folder,
            mixture=mixture,
            engines=engines,
            scorer=scorer,
            collector=collector,
            sampling=_sampling(recipe, codec),
            learner=learner,
            sync=sync,
            evaluation=Evaluation.load(recipe, engines, collector, codec, folder.path),
            checkpoints=checkpoints,
            tracker=make_tracker(recipe, folder.path, _step_of(newest)),
            health=HealthCheck(recipe.learner, recipe.model.dtype, folder.skipped),
        )
        stack.callback(run.tracker.close)
        if newest is not None:
            run.restore(newest)
            announce(f"resumes from {newest}")
            await sync.publish(learner, engines)
        yield run


def _scorer(recipe: Recipe) -> Scorer:
    return Scorer(
        recipe.objectives,
        measured=Evaluation.objectives(recipe),
        workers=recipe.scoring.workers,
        memory_mb=recipe.scoring.memory_mb,
    )


def _sampling(recipe: Recipe, codec: ChatCodec) -> Sampling:
    return Sampling(
        temperature=recipe.rollout.temperature,
        max_new_tokens=recipe.rollout.max_new_tokens,
        stop_token_ids=codec.stop_token_ids,
        banned_token_ids=codec.banned_token_ids,
    )


def _step_of(checkpoint: Path | None) -> int:
    if checkpoint is None:
        return 0
    step = read_state(checkpoint).get("step")
    if not isinstance(step, int):
        raise CheckpointError(f"'{checkpoint}' does not state its step")
    return step
