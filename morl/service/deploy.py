"""The deployments of Ray Serve: one for each distinct reward, with replicas that come and go with the load."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from morl.errors import RunError
from morl.recipe import Recipe
from morl.rewards import RewardInput, describe, usable_cores
from morl.service.refusal import Refusal
from morl.service.replica import Replica, ReplicaSpec
from morl.service.router import ReplicaLostError, Reward
from morl.types import TermScore

logger = logging.getLogger(__name__)

POLL_S, WATCH_S = 0.3, 1.0
"""Between two looks at the replicas, before all are ready and after."""
STALE_S = 15.0
"""A look that is older says nothing any more."""
QUIET = {"log_level": "WARNING", "enable_access_log": False}


class ServeBackend:
    """The replicas of one deployment."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def close(self) -> None:
        """End what watches the replicas in threads of Ray Serve: Ray itself is about to end."""
        self._handle.shutdown()

    async def score(self, items: Sequence[RewardInput]) -> list[TermScore]:
        """As `morl.service.router.Backend`."""
        from ray.exceptions import RayActorError, RayError, RayTaskError
        from ray.serve.exceptions import DeploymentUnavailableError, RayServeException

        call = self._handle.score.remote(items)
        try:
            scores: list[TermScore] = await call
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                call.cancel()
                raise
            raise ReplicaLostError("it was shut down") from None
        except DeploymentUnavailableError as error:
            raise Refusal(503, "unavailable", "a reward of this objective cannot be started") from error
        except RayTaskError as error:
            if isinstance(error.cause, RayActorError):
                raise ReplicaLostError(type(error.cause).__name__) from error
            raise Refusal(500, "reward_failed", describe(error.cause)) from error
        except (RayError, RayServeException) as error:
            raise ReplicaLostError(type(error).__name__) from error
        return scores


class Deployments:
    """All deployments of one service.

    Args:
        rewards: by key.
        replicas: fewest and most of each deployment.
        name: begins the names of the service's applications; two services on one cluster need two names.
    """

    def __init__(self, recipe: Recipe, rewards: Mapping[str, Reward], replicas: tuple[int, int], name: str) -> None:
        self._recipe = recipe
        self._rewards = rewards
        self._replicas = replicas
        self._apps = {key: f"{name}-{index}-{_plain(r.use)}" for index, (key, r) in enumerate(rewards.items())}
        self._backends: dict[str, ServeBackend] = {}
        self._looked = -math.inf
        self._lacking: list[str] = list(self._apps)

    def start(self) -> dict[str, ServeBackend]:
        """Have the replicas started; returns before they are ready. Takes some seconds."""
        from ray import serve

        # HTTP is spoken by this process. Serve's own proxy and an ingress replica behind it gave half the
        # throughput (108 against 198 requests a second on two cores), answered 500 to what an ingress replica
        # held when it was killed, and has two more paths that ask for no token.
        # A replica that dies is told of here, once, and not by each call that looked at it.
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        serve.start(proxy_location="Disabled", logging_config=QUIET)
        targets = [
            serve.RunTarget(self._deployment(reward).bind(self._spec(reward)), self._apps[key], None, QUIET)
            for key, reward in self._rewards.items()
        ]
        handles = serve.run_many(targets, wait_for_applications_running=False)
        self._backends = {key: ServeBackend(handle) for key, handle in zip(self._rewards, handles, strict=True)}
        return self._backends

    def _deployment(self, reward: Reward) -> Any:
        from ray import serve

        fewest, most = self._replicas
        return serve.deployment(
            Replica,
            name=_plain(reward.use),
            autoscaling_config={
                "min_replicas": fewest,
                "max_replicas": most,
                "target_ongoing_requests": 4,
                "upscale_delay_s": 5,
            },
            # How much waits is bounded where requests come in; a router that finds every replica full goes to sleep.
            max_ongoing_requests=4096,
            # A replica that was killed is replaced about so soon.
            health_check_period_s=1,
            # Reading a large model takes long, and a failure to do so is the same the next time.
            health_check_timeout_s=60,
            max_constructor_retry_count=2,
            ray_actor_options={"num_cpus": self._cpus},
        )

    def _spec(self, reward: Reward) -> ReplicaSpec:
        scoring = self._recipe.scoring
        share = (scoring.workers or self._total_cpus) / (len(self._rewards) * self._replicas[1])
        return ReplicaSpec(
            reward.use,
            dict(reward.written),
            reward.deadline_s,
            max(1, min(int(share), usable_cores())),
            scoring.memory_mb,
            tuple(str(Path(p).resolve()) if p.endswith(".py") else p for p in self._recipe.plugins),
            str(Path.cwd()),
        )

    @property
    def _total_cpus(self) -> float:
        import ray

        return float(ray.cluster_resources().get("CPU", 1))

    @property
    def _cpus(self) -> float:
        """CPUs that a replica asks Ray for: so few that all replicas fit at once, and none waits for ever."""
        share = self._total_cpus / (len(self._rewards) * self._replicas[1])
        return max(0.01, math.floor(50 * min(1.0, share)) / 100)

    async def until_ready(self, timeout_s: float) -> None:
        """Wait until every deployment can score. Raises: RunError when one cannot be started, or not in time."""
        give_up = time.monotonic() + timeout_s
        while True:
            failures = await self.look()
            if failures:
                raise RunError("; ".join(failures))
            if self.ready:
                return
            if time.monotonic() > give_up:
                raise RunError(f"not ready within {timeout_s:g} s: {', '.join(self._lacking)}")
            await asyncio.sleep(POLL_S)

    async def look(self) -> list[str]:
        """Find out which deployments can score; returns why those that cannot be started cannot."""
        from ray import serve

        told = (await asyncio.to_thread(serve.status)).applications
        lacking, failures = [], []
        for key, app in self._apps.items():
            status = told.get(app)
            states = [d.replica_states for d in status.deployments.values()] if status else []
            if not any(_count(replicas, "RUNNING") for replicas in states):
                lacking.append(app)
            if status is not None and status.status == "DEPLOY_FAILED":
                failures.append(f"reward '{self._rewards[key].use}' cannot be started: {_reason(status)}")
        self._lacking, self._looked = lacking, time.monotonic()
        return failures

    async def watch(self) -> None:
        """Look again and again."""
        while True:
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001  # whatever Ray raises while a part of it is restarted
                logger.warning("the state of the replicas is unknown: %s", describe(error))
            await asyncio.sleep(WATCH_S)

    @property
    def ready(self) -> bool:
        """Whether every deployment had a replica that can score, at the last look."""
        return not self._lacking and time.monotonic() - self._looked < STALE_S

    def stop(self) -> None:
        """End the replicas."""
        from ray import serve

        try:
            for backend in self._backends.values():
                backend.close()
            for app in self._apps.values():
                serve.delete(app, _blocking=False)
        except Exception as error:  # noqa: BLE001  # Ray may be what failed
            logger.warning("the replicas were not ended: %s", describe(error))


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)


def _count(replicas: Mapping[Any, int], state: str) -> int:
    return sum(count for name, count in replicas.items() if getattr(name, "value", name) == state)


def _reason(status: Any) -> str:
    """The last line of what the constructor of a replica raised."""
    texts: list[str] = [status.message, *(deployment.message for deployment in status.deployments.values())]
    lines = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return re.sub(r"^morl\.errors\.\w+: ", "", (errors or lines or ["no reason given"])[-1])[:500]
