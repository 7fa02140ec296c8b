"""An engine in a Ray actor, and the handle that restarts it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from morl.errors import MorlError, RunError
from morl.registry import Entry
from morl.rollout.engine import Completion, Engine, Request, engine_info

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Deadlines:
    """How long, in seconds, the driver waits before it treats an engine as dead."""

    place_s: float = 300.0
    """For the cluster to have resources for the engine's process."""
    start_s: float = 900.0
    """For loading the model."""
    generate_s: float = 1800.0
    """Between two completions."""
    load_s: float = 600.0
    """For loading new weights."""
    call_s: float = 60.0
    """For anything else."""


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """Everything needed to build or rebuild an engine."""

    entry: Entry
    model: str
    dtype: str
    version: int
    options: Mapping[str, Any]
    actor_options: Mapping[str, Any] = field(default_factory=dict)
    """For Ray: resources and runtime environment."""
    max_restarts: int = 3
    """Per call; after that the call fails."""
    deadlines: Deadlines = field(default_factory=Deadlines)

    def build(self) -> Engine:
        """The engine, in this process."""
        engine: Engine = self.entry.load()(self.model, dtype=self.dtype, version=self.version, **self.options)
        return engine

    def sent(self, request: Request) -> Request:
        """The request with only the image data that this engine uses, features or pixels, because images are large."""
        prompt = request.prompt
        takes_pixels = engine_info(self.entry.name).takes_pixels
        return replace(request, prompt=replace(prompt, features=None) if takes_pixels else replace(prompt, pixels=None))


class EngineActor:
    """The part in the actor's process: forwards the protocol to the engine."""

    _engine: Engine

    async def placed(self) -> None:
        """Returns once the process runs."""

    async def start(self, spec: EngineSpec) -> int:
        """Build the engine; return the process id. Not in the constructor: errors must reach the caller intact."""
        self._engine = spec.build()
        return os.getpid()

    async def generate(self, requests: Sequence[Request]) -> AsyncGenerator[Completion, None]:
        """See `Engine.generate`."""
        async with aclosing(self._engine.generate(requests)) as completions:
            async for completion in completions:
                yield completion

    async def abort(self, request_ids: Sequence[str]) -> None:
        """See `Engine.abort`."""
        await self._engine.abort(request_ids)

    async def load_weights(self, folder: str) -> int:
        """See `Engine.load_weights`."""
        return await self._engine.load_weights(folder)

    async def receive_weights(self, stage: str, argument: Any = None) -> None:
        """One stage of a GPU-to-GPU weight transfer, for engines that support it."""
        await self._engine.receive_weights(stage, argument)  # type: ignore[attr-defined]

    async def clear_caches(self) -> None:
        """See `Engine.clear_caches`."""
        await self._engine.clear_caches()

    async def policy_version(self) -> int:
        """See `Engine.policy_version`."""
        return await self._engine.policy_version()

    async def close(self) -> None:
        """See `Engine.close`."""
        await self._engine.close()


class _EngineDiedError(Exception):
    """The actor or its engine died or cannot be reached; the cause is chained."""


@dataclass(frozen=True, slots=True)
class _Part:
    """Consecutive unfinished samples of a request, sent as a separate request."""

    whole: Request
    first: int
    count: int

    @property
    def request(self) -> Request:
        return replace(
            self.whole, id=f"{self.whole.id}#{self.first}", samples=self.count, seed=self.whole.seed + self.first
        )

    def restore(self, completion: Completion) -> Completion:
        return replace(completion, request_id=self.whole.id, index=self.first + completion.index)


def missing_parts(request: Request, landed: set[int]) -> list[_Part]:
    """The unfinished samples as runs of consecutive indices: same seeds, fewest requests."""
    parts: list[_Part] = []
    for index in range(request.samples):
        if index in landed:
            continue
        if parts and parts[-1].first + parts[-1].count == index:
            parts[-1] = replace(parts[-1], count=parts[-1].count + 1)
        else:
            parts.append(_Part(request, index, 1))
    return parts


