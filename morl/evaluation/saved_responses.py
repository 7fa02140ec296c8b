"""Scores existing responses to the rows of an evaluation set."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from morl.data import JsonLines, PromptTemplate, load_rows
from morl.errors import DataError, UsageError
from morl.evaluation.held_out import Evaluation, measure
from morl.event_loop import run_coroutine
from morl.recipe import ObjectiveSpec, Recipe
from morl.rewards import Scorer
from morl.types import Encoded, Group, Prompt, Sample

logger = logging.getLogger(__name__)


def score_responses(recipe: Recipe, name: str, file: Path) -> dict[str, Any]:
    """Score responses written elsewhere to the rows of an evaluation set.

    Args:
        recipe: defines the evaluation set.
        name: of the set.
        file: JSON lines of `{"response": …}`, with the `row` of the set it responds to, counted from 0; the line's
            number by default. Several responses to a row are several samples.

    Returns: the row that `morl.evaluation.measure` makes of them, with `length` in characters, as there are no
        tokens. Rows without a response are left out, with a warning. Prompts are not rendered, so no images are needed.
    Raises: UsageError, DataError.
    """
    spec = Evaluation.objectives(recipe)[f"eval.{name}"]
    if not file.is_file():
        raise UsageError(f"--responses: there is no file '{file}'")
    responses = _responses(file)
    prompts = _prompts(spec, name)
    unknown = sorted(row for row in responses if row >= len(prompts))
    if unknown:
        raise DataError(f"{file}: a response to row {unknown[0]}, but the set '{name}' has {len(prompts)} rows, from 0")
    if len(responses) < len(prompts):
        missing = len(prompts) - len(responses)
        logger.warning("%d of %d rows %s no response", missing, len(prompts), "has" if missing == 1 else "have")
    return run_coroutine(_score(recipe, spec, name, [(prompts[row], responses[row]) for row in sorted(responses)]))


async def _score(
    recipe: Recipe, spec: ObjectiveSpec, name: str, pairs: Sequence[tuple[Prompt, Sequence[str]]]
) -> dict[str, Any]:
    with Scorer({name: spec}, workers=recipe.scoring.workers, memory_mb=recipe.scoring.memory_mb) as scorer:

        async def score(prompt: Prompt, texts: Sequence[str]) -> Group:
            samples = [Sample(prompt.id, index, (), (), (), 0, "stop", text) for index, text in enumerate(texts)]
            scores = await asyncio.gather(*(scorer.score(prompt, sample) for sample in samples))
            return Group(prompt, Encoded(()), tuple(samples), tuple(scores))

        groups = await asyncio.gather(*(score(prompt, texts) for prompt, texts in pairs))
    row = measure(groups, spec.pass_at)
    row["length"] = sum(len(s.text) for g in groups for s in g.samples_G) / sum(len(g.samples_G) for g in groups)
    return {"step": 0, "set": name, **row}


def _responses(file: Path) -> dict[int, list[str]]:
    """The responses to each row."""
    responses: dict[int, list[str]] = {}
    lines = JsonLines(str(file))
    for number in range(len(lines)):
        line = lines[number]
        response, row = line.get("response"), line.get("row", number)
        if not isinstance(response, str) or not isinstance(row, int) or isinstance(row, bool) or row < 0:
            raise DataError(
                f"{lines.where(number)}: a line is an object with 'response' (text) and maybe 'row' (a number from 0); "
                f"not {json.dumps(line, ensure_ascii=False):.80}"
            )
        responses.setdefault(row, []).append(response)
    return responses


def _prompts(spec: ObjectiveSpec, name: str) -> list[Prompt]:
    """The set's rows as prompts with golds but without their text."""
    rows = load_rows(spec.data)
    template = PromptTemplate("-", spec.gold)
    last = len(rows) if spec.data.take is None else min(len(rows), spec.data.skip + spec.data.take)
    return [template.render(rows[i], f"{name}/{i}", name, rows.where(i)) for i in range(spec.data.skip, last)]
