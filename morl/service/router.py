"""From items to scores: each term is asked of its deployment, and the terms are composed as in a run."""

from __future__ import annotations

import asyncio
import collections
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from morl.recipe import Recipe, TermSpec
from morl.registry import REWARDS, did_you_mean, wanted_arguments
from morl.rewards import RewardInput, checked, checked_options, combine_terms, failure
from morl.service.limits import Limits
from morl.service.prometheus import Metrics
from morl.service.refusal import Refusal
from morl.service.wire import Item
from morl.types import Score, TermScore

logger = logging.getLogger(__name__)

CALL_ITEMS = 32
"""Items of one call of a replica, so that a large request is spread over the replicas."""
TOGETHER = 2
"""Replicas that may die under a call before its items are asked about one by one."""
MAX_DEATHS = 4
"""Replicas that may die under an item before it is taken for the cause."""
FIRST_PAUSE_S = 0.1
"""Before a call is sent again; doubled each time."""


class ReplicaLostError(Exception):
    """The replica died, or was taken away, before it answered."""


class Backend(Protocol):
    """The replicas of one reward, whichever of them."""

    async def score(self, items: Sequence[RewardInput]) -> list[TermScore]:
        """One score an item. Raises: ReplicaLostError; Refusal when there will be no replica."""


@dataclass(frozen=True, slots=True)
class Reward:
    """A reward with its options, which one deployment serves, however many terms use it."""

    use: str
    options: Mapping[str, Any]
    """With their defaults."""
    written: Mapping[str, Any]
    """The options as they are written in the recipe."""
    deadline_s: float

    @classmethod
    def of(cls, term: TermSpec) -> Reward:
        """What a term uses."""
        options = checked_options(term.use, REWARDS.load(term.use), term.options)
        return cls(term.use, options, term.options, term.deadline_s)

    @property
    def key(self) -> str:
        """The same for terms that can share a deployment."""
        return f"{self.use} {json.dumps(self.options, sort_keys=True, default=repr)} {self.deadline_s!r}"

    @property
    def reads(self) -> tuple[str, ...]:
        """The fields of an item that it reads."""
        return tuple(name for name in wanted_arguments(REWARDS.load(self.use)) if name != "resource")


class Router:
    """Scores items of a recipe's objectives.

    What is scheduled has the value in which its schedule ends.
    """

    def __init__(self, recipe: Recipe, limits: Limits, metrics: Metrics) -> None:
        self.objectives = recipe.objectives
        self.rewards: dict[str, Reward] = {}
        """The distinct rewards, by key."""
        self.backends: dict[str, Backend] = {}
        """By the same key; filled in when they are deployed."""
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
        """By the name of their term."""
        return {term: self.rewards[key] for term, key in self._terms[objective].items()}

    async def score(self, items: Sequence[Item]) -> list[Score]:
        """The score of each item; equal to what a run's `Scorer` says of it.

        A term with `on_error: fail` leaves an item without a score: whom to stop is the caller's to know.
        Raises: Refusal.
        """
        for index, item in enumerate(items):
            self._check(index, item)
        if self._waiting + len(items) > self._limits.waiting_items:
            raise Refusal(503, "overloaded", f"{self._waiting} items are waiting already; ask again")
        self._waiting += len(items)
        self._metrics.waiting.set(self._waiting)
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                told = await self._ask(items)
        except TimeoutError as error:
            message = f"no score within {self._limits.timeout_s:g} s: send fewer items at once, or ask again later"
            raise Refusal(504, "timeout", message) from error
        finally:
            self._waiting -= len(items)
            self._metrics.waiting.set(self._waiting)
        return [self._compose(item, told[index]) for index, item in enumerate(items)]

    def _check(self, index: int, item: Item) -> None:
        if item.objective not in self.objectives:
            near = did_you_mean(item.objective, self.objectives)
            message = f"there is no objective '{item.objective[:100]}'{near}"
            raise Refusal(422, "unknown_objective", message, f"items.{index}.objective")

    async def _ask(self, items: Sequence[Item]) -> list[dict[str, TermScore]]:
        """What each reward said of each item, by the reward's key."""
        told: list[dict[str, TermScore]] = [{} for _ in items]
        inputs = [item.reward_input() for item in items]

        async def ask(key: str, indices: Sequence[int]) -> None:
            asked = [inputs[i].only(self.rewards[key].reads) for i in indices]
            for i, score in zip(indices, await self._call(key, asked), strict=True):
                told[i][key] = score

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
        return told

    async def _call(self, key: str, items: list[RewardInput]) -> list[TermScore]:
        """Scores of one call. Scoring has no effects, so what a dead replica was asked is asked of another."""
        for tried in range(TOGETHER):
            try:
                return await self.backends[key].score(items)
            except ReplicaLostError as error:
                await self._pause(key, error, tried)
        return [await self._call_alone(key, item) for item in items]

    async def _call_alone(self, key: str, item: RewardInput) -> TermScore:
        """The score of an item that was there when replicas died.

        No two such items are with a replica at once, so that only the one to blame is taken for it.
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

    def _compose(self, item: Item, told: Mapping[str, TermScore]) -> Score:
        spec = self.objectives[item.objective]
        keys = self._terms[item.objective]
        scores = {term.name: checked(term, told[keys[term.name]]) for term in spec.rewards}
        score = combine_terms(spec.rewards, scores, spec.combine)
        self._metrics.scored(item.objective, score)
        return score
