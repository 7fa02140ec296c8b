"""Calls a reward in a worker process or on the event loop, one response at a time or in batches."""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from morl.error_messages import explain
from morl.errors import RunError, UsageError
from morl.registry import REWARDS, ValidationError, check_options, options_model, wanted_arguments
from morl.rewards.pool.worker import call, to_term_scores
from morl.rewards.pool.worker_pool import WorkerPool
from morl.rewards.pool.worker_process import Call
from morl.rewards.resource import Resource
from morl.rewards.reward_input import ARGUMENTS, RewardInput
from morl.rewards.verdict import describe, failure
from morl.traits import Traits, is_async, needs_gold, traits_of
from morl.types import TermScore

BATCH_WAIT_S = 0.02
"""How long the first item of a batch waits for others."""
BATCH_ITEMS = 64


@dataclass(slots=True, eq=False)
class _Batch:
    """Items that a batch reward will score in one call."""

    arguments: dict[str, list[Any]]
    futures: list[asyncio.Future[TermScore]] = field(default_factory=list)


class BoundReward:
    """A reward with its options, ready to be called.

    Args:
        name: the reward's name in the registry.
        options: as in a recipe; defaults are filled in.

    Raises: UsageError when the reward does not exist, an option is wrong, or the function names an unknown argument.
    """

    def __init__(self, name: str, options: Mapping[str, Any], deadline_s: float, runner: WorkerPool) -> None:
        entry = REWARDS.entry(name)
        function = entry.load()
        self.name = name
        self.target = entry.target
        self.function: Callable[..., Any] = function
        self.traits: Traits = traits_of(function)
        self.in_worker = self.traits.runs == "worker" and not is_async(function)
        """Whether it runs in a worker process."""
        self._deadline_s = deadline_s
        self.options = checked_options(name, function, options)
        self.wanted = tuple(argument for argument in wanted_arguments(function) if argument != "resource")
        self._needs_gold = needs_gold(function)
        self._runner = runner
        self._waiting: dict[asyncio.AbstractEventLoop, _Batch] = {}
        """Each event loop has its own batch: other trainers call rewards from several threads."""
        self._tasks: set[asyncio.Task[None]] = set()
        for argument in self.wanted:
            if argument not in ARGUMENTS:
                raise UsageError(f"reward '{name}' asks for '{argument}'; available: {', '.join(ARGUMENTS)}")
        self.resource = self._make_resource(function)
        self._started: asyncio.Task[None] | None = None
        if self.in_worker and entry.target.startswith("__main__:"):
            raise UsageError(f"reward '{name}' is in the script itself; move it to a module, which workers can import")

    def _make_resource(self, function: Callable[..., Any]) -> Resource | None:
        wants_resource = "resource" in wanted_arguments(function)
        if wants_resource != (self.traits.resource is not None):
            raise UsageError(
                f"reward '{self.name}': the argument 'resource' and the decorator's 'resource=' go together"
            )
        if self.traits.resource is None:
            return None
        if self.in_worker:
            raise UsageError(f"reward '{self.name}' keeps a resource: make it a coroutine function, or runs='inline'")
        return self.traits.resource(**self.options)

    async def start(self) -> None:
        """Start the resource, if there is one. Without this, the first call starts it."""
        if self.resource is not None:
            if self._started is None:
                self._started = asyncio.ensure_future(self.resource.start())
            await asyncio.shield(self._started)

    def close(self) -> None:
        """Close the resource."""
        if self.resource is not None:
            self.resource.close()

    @property
    def options(self) -> Mapping[str, Any]:
        """The options of each call. A mapping set here applies from the next call on."""
        return self._options

    @options.setter
    def options(self, options: Mapping[str, Any]) -> None:
        try:
            sent = pickle.dumps(options) if self.in_worker else b""
        except Exception as error:  # pickling may raise anything
            raise UsageError(f"reward '{self.name}': options that cannot be sent to a worker process") from error
        self._options = options
        self._call = Call(self.target, sent, self._deadline_s)

    def __call__(self, reward_input: RewardInput) -> Awaitable[TermScore]:
        """Score one response.

        An error in the reward becomes a status. Raises, when awaited: RunError when the workers or the resource
        cannot start.
        """
        if self.in_worker and not self.traits.batch and not (self._needs_gold and reward_input.gold is None):
            # Calls are many, so this path makes a future and no task.
            return self._runner.submit(self._call, reward_input.arguments(self.wanted))
        return self._on_loop(reward_input)

    async def _on_loop(self, reward_input: RewardInput) -> TermScore:
        if self._needs_gold and reward_input.gold is None:
            return failure("bad_gold", "there is no gold answer")
        arguments = reward_input.arguments(self.wanted)
        await self.start()
        if self.traits.batch:
            return await self._join_batch(arguments)
        return (await self._run(arguments, 1))[0]

    async def _run(self, arguments: dict[str, Any], size: int) -> list[TermScore]:
        if self.in_worker:
            scores: list[TermScore] = await self._runner.submit(self._call, arguments, size)
            return scores
        if self.resource is not None:
            arguments = {**arguments, "resource": self.resource}
        if is_async(self.function):
            return await self._run_async(arguments, size)
        try:
            return call(self.function, arguments, self.options, size)
        except MemoryError as error:
            return [failure("error", describe(error))] * size

    async def _run_async(self, arguments: dict[str, Any], size: int) -> list[TermScore]:
        start = time.perf_counter()
        try:
            async with asyncio.timeout(self._deadline_s):
                returned = await self.function(**arguments, **self.options)
        except TimeoutError as error:
            elapsed = time.perf_counter() - start
            late = f"took longer than {self._deadline_s:g} s"
            return [failure("timeout", late if elapsed >= self._deadline_s else describe(error), elapsed)] * size
        except Exception as error:  # noqa: BLE001  # a reward may raise anything
            return [failure("error", describe(error), time.perf_counter() - start)] * size
        return to_term_scores(self.function, returned, size, time.perf_counter() - start)

    async def _join_batch(self, arguments: dict[str, Any]) -> TermScore:
        loop = asyncio.get_running_loop()
        batch = self._waiting.get(loop)
        if batch is None:
            batch = self._waiting[loop] = _Batch({name: [] for name in self.wanted})
            loop.call_later(BATCH_WAIT_S, self._flush, loop, batch)
        for name, value in arguments.items():
            batch.arguments[name].append(value)
        future: asyncio.Future[TermScore] = loop.create_future()
        batch.futures.append(future)
        if len(batch.futures) >= BATCH_ITEMS:
            self._flush(loop, batch)
        return await future

    def _flush(self, loop: asyncio.AbstractEventLoop, batch: _Batch) -> None:
        if self._waiting.get(loop) is batch:
            del self._waiting[loop]
            task = loop.create_task(self._run_together(batch))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run_together(self, batch: _Batch) -> None:
        size = len(batch.futures)
        try:
            scores = await self._run(batch.arguments, size)
            if size > 1 and all(score.status in ("timeout", "error") for score in scores):
                # One bad item fails the whole batch: find it by scoring each alone.
                singles = [{name: [values[i]] for name, values in batch.arguments.items()} for i in range(size)]
                scores = [score for (score,) in await asyncio.gather(*(self._run(one, 1) for one in singles))]
        except RunError as error:
            for future in batch.futures:
                if not future.done():
                    future.set_exception(error)
            return
        for future, score in zip(batch.futures, scores, strict=True):
            if not future.done():
                future.set_result(score)


def checked_options(name: str, function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with their defaults. Raises: UsageError that names every wrong option."""
    try:
        return check_options(function, options)
    except ValidationError as error:
        known = options_model(function).model_fields
        lines = [f"option '{'.'.join(map(str, item['loc']))}': {explain(item, known)}" for item in error.errors()]
        raise UsageError(f"reward '{name}': " + "; ".join(lines)) from error
