"""From a sample to its score: the objective's rewards are called together, and mixed as the recipe says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from morl.errors import RunError, UsageError
from morl.registry import did_you_mean
from morl.rewards.bound_reward import BoundReward, checked_options
from morl.rewards.compose import checked, combine_terms, is_open
from morl.rewards.pool.runner import Runner
from morl.rewards.resource import Resource
from morl.rewards.reward_input import RewardInput
from morl.types import Prompt, Sample, Score

if TYPE_CHECKING:
    from morl.recipe import ObjectiveSpec, TermSpec


@dataclass(slots=True)
class _Objective:
    spec: ObjectiveSpec
    rewards: Mapping[str, BoundReward]
    """By the name of their term."""
    trained: bool
    """Whether it moves with the steps; what is only measured stays the same."""
    terms: Sequence[TermSpec]
    """As they are now."""

    def begin_step(self, step: int) -> None:
        """Give what is scheduled the step's value."""
        self.terms = [term.at(step) for term in self.spec.rewards]
        for term in self.terms:
            if term.schedule:
                reward = self.rewards[term.name]
                reward.options = checked_options(reward.name, reward.function, term.options)


class Scorer:
    """Scores samples of the objectives that it is given; use it as a context manager, or call `close`.

    Args:
        objectives: by name; a prompt's `objective` picks one.
        measured: more of them, which no step moves, so that scores can be compared over a run.
        workers: processes for rewards; None for the number of usable cores. They start when the
            first sample comes.
        memory_mb: by how much one call may make its process grow.

    Raises: UsageError when a reward is unknown or its options are wrong.
    """

    def __init__(
        self,
        objectives: Mapping[str, ObjectiveSpec],
        *,
        measured: Mapping[str, ObjectiveSpec] | None = None,
        workers: int | None = None,
        memory_mb: int = 2048,
    ) -> None:
        self.runner = Runner(workers=workers, memory_mb=memory_mb)
        self._objectives = {
            name: _Objective(
                spec,
                {t.name: BoundReward(t.use, t.options, t.deadline_s, self.runner) for t in spec.rewards},
                name in objectives,
                spec.rewards,
            )
            for name, spec in {**(measured or {}), **objectives}.items()
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    async def start(self) -> None:
        """Start workers and resources now, before the first sample comes. Raises: MorlError when one cannot work."""
        targets = sorted({reward.target for reward in self._rewards() if reward.in_worker})
        if targets:
            self.runner.start(targets)
        for reward in self._rewards():
            await reward.start()

    def begin_step(self, step: int) -> None:
        """Tell the rewards which training step comes next, counted from 1; schedules move to it.

        Until the first is told, and for what is only measured, schedules are at their ends.
        """
        for objective in self._objectives.values():
            if objective.trained:
                objective.begin_step(step)
        for resource in self._resources().values():
            resource.begin_step(step)

    def state(self) -> dict[str, Any]:
        """What the rewards keep from step to step, as plain JSON, for `restore`."""
        return {name: state for name, resource in self._resources().items() if (state := dict(resource.state()))}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave; a reward that is new since then begins afresh."""
        for name, resource in self._resources().items():
            if name in state:
                resource.restore(state[name])

    def _rewards(self) -> Iterator[BoundReward]:
        for objective in self._objectives.values():
            yield from objective.rewards.values()

    def _resources(self) -> dict[str, Resource]:
        """Those that steps move, by `<objective>/<term>`."""
        return {
            f"{objective}/{term}": reward.resource
            for objective, has in self._objectives.items()
            if has.trained
            for term, reward in has.rewards.items()
            if reward.resource is not None
        }

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
        given = RewardInput.of(prompt, sample.text, sample)
        terms = objective.terms
        calls = [objective.rewards[term.name](given) for term in terms]
        told = await asyncio.gather(*calls) if len(calls) > 1 else [await calls[0]]
        scores = {term.name: checked(term, score) for term, score in zip(terms, told, strict=True)}
        for term in terms:
            score = scores[term.name]
            if score.value is None and term.on_error == "fail" and is_open(term, scores):
                where = f"objective '{prompt.objective}', term '{term.name}', sample {sample.index} of {prompt.id}"
                raise RunError(f"{where}: {score.status}: {score.detail}")
        return combine_terms(terms, scores, objective.spec.combine)

    def close(self) -> None:
        """Kill the workers, wait until they are gone, and end all resources."""
        self.runner.close()
        for reward in self._rewards():
            reward.close()
