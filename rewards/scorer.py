"""From a sample to its score: the objective's rewards are called together, and mixed as the recipe says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from morl.errors import RunError, UsageError
from morl.registry import did_you_mean
from morl.rewards.caller import BoundReward
from morl.rewards.compose import checked, compose, is_open
from morl.rewards.runner import Runner
from morl.types import Prompt, Sample, Score

if TYPE_CHECKING:
    from morl.recipe import ObjectiveSpec


@dataclass(frozen=True, slots=True)
class _Objective:
    spec: ObjectiveSpec
    rewards: Mapping[str, BoundReward]
    """By the name of their term."""


class Scorer:
    """Scores samples of the objectives that it is given; use it as a context manager, or call `close`.

    Args:
        objectives: by name; a prompt's `objective` picks one.
        workers: processes for rewards; None for the number of usable cores. They start when the
            first sample comes.
        memory_mb: by how much one call may make its process grow.

    Raises: UsageError when a reward is unknown or its options are wrong.
    """

    def __init__(
        self, objectives: Mapping[str, ObjectiveSpec], *, workers: int | None = None, memory_mb: int = 2048
    ) -> None:
        self.runner = Runner(workers=workers, memory_mb=memory_mb)
        self._objectives = {
            name: _Objective(
                spec, {t.name: BoundReward(t.use, t.options, t.deadline_s, self.runner) for t in spec.rewards}
            )
            for name, spec in objectives.items()
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start(self) -> None:
        """Start the workers now, and have them import what they will need."""
        bound = [reward for objective in self._objectives.values() for reward in objective.rewards.values()]
        targets = sorted({reward.target for reward in bound if reward.in_worker})
        if targets:
            self.runner.start(targets)

    async def score(self, prompt: Prompt, sample: Sample) -> Score:
        """The score of one sample.

        What goes wrong with a reward is told by the status of its term, not raised.
        Raises: UsageError for an unknown objective; RunError when a term fails whose `on_error` is
        `fail`, or when workers cannot start.
        """
        objective = self._objectives.get(prompt.objective)
        if objective is None:
            near = did_you_mean(prompt.objective, self._objectives)
            raise UsageError(f"prompt {prompt.id}: there is no objective '{prompt.objective}'{near}")
        available: dict[str, Any] = {
            "response": sample.text,
            "gold": prompt.gold,
            "messages": prompt.messages,
            "media": prompt.media,
            "meta": prompt.meta,
            "sample": sample,
        }
        terms = objective.spec.rewards
        told = await asyncio.gather(*(objective.rewards[term.name](available) for term in terms))
        scores = {term.name: checked(term, score) for term, score in zip(terms, told, strict=True)}
        for term in terms:
            score = scores[term.name]
            if score.value is None and term.on_error == "fail" and is_open(term, scores):
                where = f"objective '{prompt.objective}', term '{term.name}', sample {sample.index} of {prompt.id}"
                raise RunError(f"{where}: {score.status}: {score.detail}")
        return compose(terms, scores, objective.spec.combine)

    def close(self) -> None:
        """Kill the workers and wait until they are gone."""
        self.runner.close()
