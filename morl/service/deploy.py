"""The deployments of Ray Serve: one per distinct reward, with replicas that scale with the load."""

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
"""Time between checks of the replicas, before all are ready and after."""
STALE_S = 15.0
"""Age at which a check is out of date."""
QUIET = {"log_level": "WARNING", "enable_access_log": False}


class ServeBackend:
    """The replicas of one deployment."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def close(self) -> None:
        """Stop Ray Serve's threads that watch the replicas, before Ray shuts down."""
        self._handle.shutdown()

    async def score(self, items: Sequence[RewardInput]) -> list[TermScore]:
        """See `morl.service.router.Backend`."""
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
        replicas: minimum and maximum per deployment.
        name: prefix of the application names; services on one cluster need different ones.
    """

    def __init__(self, recipe: Recipe, rewards: Mapping[str, Reward], replicas: tuple[int, int], name: str) -> None:
        self._recipe = recipe
        self._rewards = rewards
        self._replicas = replicas
        self._apps = {key: f"{name}-{index}-{_plain(r.use)}" for index, (key, r) in enumerate(rewards.items())}
        self._backends: dict[str, ServeBackend] = {}
        self._checked_at = -math.inf
        self._not_ready: list[str] = list(self._apps)

    def start(self) -> dict[str, ServeBackend]:
        """Start the replicas. Takes some seconds, and returns before they are ready."""
        from ray import serve

        # This process serves HTTP itself. Serve's proxy with an ingress replica had half the throughput (108 against
        # 198 requests a second on two cores), answered 500 for requests in a killed ingress replica, and has two
        # more paths that need no token.
        # The router logs a lost replica once; Ray Serve would log it for every call.
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

        minimum, maximum = self._replicas
        return serve.deployment(
            Replica,
            name=_plain(reward.use),
            autoscaling_config={
                "min_replicas": minimum,
                "max_replicas": maximum,
                "target_ongoing_requests": 4,
                "upscale_delay_s": 5,
            },
            # The router limits waiting items. Ray's own router would sleep when it finds every replica full.
            max_ongoing_requests=4096,
            # Roughly the time until a killed replica is replaced.
            health_check_period_s=1,
            # Loading a large model is slow, and a failed load will fail again.
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
        """CPUs that a replica requests from Ray: few enough for all replicas to fit, so that none waits for ever."""
        share = self._total_cpus / (len(self._rewards) * self._replicas[1])
        return max(0.01, math.floor(50 * min(1.0, share)) / 100)

    async def until_ready(self, timeout_s: float) -> None:
        """Wait until every deployment can score. Raises: RunError when one does not start in time or at all."""
        deadline = time.monotonic() + timeout_s
        while True:
            failures = await self.check()
            if failures:
                raise RunError("; ".join(failures))
            if self.ready:
                return
            if time.monotonic() > deadline:
                raise RunError(f"not ready within {timeout_s:g} s: {', '.join(self._not_ready)}")
            await asyncio.sleep(POLL_S)

    async def check(self) -> list[str]:
        """Check which deployments can score. Returns the reasons of those that failed to start."""
        from ray import serve

        applications = (await asyncio.to_thread(serve.status)).applications
        not_ready, failures = [], []
        for key, app in self._apps.items():
            status = applications.get(app)
            states = [d.replica_states for d in status.deployments.values()] if status else []
            if not any(_count(replicas, "RUNNING") for replicas in states):
                not_ready.append(app)
            if status is not None and status.status == "DEPLOY_FAILED":
                failures.append(f"reward '{self._rewards[key].use}' cannot be started: {_reason(status)}")
        self._not_ready, self._checked_at = not_ready, time.monotonic()
        return failures

    async def watch(self) -> None:
        """Check the replicas periodically."""
        while True:
            try:
                await self.check()
            except Exception as error:  # noqa: BLE001  # Ray may raise anything while it restarts a part
                logger.warning("the state of the replicas is unknown: %s", describe(error))
            await asyncio.sleep(WATCH_S)

    @property
    def ready(self) -> bool:
        """Whether every deployment had a working replica at the last check."""
        return not self._not_ready and time.monotonic() - self._checked_at < STALE_S

    def stop(self) -> None:
        """Stop the replicas."""
        from ray import serve

        try:
            for backend in self._backends.values():
                backend.close()
            for app in self._apps.values():
                serve.delete(app, _blocking=False)
        except Exception as error:  # noqa: BLE001  # Ray itself may have failed
            logger.warning("the replicas were not stopped: %s", describe(error))


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name)


def _count(replicas: Mapping[Any, int], state: str) -> int:
    return sum(count for name, count in replicas.items() if getattr(name, "value", name) == state)


def _reason(status: Any) -> str:
    """The last line of the error in a replica's constructor."""
    texts: list[str] = [status.message, *(deployment.message for deployment in status.deployments.values())]
    lines = [line.strip() for text in texts for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return re.sub(r"^morl\.errors\.\w+: ", "", (errors or lines or ["no reason given"])[-1])[:500]
