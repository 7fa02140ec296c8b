"""Scores items: calls the deployment of each term and combines the terms as in a run."""

from __future__ import annotations

import asyncio
import collections
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from morl.error_messages import did_you_mean
from morl.recipe import Recipe, TermSpec
from morl.registry import REWARDS, wanted_arguments
from morl.rewards import RewardInput, checked, checked_options, combine_terms, failure
from morl.service.limits import Limits
from morl.service.prometheus import Metrics
from morl.service.refusal import Refusal
from morl.service.wire import Item
from morl.types import Score, TermScore

logger = logging.getLogger(__name__)

CALL_ITEMS = 32
"""Most items per call of a replica, so that a large request is spread over the replicas."""
TOGETHER = 2
"""Lost replicas after which the items of a call are sent one by one."""
MAX_DEATHS = 4
"""Lost replicas after which an item counts as the cause."""
FIRST_PAUSE_S = 0.1
"""Pause before the first retry; doubled each time."""


class ReplicaLostError(Exception):
    """The replica died or was stopped before it answered."""


class Backend(Protocol):
    """The replicas of one reward."""

    async def score(self, items: Sequence[RewardInput]) -> list[TermScore]:
        """One score per item. Raises: ReplicaLostError; Refusal when no replica can start."""


@dataclass(frozen=True, slots=True)
class Reward:
    """A reward with its options; terms that share both share its deployment."""

    use: str
    options: Mapping[str, Any]
    """With defaults filled in."""
    written: Mapping[str, Any]
    """The options as written in the recipe."""
    deadline_s: float

    @classmethod
    def of(cls, term: TermSpec) -> Reward:
        """The reward of a term."""
        options = checked_options(term.use, REWARDS.load(term.use), term.options)
        return cls(term.use, options, term.options, term.deadline_s)

    @property
    def key(self) -> str:
        """Equal for terms that can share a deployment."""
        return f"{self.use} {json.dumps(self.options, sort_keys=True, default=repr)} {self.deadline_s!r}"

    @property
    def reads(self) -> tuple[str, ...]:
        """The fields of an item that the reward reads."""
        return tuple(name for name in wanted_arguments(REWARDS.load(self.use)) if name != "resource")


class Router:
    """Scores items of a recipe's objectives. Schedules have their final values."""

    def __init__(self, recipe: Recipe, limits: Limits, metrics: Metrics) -> None:
        self.objectives = recipe.objectives
        self.rewards: dict[str, Reward] = {}
        """The distinct rewards, by key."""
        self.backends: dict[str, Backend] = {}
        """By the same key; filled in at deployment."""
        self._limits = limits
        self._metrics = metrics
        self._waiting = 0
        self._suspects: collections.defaultdict[str, asyncio.Lock] = collections.defaultdict(asyncio.Lock)
        self._terms: dict[str, dict[str, str]] = {}
        for name, objective in self.objectives.items():
            used = {term.name: Reward.of(term) for term in objective.rewards}
            self._terms[name] = {term: reward.key for term, reward in used.items()}
            self.rewards |= {reward.key: reward for reward in used.values()}

    def rewards_of(self, objective: str) -> dict[str, Reward]:
        """The rewards by the name of their term."""
        return {term: self.rewards[key] for term, key in self._terms[objective].items()}

    async def score(self, items: Sequence[Item]) -> list[Score]:
        """The score of each item, equal to that of a run's `Scorer`.

        A failed term with `on_error: fail` leaves its item without a score; the client decides whether to stop.
        Raises: Refusal.
        """
        for index, item in enumerate(items):
            self._check(index, item)
        if self._waiting + len(items) > self._limits.waiting_items:
            raise Refusal(503, "overloaded", f"{self._waiting} items are waiting already; retry later")
        self._waiting += len(items)
        self._metrics.waiting.set(self._waiting)
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                scores = await self._score_terms(items)
        except TimeoutError as error:
            message = f"no score within {self._limits.timeout_s:g} s: send fewer items at once, or retry later"
            raise Refusal(504, "timeout", message) from error
        finally:
            self._waiting -= len(items)
            self._metrics.waiting.set(self._waiting)
        return [self._compose(item, scores[index]) for index, item in enumerate(items)]

    def _check(self, index: int, item: Item) -> None:
        if item.objective not in self.objectives:
            near = did_you_mean(item.objective, self.objectives)
            message = f"there is no objective '{item.objective[:100]}'{near}"
            raise Refusal(422, "unknown_objective", message, f"items.{index}.objective")

    async def _score_terms(self, items: Sequence[Item]) -> list[dict[str, TermScore]]:
        """The scores of each item, by the reward's key."""
        scores: list[dict[str, TermScore]] = [{} for _ in items]
        inputs = [item.reward_input() for item in items]

        async def ask(key: str, indices: Sequence[int]) -> None:
            batch = [inputs[i].only(self.rewards[key].reads) for i in indices]
            for i, score in zip(indices, await self._call(key, batch), strict=True):
                scores[i][key] = score

        calls = []
        for key in self.rewards:
            wanted = [i for i, item in enumerate(items) if key in self._terms[item.objective].values()]
            for start in range(0, len(wanted), CALL_ITEMS):
                calls.append(asyncio.ensure_future(ask(key, wanted[start : start + CALL_ITEMS])))
        try:
            await asyncio.gather(*calls)
        finally:
            for call in calls:
                call.cancel()
        return scores

    async def _call(self, key: str, items: list[RewardInput]) -> list[TermScore]:
        """Scores of one call. Scoring has no side effects, so a lost call is sent to another replica."""
        for tried in range(TOGETHER):
            try:
                return await self.backends[key].score(items)
            except ReplicaLostError as error:
                await self._pause(key, error, tried)
        return [await self._call_alone(key, item) for item in items]

    async def _call_alone(self, key: str, item: RewardInput) -> TermScore:
        """The score of an item of a lost call.

        Such items are sent one at a time per reward, so that only the cause of a death is blamed for it.
        """
        for tried in range(TOGETHER, MAX_DEATHS):
            async with self._suspects[key]:
                try:
                    (score,) = await self.backends[key].score([item])
                    return score
                except ReplicaLostError as error:
                    lost = error
            await self._pause(key, lost, tried)
        return failure("error", f"{MAX_DEATHS} replicas died of it")

    async def _pause(self, key: str, error: ReplicaLostError, tried: int) -> None:
        use = self.rewards[key].use
        logger.warning("a replica of '%s' was lost (%s); asking another", use, error)
        self._metrics.retries.labels(use).inc()
        await asyncio.sleep(FIRST_PAUSE_S * 2**tried)

    def _compose(self, item: Item, by_key: Mapping[str, TermScore]) -> Score:
        spec = self.objectives[item.objective]
        keys = self._terms[item.objective]
        scores = {term.name: checked(term, by_key[keys[term.name]]) for term in spec.rewards}
        score = combine_terms(spec.rewards, scores, spec.combine)
        self._metrics.scored(item.objective, score)
        return score
