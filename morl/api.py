"""The Python API: each command of `morl` as a function.

    from morl import api

    recipe = api.load_recipe({"run": {…}, "model": {…}, "objectives": {…}, "rollout": {…}})
    run = api.train(recipe, local=True)

All functions work in a notebook too. Importing this module imports nothing heavy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morl.recipe import Document, PreferenceRecipe, Recipe, RecipeSource, SftRecipe, load_document, load_recipe
from morl.rewards import score

if TYPE_CHECKING:
    from morl.preflight import CheckReport, Item


@dataclass(frozen=True, slots=True)
class Run:
    """The result of a training run."""

    path: Path
    """The run's folder, `runs/<name>/`."""
    done: bool
    """Whether all steps are done; False when a signal ended the run early, with its state saved."""

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """The rows of `metrics.jsonl`, one per step; see docs/metrics.md."""
        return self._rows("metrics.jsonl")

    @property
    def evaluations(self) -> list[dict[str, Any]]:
        """The rows of `eval.jsonl`, one per evaluation of a set."""
        return self._rows("eval.jsonl")

    @property
    def last_metrics(self) -> dict[str, Any]:
        """The metrics of the last step; empty before the first step."""
        return (self.metrics or [{}])[-1]

    def _rows(self, name: str) -> list[dict[str, Any]]:
        from morl.track import read_rows

        return list(read_rows(self.path / name))


def train(recipe: Recipe | RecipeSource, *, resume: bool | str | Path = False, local: bool = False) -> Run:
    """`morl train`: train the policy of a recipe.

    Args:
        recipe: a recipe, or a source that `load_recipe` reads.
        resume: continue from the newest good checkpoint of the run, or of a given run folder.
        local: run in this process, without Ray.

    Raises: MorlError when the run cannot start or continue.
    """
    from morl.train import train as run

    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    resume = Path(resume) if isinstance(resume, str) else resume
    return Run(_folder(recipe, resume), run(recipe, resume=resume, local=local))


def sft(recipe: SftRecipe | RecipeSource, *, resume: bool | str | Path = False, local: bool = False) -> Run:
    """`morl sft`: supervised training in stages; the models are in `models/<stage>` of the run's folder."""
    from morl.sft import train_supervised

    recipe = recipe if isinstance(recipe, SftRecipe) else load_document(SftRecipe, recipe)
    resume = Path(resume) if isinstance(resume, str) else resume
    return Run(_folder(recipe, resume), train_supervised(recipe, resume=resume, local=local))


def rm(recipe: PreferenceRecipe | RecipeSource, *, resume: bool | str | Path = False, local: bool = False) -> Run:
    """`morl rm`: train a reward model from pairs of responses; it is in `model` of the run's folder."""
    from morl.rm import train_reward_model

    recipe = recipe if isinstance(recipe, PreferenceRecipe) else load_document(PreferenceRecipe, recipe)
    resume = Path(resume) if isinstance(resume, str) else resume
    return Run(_folder(recipe, resume), train_reward_model(recipe, resume=resume, local=local))


def evaluate(
    recipe: Recipe | RecipeSource,
    models: Sequence[str | Path] | str | Path,
    *,
    out: Path | None = None,
    local: bool = False,
) -> list[list[dict[str, Any]]]:
    """`morl eval`: evaluate checkpoints or runs on the recipe's evaluation sets; per model, a row per set."""
    from morl.run import evaluate_models

    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    names = [models] if isinstance(models, str | Path) else models
    return evaluate_models(recipe, [str(model) for model in names], out=out, local=local)


def check(recipe: Document | RecipeSource, *, rows: int | None = None) -> CheckReport:
    """`morl check`: find the problems of a recipe, its data and its gold answers; loads no model."""
    from morl.preflight import check as run

    return run(recipe.model_dump(mode="json") if isinstance(recipe, Document) else recipe, rows=rows)


def plan(
    recipe: Recipe | RecipeSource, *, gpus: int | None = None, nodes: int = 1, gpu_memory_gb: float = 80.0
) -> list[Item]:
    """`morl plan`: batch arithmetic, placement, memory, and with `gpus` per node, time and what does not fit."""
    from morl.preflight import Machines
    from morl.preflight import plan as run

    recipe = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    return run(recipe, None if gpus is None else Machines(gpus, nodes, gpu_memory_gb))


def export(run: str | Path, out: str | Path, *, adapter: bool = False) -> None:
    """`morl export`: write the policy of a run as a plain Hugging Face checkpoint, LoRA merged."""
    from morl.run import export as write

    write(Path(run), Path(out), adapter=adapter)


def report(run: str | Path, out: str | Path | None = None) -> Path:
    """`morl report`: write one HTML file about a run; returns its path."""
    from morl.report import write_report

    return write_report(Path(run), None if out is None else Path(out))


def _folder(recipe: Recipe | SftRecipe | PreferenceRecipe, resume: bool | Path) -> Path:
    return resume if isinstance(resume, Path) else Path(recipe.run.dir) / recipe.run.name


__all__ = [
    "PreferenceRecipe",
    "Recipe",
    "Run",
    "SftRecipe",
    "check",
    "evaluate",
    "export",
    "load_document",
    "load_recipe",
    "plan",
    "report",
    "rm",
    "score",
    "sft",
    "train",
]
