"""What runs in a replica: one reward of the recipe, called as in a run."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from morl.errors import RunError
from morl.recipe import import_plugin
from morl.rewards import BoundReward, Example, RewardInput, Runner
from morl.types import TermScore


@dataclass(frozen=True, slots=True)
class ReplicaSpec:
    """Everything a replica is made of; it travels to its process, which may be on another machine."""

    use: str
    """Name of the reward."""
    options: Mapping[str, Any]
    """As they are written in the recipe."""
    deadline_s: float
    workers: int
    """Processes of the replica that call the reward, if it runs in processes."""
    memory_mb: int
    """By how much a call may make its process grow."""
    plugins: tuple[str, ...]
    """Modules and absolute paths of files that register rewards."""
    folder: str
    """Where relative paths in options begin."""


def _example(reward: BoundReward) -> RewardInput:
    """Something that the reward can be called with."""
    return RewardInput.of_example(next(iter(reward.traits.examples), Example("", "", None)))


class Replica:
    """The class of every deployment. Its deadlines, kills and memory limits are those of a run."""

    async def __init__(self, spec: ReplicaSpec) -> None:  # type: ignore[misc]  # Ray Serve awaits it
        """Ready when the reward is: a model is loaded, the workers are started."""
        with contextlib.suppress(OSError):  # on a machine that has no such folder
            os.chdir(spec.folder)
        for plugin in spec.plugins:
            import_plugin(plugin)
        self._broken = ""
        self._runner = Runner(workers=spec.workers, memory_mb=spec.memory_mb)
        self._reward = BoundReward(spec.use, spec.options, spec.deadline_s, self._runner)
        await self._reward.start()
        if self._reward.in_worker:
            self._runner.start([self._reward.target])
            # Workers that still import would keep the first answers waiting.
            await self.score([_example(self._reward)] * spec.workers)

    async def score(self, items: Sequence[RewardInput]) -> list[TermScore]:
        """One score an item, in order; each item holds what the reward asks for.

        Raises: RunError when workers cannot start.
        """
        try:
            return await asyncio.gather(*(self._reward(item) for item in items))
        except RunError as error:
            self._broken = str(error)
            raise

    async def check_health(self) -> None:
        """Ray Serve puts another replica in the place of one that raises here."""
        if self._broken:
            raise RunError(self._broken)
