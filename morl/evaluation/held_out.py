"""Held-out evaluation: a recipe's evaluation sets on a policy, with confidence intervals."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from morl.data import PromptSet, load_prompts
from morl.evaluation.intervals import mean_interval, paired_difference, pass_at_k
from morl.files import require_writable
from morl.recipe import EvalSetSpec, ObjectiveSpec, Recipe
from morl.rollout import Collector, Engine, Sampling
from morl.track import passes, read_rows, write_samples
from morl.types import Group

logger = logging.getLogger(__name__)

PREFIX = "eval."
"""Prefix of the objectives that evaluation sets are scored as, apart from the trained ones."""
PROMPTS_AT_ONCE = 64
"""Prompts with images in one rollout."""


class _Log(Protocol):
    def log_eval(self, row: Mapping[str, Any]) -> None: ...


@dataclass(frozen=True, slots=True)
class EvalSet:
    """One evaluation set with its prompts and sampling."""

    name: str
    prompts: PromptSet
    pass_at: float
    samples: int
    sampling: Sampling


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The evaluation sets, and the engines and collector to sample and score them."""

    sets: tuple[EvalSet, ...]
    engines: Engine
    collector: Collector
    folder: Path | None
    """The run's folder, whose `eval/` keeps the samples; None keeps none."""

    @staticmethod
    def objectives(recipe: Recipe) -> dict[str, ObjectiveSpec]:
        """The recipe's evaluation sets as objectives for a `Scorer`."""
        return {PREFIX + name: spec for name, spec in recipe.eval_objectives().items()}

    @classmethod
    def load(cls, recipe: Recipe, engines: Engine, collector: Collector, codec: Any, folder: Path | None) -> Evaluation:
        """Load the data of all sets. Raises: DataError."""
        resolved = cls.objectives(recipe)
        sets = [
            EvalSet(
                name=name,
                prompts=load_prompts(resolved[PREFIX + name], PREFIX + name, "eval", "sets", name, "data"),
                pass_at=resolved[PREFIX + name].pass_at,
                samples=spec.samples,
                sampling=_sampling(spec, recipe, codec),
            )
            for name, spec in recipe.eval.sets.items()
        ]
        if recipe.rollout.too_long == "skip":
            for eval_set in sets:
                eval_set.prompts.skip_unless(codec.fits)
        return cls(tuple(sets), engines, collector, folder)


def _sampling(spec: EvalSetSpec, recipe: Recipe, codec: Any) -> Sampling:
    return Sampling(
        temperature=spec.temperature,
        max_new_tokens=spec.max_new_tokens or recipe.rollout.max_new_tokens,
        top_p=spec.top_p,
        stop_token_ids=codec.stop_token_ids,
        banned_token_ids=codec.banned_token_ids,
    )


async def evaluate(
    evaluation: Evaluation, log: _Log, *, step: int, only: Collection[str] | None = None
) -> list[dict[str, Any]]:
    """Evaluate every set, or those in `only`, on the policy that the engines serve; log one row per set.

    The random streams depend only on the set, so that two policies are sampled alike.

    Returns: the rows; `values` holds each prompt's mean reward, None where there is no score.
    """
    version = await evaluation.engines.policy_version()
    rows = []
    for eval_set in evaluation.sets:
        if only is not None and eval_set.name not in only:
            continue
        groups = await _groups(evaluation.collector, eval_set, version)
        if evaluation.folder is not None:
            file = evaluation.folder / "eval" / f"{eval_set.name}-step-{step:06d}.jsonl.zst"
            file.parent.mkdir(parents=True, exist_ok=True)
            write_samples(file, step, groups)
        row = {"step": step, "set": eval_set.name, **measure(groups, eval_set.pass_at)}
        log.log_eval(row)
        rows.append(row)
    return rows


def sets_due(recipe: Recipe, file: Path, step: int) -> set[str]:
    """The sets due after `step` that have no row yet in `file`, the run's `eval.jsonl`."""
    every = recipe.eval.every
    if step not in (0, recipe.run.steps) and not (every and step % every == 0):
        return set()
    return set(recipe.eval.sets) - {row["set"] for row in read_rows(file) if row["step"] == step}


