"""A replica: one reward of the recipe, called as in a run."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from morl.errors import RunError
from morl.recipe import import_plugin
from morl.rewards import BoundReward, Example, RewardInput, WorkerPool
from morl.types import TermScore


@dataclass(frozen=True, slots=True)
class ReplicaSpec:
    """The configuration of a replica, sent to its process, which may be on another machine."""

    use: str
    """Name of the reward."""
    options: Mapping[str, Any]
    """As written in the recipe."""
    deadline_s: float
    workers: int
    """Worker processes of the replica, if the reward runs in workers."""
    memory_mb: int
    """By how much a call may grow its process, in MB."""
    plugins: tuple[str, ...]
    """Modules and absolute paths of files that register rewards."""
    folder: str
    """Working folder, for relative paths in options."""


def _example(reward: BoundReward) -> RewardInput:
    """An input that the reward accepts."""
    return RewardInput.of_example(next(iter(reward.traits.examples), Example("", "", None)))


class Replica:
    """The class of every deployment, with the deadlines, kills and memory limits of a run."""

    async def __init__(self, spec: ReplicaSpec) -> None:  # type: ignore[misc]  # Ray Serve awaits it
        """Returns when the reward can score: the model is loaded, the workers run."""
        with contextlib.suppress(OSError):  # the folder may not exist on this machine
            os.chdir(spec.folder)
        for plugin in spec.plugins:
            import_plugin(plugin)
        self._broken = ""
        self._runner = WorkerPool(workers=spec.workers, memory_mb=spec.memory_mb)
        self._reward = BoundReward(spec.use, spec.options, spec.deadline_s, self._runner)
        await self._reward.start()
        if self._reward.in_worker:
            self._runner.start([self._reward.target])
            # Otherwise the first responses would wait for the workers' imports.
            await self.score([_example(self._reward)] * spec.workers)

    async def score(self, items: Sequence[RewardInput]) -> list[TermScore]:
        """One score per item, in order; each item has the fields that the reward reads.

        Raises: RunError when the workers cannot start.
        """
        try:
            return await asyncio.gather(*(self._reward(item) for item in items))
        except RunError as error:
            self._broken = str(error)
            raise

    async def check_health(self) -> None:
        """Ray Serve replaces a replica that raises here."""
        if self._broken:
            raise RunError(self._broken)
