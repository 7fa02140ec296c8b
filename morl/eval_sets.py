"""Evaluation sets that stand by themselves, one YAML file each, and answers that were written elsewhere."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from morl import marked
from morl.data.prompts import load_rows
from morl.data.sources import JsonLines
from morl.data.templates import PromptTemplate
from morl.errors import DataError, UsageError
from morl.evaluate import Evaluation, measure
from morl.recipe import Recipe, read_text
from morl.rewards import Scorer
from morl.schema import DataSpec, Document, Float, GoldTemplate, Int, ObjectiveSpec, PromptForm, RewardTerms, Text
from morl.types import Group, Prompt, Sample

logger = logging.getLogger(__name__)


class EvalSetRecipe(Document):
    """One evaluation set: rows, what is asked, and how answers are scored."""

    about: Text
    """Where the rows come from, how many there are, and under which licence."""
    data: DataSpec
    """The rows."""
    prompt: PromptForm
    """As in an objective."""
    gold: GoldTemplate = None
    """As in an objective."""
    rewards: RewardTerms
    """As in an objective."""
    combine: Literal["sum", "product"] = "sum"
    """As in an objective."""
    pass_at: Annotated[Float, Field(gt=0, le=1)] = 1.0
    """As in an objective."""
    samples: Annotated[Int, Field(ge=1)] = 1
    """Answers to each prompt, for pass@k."""
    temperature: Annotated[Float, Field(ge=0)] = 0.0
    """0 is greedy."""
    top_p: Annotated[Float, Field(gt=0, le=1)] = 1.0
    """Sample from the likeliest tokens that together reach this probability."""
    max_new_tokens: Annotated[Int, Field(ge=1)] = 2048
    """Longest answer, in tokens."""
    max_prompt_tokens: Annotated[Int, Field(ge=1)] = 8192
    """Longest prompt, in tokens."""
    plugins: list[Text] = Field(default_factory=list)
    """Modules or .py files to import, so that what they register can be used here."""

    def as_recipe(self, name: str, model: str) -> Recipe:
        """A recipe that has nothing but this set, to be asked of `model`."""
        asked = {key: getattr(self, key) for key in ("data", "prompt", "gold", "rewards", "combine", "pass_at")}
        drawn = {key: getattr(self, key) for key in ("samples", "temperature", "top_p", "max_new_tokens")}
        return Recipe.model_validate(
            {
                "run": {"name": "eval", "steps": 1},
                "model": {"path": model},
                "objectives": {name: {"share": 1.0, **asked}},
                "rollout": {
                    "prompts_per_step": 1,
                    "samples_per_prompt": 2,
                    "max_new_tokens": self.max_new_tokens,
                    "max_prompt_tokens": self.max_prompt_tokens,
                },
                "eval": {"sets": {name: {"data": self.data, **drawn}}},
            }
        )


def is_eval_set(path: str) -> bool:
    """Whether a recipe file describes one evaluation set, and not a run. Raises: UsageError when it cannot be read."""
    root = marked.parse(read_text(path))[0].root
    return isinstance(root, Mapping) and "rewards" in root and "objectives" not in root


def score_responses(recipe: Recipe, name: str, file: Path) -> dict[str, Any]:
    """Score answers that were written elsewhere to the rows of an evaluation set.

    Args:
        recipe: whose evaluation set it is.
        name: of the set.
        file: JSON lines of `{"response": …}`, with the `row` it answers, counted from 0 among the set's rows; without
            it, line after line. Several answers to a row are several samples.

    Returns: what `morl.evaluate.measure` says of them, `length` in characters: there are no tokens. Rows without an
        answer are left out, with a warning. Prompts are not rendered, so pictures need not be there.
    Raises: UsageError, DataError.
    """
    spec = Evaluation.objectives(recipe)[f"eval.{name}"]
    if not file.is_file():
        raise UsageError(f"--responses: there is no file '{file}'")
    answers = _answers(file)
    prompts = _prompts(spec, name)
    unknown = sorted(row for row in answers if row >= len(prompts))
    if unknown:
        raise DataError(f"{file}: answers row {unknown[0]}, and the set '{name}' has {len(prompts)} rows, from 0")
    if len(answers) < len(prompts):
        missing = len(prompts) - len(answers)
        logger.warning("%d of %d rows %s no answer", missing, len(prompts), "has" if missing == 1 else "have")
    return asyncio.run(_score(recipe, spec, name, [(prompts[row], answers[row]) for row in sorted(answers)]))


async def _score(
    recipe: Recipe, spec: ObjectiveSpec, name: str, asked: Sequence[tuple[Prompt, Sequence[str]]]
) -> dict[str, Any]:
    with Scorer({name: spec}, workers=recipe.scoring.workers, memory_mb=recipe.scoring.memory_mb) as scorer:

        async def one(prompt: Prompt, texts: Sequence[str]) -> Group:
            samples = [Sample(prompt.id, index, (), (), (), 0, "stop", text) for index, text in enumerate(texts)]
            scores = await asyncio.gather(*(scorer.score(prompt, sample) for sample in samples))
            return Group(prompt, (), tuple(samples), tuple(scores))

        groups = await asyncio.gather(*(one(prompt, texts) for prompt, texts in asked))
    row = measure(groups, spec.pass_at)
    row["length"] = sum(len(s.text) for g in groups for s in g.samples_G) / sum(len(g.samples_G) for g in groups)
    return {"step": 0, "set": name, **row}


def _answers(file: Path) -> dict[int, list[str]]:
    """The answers to each row."""
    answers: dict[int, list[str]] = {}
    lines = JsonLines(str(file))
    for number in range(len(lines)):
        line = lines[number]
        response, row = line.get("response"), line.get("row", number)
        where = lines.where(number)
        if not isinstance(response, str) or not isinstance(row, int) or isinstance(row, bool) or row < 0:
            raise DataError(
                f"{where}: a line is an object with 'response', a text, and maybe 'row', a number from 0; "
                f"not {json.dumps(line, ensure_ascii=False):.80}"
            )
        answers.setdefault(row, []).append(response)
    return answers


def _prompts(spec: ObjectiveSpec, name: str) -> list[Prompt]:
    """The set's rows with their golds; what is asked is left out."""
    rows = load_rows(spec.data)
    template = PromptTemplate("-", spec.gold)
    last = len(rows) if spec.data.take is None else min(len(rows), spec.data.skip + spec.data.take)
    return [template.render(rows[i], f"{name}/{i}", name, rows.where(i)) for i in range(spec.data.skip, last)]