async def _groups(collector: Collector, eval_set: EvalSet, version: int) -> list[Group]:
    """The scored groups of a set; prompts with images go in portions, because images take memory."""
    usable = (eval_set.prompts.usable(index) for index in range(len(eval_set.prompts)))
    prompts = [prompt for prompt in usable if prompt is not None]
    size = PROMPTS_AT_ONCE if any(prompt.media for prompt in prompts) else max(1, len(prompts))
    groups: list[Group] = []
    for first in range(0, len(prompts), size):
        rollout = await collector.collect(
            prompts[first : first + size],
            key=f"eval-{eval_set.name}",
            samples=eval_set.samples,
            sampling=eval_set.sampling,
            version=version,
            first=first,
        )
        groups += [replace(group, encoded=replace(group.encoded, features=None)) for group in rollout.groups]
    return groups


def measure(groups: Sequence[Group], pass_at: float) -> dict[str, Any]:
    """Mean reward and pass rate over prompts, each with its 95 % interval.

    A prompt counts with the mean of its scored samples; one without any is left out.
    With k > 1 samples per prompt, `pass_at_k` is the unbiased estimate.
    """
    values: list[float | None] = []
    passed: list[float] = []
    at_k: list[float] = []
    for group in groups:
        scored = [value for value in group.values_G if value is not None]
        values.append(sum(scored) / len(scored) if scored else None)
        if scored:
            correct = sum(passes(value, pass_at) for value in scored)
            passed.append(correct / len(scored))
            at_k.append(pass_at_k(len(scored), correct, len(scored)))
    known_values = [value for value in values if value is not None]
    lengths = [sample.length for group in groups for sample in group.samples_G]
    unscored = sum(value is None for group in groups for value in group.values_G)
    row: dict[str, Any] = {
        "n": len(known_values),
        "length": sum(lengths) / max(1, len(lengths)),
        "no_score_rate": unscored / max(1, len(lengths)),
        "values": values,
    }
    for name, data in (("reward", known_values), ("pass_rate", passed)):
        if data:
            interval = mean_interval(data)
            row |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
    samples = max((len(group.samples_G) for group in groups), default=1)
    if samples > 1 and at_k:
        row[f"pass_at_{samples}"] = sum(at_k) / len(at_k)
    return row


def compare(before: Sequence[Mapping[str, Any]], after: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Two evaluations side by side, set by set, with their paired difference.

    The difference is taken prompt by prompt, over prompts with a score in both. Sets whose numbers of prompts
    differ are left out, with a warning: their prompts are not the same.
    """
    earlier = {row["set"]: row for row in before}
    rows = []
    for late in after:
        early = earlier.get(late["set"])
        if early is None or "reward" not in early or "reward" not in late:
            continue
        counts = len(early["values"]), len(late["values"])
        if counts[0] != counts[1]:
            logger.warning("%s: not compared, %d prompts before and %d after", late["set"], *counts)
            continue
        paired = zip(early["values"], late["values"], strict=True)
        pairs = [(a, b) for a, b in paired if a is not None and b is not None]
        difference = paired_difference([a for a, _ in pairs], [b for _, b in pairs])
        rows.append(
            {
                "set": late["set"],
                "n": len(pairs),
                "before": (early["reward"], early["reward_low"], early["reward_high"]),
                "after": (late["reward"], late["reward_low"], late["reward_high"]),
                "difference": (difference.mean, difference.low, difference.high),
                "length": (early["length"], late["length"]),
            }
        )
    return rows


class RowFile:
    """Appends evaluation rows to a file, creating its folder; without a path it writes nothing."""

    def __init__(self, path: Path | None, model: str) -> None:
        """Raises: UsageError when the file cannot be written."""
        if path is not None:
            require_writable(path)
        self.path = path
        self.model = model

    def log_eval(self, row: Mapping[str, Any]) -> None:
        """Append the row."""
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"model": self.model, **row}) + "\n")