class ActorEngine:
    """The engine protocol over a Ray actor that is replaced when it dies.

    A replacement serves the folder that was loaded last, and is sent only the
    unfinished completions, with the same seeds.
    """

    def __init__(self, spec: EngineSpec) -> None:
        self._spec = spec
        self._actor: Any = None
        self._starting = asyncio.Lock()
        self._folder: Callable[[], str] | None = None
        self._version = spec.version
        self._parts: dict[str, list[_Part]] = {}
        self._aborted: set[str] = set()
        self.pid: int | None = None
        """Of the actor's process; changes with a restart."""

    async def start(self) -> None:
        """Start the actor and load the model.

        Raises: the engine's error if it is a MorlError, else RunError.
        """
        import ray

        for attempt in range(self._spec.max_restarts + 1):
            try:
                await self._live()
                return
            except _EngineDiedError as died:
                # A killed actor may survive the next attempt; one that failed or hung would do so again.
                killed = isinstance(died.__cause__, ray.exceptions.RayActorError)
                if not killed or attempt == self._spec.max_restarts:
                    raise RunError(f"the rollout engine '{self._spec.entry.name}' did not start: {died}") from died

    async def generate(self, requests: Sequence[Request]) -> AsyncGenerator[Completion, None]:
        """See `Engine.generate`. Raises: RunError when the engine has died too often."""
        landed: dict[str, set[int]] = {request.id: set() for request in requests}
        restarts = 0
        try:
            while any(len(landed[request.id]) < request.samples for request in requests):
                for request in requests:
                    self._parts[request.id] = missing_parts(request, landed[request.id])
                try:
                    async with aclosing(self._attempt([request.id for request in requests])) as completions:
                        async for completion in completions:
                            landed[completion.request_id].add(completion.index)
                            yield completion
                except _EngineDiedError as died:
                    restarts += 1
                    self._check_restarts(restarts, died)
                else:
                    break
        finally:
            for request in requests:
                self._parts.pop(request.id, None)
                self._aborted.discard(request.id)

    async def abort(self, request_ids: Sequence[str]) -> None:
        """See `Engine.abort`."""
        known = [request_id for request_id in request_ids if request_id in self._parts]
        self._aborted.update(known)
        parts = [part.request.id for request_id in known for part in self._parts[request_id]]
        if parts and self._actor is not None:
            # A dying engine has nothing left to abort; the call that uses it handles its death.
            await self._quietly(self._actor.abort.remote(parts))

    async def load_weights(self, folder: str) -> int:
        """See `Engine.load_weights`."""
        self._folder = lambda: folder
        self._version = int(await self._call("load_weights", folder, deadline=self._spec.deadlines.load_s))
        return self._version

    async def actor(self) -> Any:
        """The actor's handle, for sending it weights."""
        return await self._live()

    def restart_from(self, folder: Callable[[], str]) -> None:
        """A replacement of the actor loads the folder that `folder` returns at that time."""
        self._folder = folder

    async def clear_caches(self) -> None:
        """See `Engine.clear_caches`."""
        await self._call("clear_caches", deadline=self._spec.deadlines.call_s)

    async def policy_version(self) -> int:
        """See `Engine.policy_version`."""
        return int(await self._call("policy_version", deadline=self._spec.deadlines.call_s))

    async def close(self) -> None:
        """See `Engine.close`."""
        if self._actor is not None:
            await self._quietly(self._actor.close.remote())
            self._discard(self._actor)

    async def _attempt(self, request_ids: Sequence[str]) -> AsyncGenerator[Completion, None]:
        """Completions of the missing parts from one actor, until it is done or dies."""
        actor = await self._live()
        parts = {part.request.id: part for request_id in request_ids for part in self._parts[request_id]}
        for part in [part for part in parts.values() if part.whole.id in self._aborted]:
            # Aborted while its engine died: the text written so far is lost.
            del parts[part.request.id]
            for index in range(part.first, part.first + part.count):
                yield Completion(part.whole.id, index, (), (), "abort", self._version)
        requests = [self._spec.sent(part.request) for part in parts.values()]
        stream = actor.generate.options(num_returns="streaming").remote(requests)
        deadline = self._spec.deadlines.generate_s
        exhausted = False
        try:
            while True:
                try:
                    reference = await self._answer(actor, anext(stream), deadline)
                except StopAsyncIteration:
                    exhausted = True
                    return
                completion: Completion = await self._answer(actor, reference, deadline)
                yield parts[completion.request_id].restore(completion)
        finally:
            if not exhausted and actor is self._actor:
                await self._quietly(actor.abort.remote(list(parts)))

    async def _call(self, method: str, *arguments: Any, deadline: float) -> Any:
        restarts = 0
        while True:
            try:
                actor = await self._live()
                return await self._answer(actor, getattr(actor, method).remote(*arguments), deadline)
            except _EngineDiedError as died:
                restarts += 1
                self._check_restarts(restarts, died)

    async def _live(self) -> Any:
        """The actor, started if necessary, serving the folder that was loaded last."""
        async with self._starting:
            if self._actor is None:
                import ray

                options = {"max_restarts": 0, "max_task_retries": 0, **self._spec.actor_options}
                actor = self._actor = ray.remote(EngineActor).options(**options).remote()
                deadlines = self._spec.deadlines
                try:
                    await self._room_for(actor, deadlines.place_s)
                    self.pid = int(await self._answer(actor, actor.start.remote(self._spec), deadlines.start_s))
                    if self._folder is not None:
                        load = actor.load_weights.remote(self._folder())
                        self._version = int(await self._answer(actor, load, deadlines.load_s))
                except BaseException:
                    self._discard(actor)
                    raise
            return self._actor

    async def _room_for(self, actor: Any, wait_s: float) -> None:
        """Wait for the actor's process. Raises: RunError when the cluster lacks resources for it."""
        import ray

        try:
            await self._answer(actor, actor.placed.remote(), wait_s)
        except _EngineDiedError as died:
            if not isinstance(died.__cause__, TimeoutError):
                raise
            need = {key: self._spec.actor_options.get(f"num_{key.lower()}s", 0) for key in ("CPU", "GPU")}
            raise RunError(
                f"the rollout engine '{self._spec.entry.name}' needs {need}, and the cluster has no room for it after "
                f"{wait_s:g} s; it has {ray.cluster_resources()}, free {ray.available_resources()}"
            ) from died

    async def _answer(self, actor: Any, reply: Awaitable[T], deadline: float) -> T:
        """The actor's reply within the deadline.

        Raises: the MorlError that the engine raised; `_EngineDiedError` for anything else, with
        the actor discarded: after an unforeseen failure an engine is not to be trusted.
        """
        import ray

        try:
            return await asyncio.wait_for(_as_coroutine(reply), deadline)
        except TimeoutError as error:
            self._discard(actor)
            raise _EngineDiedError(f"no answer within {deadline:g} s") from error
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, MorlError):
                raise error.cause from None
            self._discard(actor)
            raise _EngineDiedError(f"{type(error.cause).__name__}: {error.cause}") from error
        except ray.exceptions.RayError as error:
            self._discard(actor)
            raise _EngineDiedError(str(error)) from error

    def _discard(self, actor: Any) -> None:
        import ray

        ray.kill(actor)
        if self._actor is actor:
            self._actor = None

    def _check_restarts(self, restarts: int, died: _EngineDiedError) -> None:
        if restarts > self._spec.max_restarts:
            raise RunError(
                f"the rollout engine '{self._spec.entry.name}' died {restarts} times in one call "
                f"(rollout.max_restarts is {self._spec.max_restarts}); the last cause: {died}"
            ) from died

    async def _quietly(self, reply: Awaitable[Any]) -> None:
        """Wait for an optional call; if it fails, the next call that needs the engine handles the failure."""
        import ray

        try:
            await asyncio.wait_for(_as_coroutine(reply), self._spec.deadlines.call_s)
        except (TimeoutError, ray.exceptions.RayError):
            return


def _as_coroutine(reply: Awaitable[T]) -> Coroutine[Any, Any, T]:
    async def wait() -> T:
        return await reply

    return wait()
