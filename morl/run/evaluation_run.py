"""`morl eval`: a recipe's evaluation sets on one or more checkpoints."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from morl.cluster import Cluster
from morl.errors import UsageError
from morl.evaluation import Evaluation, RowFile, evaluate
from morl.event_loop import run_coroutine
from morl.files import require_writable
from morl.model import ChatCodec, check_frames, engine_options
from morl.recipe import Recipe, go_offline
from morl.rewards import Scorer
from morl.rollout import Collector, choose_engine, start_engines
from morl.run.export_policy import exported


def evaluate_models(
    recipe: Recipe, models: Sequence[str], *, out: Path | None = None, local: bool = False
) -> list[list[dict[str, Any]]]:
    """Evaluate each model in turn on the recipe's evaluation sets.

    Args:
        recipe: gives the sets, the rollout engine and the rewards.
        models: checkpoint folders, run folders, or any other value of `model.path`.
        out: JSON lines file for the rows, each with its `model`.
        local: without Ray.

    Returns: for each model, the rows of its sets.
    Raises: UsageError when the recipe has no evaluation sets, or `out` cannot be written.
    """
    if out is not None:
        require_writable(out)
    if not recipe.eval.sets:
        raise UsageError("eval.sets: the recipe has none, so there is nothing to evaluate")
    return [run_coroutine(_evaluate_model(recipe, model, out, local)) for model in models]


async def _evaluate_model(recipe: Recipe, model: str, out: Path | None, local: bool) -> list[dict[str, Any]]:
    go_offline(recipe)
    with exported(model) as folder, Cluster(recipe.cluster, local=local) as cluster:
        codec = ChatCodec.load(folder, recipe.rollout.max_prompt_tokens)
        check_frames(codec.media, {f"eval.sets.{name}": spec for name, spec in recipe.eval_objectives().items()})
        engine, _ = choose_engine(recipe.rollout.engine)
        options = engine_options(engine, codec.media, recipe.eval_objectives().values())
        engines = await start_engines(recipe, folder, local=local, gpus=cluster.gpus, more=options)
        try:
            with Scorer(
                Evaluation.objectives(recipe), workers=recipe.scoring.workers, memory_mb=recipe.scoring.memory_mb
            ) as scorer:
                collector = Collector(engines, codec, scorer.score, seed=recipe.run.seed)
                evaluation = Evaluation.load(recipe, engines, collector, codec, None)
                return await evaluate(evaluation, RowFile(out, model), step=0)
        finally:
            await engines.close()
