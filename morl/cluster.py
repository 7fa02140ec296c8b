"""Where actors run: a Ray cluster of our own, one that is joined, or this process."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from morl.errors import RunError, UsageError
from morl.recipe import ClusterSpec

logger = logging.getLogger(__name__)

ACTOR_CPUS = 0.01
"""CPUs that a learner rank or an engine asks Ray for where there is no GPU: next to nothing,
because rollout and learning take turns on the same cores."""


class Cluster:
    """A context in which actors can be started.

    With `local=True` there is no Ray: everything lives in this process, and a breakpoint works.
    """

    def __init__(self, spec: ClusterSpec, *, local: bool) -> None:
        self.spec = spec
        self.local = local
        self._started = False

    def __enter__(self) -> Cluster:
        if not self.local:
            self._connect()
        return self

    def _connect(self) -> None:
        # An actor that asked for no GPU must not see one.
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")
        import ray

        if ray.is_initialized():
            return
        with _signals_kept():
            if self.spec.address == "local":
                ray.init(
                    address="local",
                    include_dashboard=False,
                    log_to_driver=False,
                    configure_logging=False,
                    _node_ip_address="127.0.0.1",
                )
            else:
                self._join()
        self._started = True

    def _join(self) -> None:
        import ray

        try:
            ray.init(address=self.spec.address, log_to_driver=False, configure_logging=False)
        except ConnectionError as error:
            raise UsageError(
                f"cluster.address: no Ray cluster answers at '{self.spec.address}' ({error}); "
                "start one with `ray start --head`, or use cluster.address=local"
            ) from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._started:
            import ray

            ray.shutdown()

    @property
    def cpus(self) -> int:
        """Cores of this machine that the process may use."""
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    @property
    def gpus(self) -> int:
        """GPUs of the whole cluster, or of this machine when local."""
        if self.local:
            import torch

            return torch.cuda.device_count()
        import ray

        return int(ray.cluster_resources().get("GPU", 0))

    def actor_options(self, environment: dict[str, str], *, gpus: int = 1) -> dict[str, Any]:
        """Options for `ray.remote(...)` of an actor that computes."""
        options: dict[str, Any] = {"num_cpus": ACTOR_CPUS, "runtime_env": {"env_vars": environment}}
        return options | ({"num_gpus": gpus} if self.gpus else {"num_gpus": 0})


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Start Ray so that SIGINT and SIGTERM stay ours.

    A batch system signals every process of a job, and a terminal every process of its group.
    Ray's own processes inherit the blocked mask and live on, because the driver needs them to
    finish its step and save; and Ray's handler in the driver, which would end it at once, is
    taken back.
    """
    signals = {signal.SIGINT, signal.SIGTERM}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    handlers = {number: signal.getsignal(number) for number in signals}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def gather(references: Sequence[Any], what: str, timeout_s: float | None) -> list[Any]:
    """Results of remote calls in order; the first failure ends the wait at once.

    Waiting for them one after the other would hang when one actor dies and the others sit in a
    collective with it.

    Raises: RunError that names the actor (its position in `references`) and the cause.
    """
    import ray
    from ray.exceptions import RayError, RayTaskError

    pending = list(references)
    while pending:
        ready, pending = ray.wait(pending, num_returns=1, timeout=timeout_s)
        if not ready:
            late = ", ".join(str(references.index(reference)) for reference in pending)
            raise RunError(f"{what}: no answer from {late} within {timeout_s:g} s")
        try:
            ray.get(ready[0])
        except RayTaskError as error:
            cause = error.as_instanceof_cause()
            raise RunError(f"{what}: {references.index(ready[0])} failed: {cause}") from cause
        except RayError as error:
            raise RunError(f"{what}: {references.index(ready[0])} died: {error}") from error
    return list(ray.get(list(references)))
