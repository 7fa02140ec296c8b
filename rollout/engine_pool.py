"""Several engines behind the protocol of one."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from types import MappingProxyType
from typing import Any

from morl.announce import announce
from morl.compat import PATIENCE
from morl.errors import RunError, UsageError
from morl.recipe import Recipe
from morl.registry import ENGINES
from morl.rollout.engine import Completion, Engine, Request, choose_engine
from morl.rollout.engine_actor import ActorEngine, Deadlines, EngineSpec

logger = logging.getLogger(__name__)


class EnginePool:
    """Splits requests over N engines: request i goes to engine i modulo N."""

    def __init__(self, engines: Sequence[Engine]) -> None:
        self.engines = tuple(engines)

    @classmethod
    async def start(
        cls,
        engine: str,
        model: str,
        *,
        dtype: str,
        count: int = 1,
        version: int = 0,
        options: Mapping[str, Any] | None = None,
        local: bool = False,
        num_gpus: float = 0,
        max_restarts: int = 3,
        deadlines: Deadlines | None = None,
    ) -> EnginePool:
        """Build `count` engines: in this process if `local`, else in supervised Ray actors.

        Ray reserves `num_gpus` for each actor.

        Raises: UsageError, MissingExtraError or RunError when an engine cannot start.
        """
        spec = EngineSpec(
            entry=ENGINES.entry(engine),
            model=model,
            dtype=dtype,
            version=version,
            options=dict(options or {}),
            actor_options={
                # Next to nothing without a GPU: learner and engines take turns on the same cores.
                "num_cpus": 1 if num_gpus else 0.01,
                "num_gpus": num_gpus,
                "runtime_env": {"env_vars": _environment(count)},
            },
            max_restarts=max_restarts,
            deadlines=deadlines or Deadlines(),
        )
        if local:
            return cls([spec.build() for _ in range(count)])
        actors = [ActorEngine(spec) for _ in range(count)]
        pool = cls(actors)
        outcomes = await asyncio.gather(*(actor.start() for actor in actors), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                await pool.close()
                raise outcome
        return pool

    async def generate(self, requests: Sequence[Request]) -> AsyncGenerator[Completion, None]:
        """See `Engine.generate`."""
        if len({request.id for request in requests}) != len(requests):
            raise UsageError("two requests have the same id")
        shares = [requests[i :: len(self.engines)] for i in range(len(self.engines))]
        streams = [engine.generate(share) for engine, share in zip(self.engines, shares, strict=True) if share]
        async with aclosing(_merged(streams)) as completions:
            async for completion in completions:
                yield completion

    async def abort(self, request_ids: Sequence[str]) -> None:
        """See `Engine.abort`."""
        await asyncio.gather(*(engine.abort(request_ids) for engine in self.engines))

    async def load_weights(self, folder: str) -> int:
        """See `Engine.load_weights`. Raises: RunError when the engines disagree."""
        return _agreed(await asyncio.gather(*(engine.load_weights(folder) for engine in self.engines)))

    async def actors(self) -> list[Any]:
        """Handles of the engines' actors, all alive."""
        return [await engine.actor() for engine in self.engines if isinstance(engine, ActorEngine)]

    def restart_from(self, folder: Callable[[], str]) -> None:
        """A restarted engine loads the folder that `folder` returns at that time."""
        for engine in self.engines:
            if isinstance(engine, ActorEngine):
                engine.restart_from(folder)

    async def clear_caches(self) -> None:
        """See `Engine.clear_caches`."""
        await asyncio.gather(*(engine.clear_caches() for engine in self.engines))

    async def policy_version(self) -> int:
        """See `Engine.policy_version`. Raises: RunError when the engines disagree."""
        return _agreed(await asyncio.gather(*(engine.policy_version() for engine in self.engines)))

    async def close(self) -> None:
        """See `Engine.close`."""
        await asyncio.gather(*(engine.close() for engine in self.engines))


def _environment(count: int) -> dict[str, str]:
    """Variables that an actor's process needs before it imports anything."""
    threads = max(1, (os.cpu_count() or 1) // count)
    offline = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")
    return {
        **{name: os.environ[name] for name in offline if name in os.environ},
        # Ray sets this to 1 for an actor that reserves less than a core.
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
        **{name: os.environ.get(name, value) for name, value in PATIENCE.items()},
        # Pages of 2 MB where Linux grants them on request: on the CPU each token reads all weights.
        "GLIBC_TUNABLES": os.environ.get("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"),
        # Otherwise an actor that reserves no GPU sees all of them.
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
    }


def _agreed(versions: Sequence[int]) -> int:
    if len(set(versions)) != 1:
        raise RunError(f"the engines serve different policy versions: {versions}")
    return versions[0]


async def _merged(streams: Sequence[AsyncGenerator[Completion, None]]) -> AsyncGenerator[Completion, None]:
    """Items of all streams as they arrive. The first error ends the others."""
    landed: asyncio.Queue[Completion | asyncio.Task[None]] = asyncio.Queue()

    async def pump(stream: AsyncGenerator[Completion, None]) -> None:
        async with aclosing(stream):
            async for completion in stream:
                landed.put_nowait(completion)

    tasks = [asyncio.create_task(pump(stream)) for stream in streams]
    for task in tasks:
        task.add_done_callback(landed.put_nowait)
    running = len(tasks)
    try:
        while running:
            item = await landed.get()
            if isinstance(item, Completion):
                yield item
            else:
                running -= 1
                item.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def start_engines(
    recipe: Recipe, model: Path, *, local: bool, gpus: int, more: Mapping[str, Any] = MappingProxyType({})
) -> EnginePool:
    """The recipe's rollout engines, serving `model` as policy version 0; `more` extends the recipe's options."""
    name, reason = choose_engine(recipe.rollout.engine)
    announce(f"rollout engine: {name} ({reason})")
    began = time.perf_counter()
    options: dict[str, Any] = {**recipe.rollout.options, **more}
    engines = await EnginePool.start(
        name,
        str(model),
        dtype=recipe.model.dtype,
        count=recipe.rollout.engines,
        options=options,
        local=local,
        num_gpus=options.get("tensor_parallel_size", 1) if gpus else 0,
        max_restarts=recipe.rollout.max_restarts,
        deadlines=Deadlines(place_s=recipe.cluster.start_timeout_s),
    )
    logger.info("%d engine(s) up after %.1f s", recipe.rollout.engines, time.perf_counter() - began)
    return engines
