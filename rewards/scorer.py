"""Scores samples: calls the rewards of an objective concurrently and combines them as the recipe says."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from morl.error_messages import did_you_mean
from morl.errors import RunError, UsageError
from morl.rewards.bound_reward import BoundReward, checked_options
from morl.rewards.compose import checked, combine_terms, is_open
from morl.rewards.pool.worker_pool import WorkerPool
from morl.rewards.resource import Resource
from morl.rewards.reward_input import RewardInput
from morl.types import Prompt, Sample, Score

if TYPE_CHECKING:
    from morl.recipe import ObjectiveSpec, TermSpec


@dataclass(slots=True)
class _Objective:
    spec: ObjectiveSpec
    rewards: Mapping[str, BoundReward]
    """By the name of the term."""
    trained: bool
    """Whether its schedules follow the training steps; those of a measured objective do not."""
    terms: Sequence[TermSpec]
    """With the scheduled values of the current step."""

    def begin_step(self, step: int) -> None:
        """Set scheduled values to those of the step."""
        self.terms = [term.at(step) for term in self.spec.rewards]
        for term in self.terms:
            if term.schedule:
                reward = self.rewards[term.name]
                reward.options = checked_options(reward.name, reward.function, term.options)


class Scorer:
    """Scores samples of the given objectives. Use it as a context manager, or call `close`.

    Args:
        objectives: by name; a prompt's `objective` picks one.
        measured: further objectives, whose schedules do not move, so that scores stay comparable over a run.
        workers: processes for rewards; None for the number of usable cores. They start with the first sample.
        memory_mb: by how much one call may grow its process, in MB.

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
        self.runner = WorkerPool(workers=workers, memory_mb=memory_mb)
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
        """Start workers and resources before the first sample. Raises: MorlError when one cannot work."""
        targets = sorted({reward.target for reward in self._rewards() if reward.in_worker})
        if targets:
            self.runner.start(targets)
        for reward in self._rewards():
            await reward.start()

    def begin_step(self, step: int) -> None:
        """Announce the next training step, counted from 1, to the rewards, and move schedules to it.

        Before the first call, and always for measured objectives, schedules have their final values.
        """
        for objective in self._objectives.values():
            if objective.trained:
                objective.begin_step(step)
        for resource in self._resources().values():
            resource.begin_step(step)

    def state(self) -> dict[str, Any]:
        """The rewards' state for `restore`, as plain JSON."""
        return {name: state for name, resource in self._resources().items() if (state := dict(resource.state()))}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a value of `state`; a reward that is not in it starts afresh."""
        for name, resource in self._resources().items():
            if name in state:
                resource.restore(state[name])

    def _rewards(self) -> Iterator[BoundReward]:
        for objective in self._objectives.values():
            yield from objective.rewards.values()

    def _resources(self) -> dict[str, Resource]:
        """Resources of the trained objectives, by `<objective>/<term>`."""
        return {
            f"{name}/{term}": reward.resource
            for name, objective in self._objectives.items()
            if objective.trained
            for term, reward in objective.rewards.items()
            if reward.resource is not None
        }

    async def score(self, prompt: Prompt, sample: Sample) -> Score:
        """The score of one sample.

        An error in a reward becomes the status of its term.
        Raises: UsageError for an unknown objective; RunError when a term with `on_error: fail` fails or the workers
        cannot start.
        """
        objective = self._objectives.get(prompt.objective)
        if objective is None:
            near = did_you_mean(prompt.objective, self._objectives)
            raise UsageError(f"prompt {prompt.id}: there is no objective '{prompt.objective}'{near}")
        reward_input = RewardInput.of(prompt, sample.text, sample)
        terms = objective.terms
        calls = [objective.rewards[term.name](reward_input) for term in terms]
        results = await asyncio.gather(*calls) if len(calls) > 1 else [await calls[0]]
        scores = {term.name: checked(term, score) for term, score in zip(terms, results, strict=True)}
        for term in terms:
            score = scores[term.name]
            if score.value is None and term.on_error == "fail" and is_open(term, scores):
                place = f"objective '{prompt.objective}', term '{term.name}', sample {sample.index} of {prompt.id}"
                raise RunError(f"{place}: {score.status}: {score.detail}")
        return combine_terms(terms, scores, objective.spec.combine)

    def close(self) -> None:
        """Kill the workers, wait until they have exited, and close all resources."""
        self.runner.close()
        for reward in self._rewards():
            reward.close()
