"""Where actors run: a new Ray cluster, an existing one, or this process."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from morl.errors import MorlError, RunError, UsageError
from morl.recipe import ClusterSpec

ACTOR_CPUS = 0.01
"""CPUs that a learner rank or an engine requests from Ray without a GPU: next to nothing,
because rollout and learning take turns on the same cores."""
ANSWER_S = 5.0
"""Seconds that actors have left to reply after one of them failed, or after the deadline."""


class Cluster:
    """A context in which actors can be started.

    With `local=True` there is no Ray: everything runs in this process, and breakpoints work.
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
        # An actor that requests no GPU must not see one.
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
        """CPU cores that this process may use."""
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

    @property
    def gpus(self) -> int:
        """GPUs of the whole cluster, or of this machine when local."""
        if self.local:
            import torch

            return torch.cuda.device_count()
        import ray

        return int(ray.cluster_resources().get("GPU", 0))

    @property
    def nodes(self) -> int:
        """Machines in the cluster that are alive."""
        if self.local:
            return 1
        import ray

        return sum(bool(node["Alive"]) for node in ray.nodes())

    def actor_options(self, environment: dict[str, str]) -> dict[str, Any]:
        """`ray.remote(...)` options of a learner rank: one GPU if the cluster has any."""
        return {
            "num_cpus": ACTOR_CPUS,
            "num_gpus": 1 if self.gpus else 0,
            "runtime_env": {"env_vars": environment},
        }


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Start Ray without letting it handle SIGINT and SIGTERM.

    A batch system signals every process of a job, and a terminal every process of its group.
    Ray's processes inherit the blocked mask and survive, because the driver needs them to finish
    its step and save. Ray's signal handler in the driver, which would end it at once, is removed.
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


class ActorsFailedError(RunError):
    """Some actors of a group call failed or did not reply; see `failures` and `silent`."""

    def __init__(self, text: str, failures: Mapping[int, BaseException], silent: Sequence[int]) -> None:
        super().__init__(text)
        self.failures = dict(failures)
        """By position: what the actor raised, or Ray's error when it died."""
        self.silent = tuple(silent)
        """Positions of the actors that did not reply."""

    @property
    def died(self) -> bool:
        """Whether an actor died or hangs; otherwise all replied, some with an error."""
        from ray.exceptions import RayError

        return bool(self.silent) or any(isinstance(failure, RayError) for failure in self.failures.values())


def gather(
    references: Sequence[Any], what: str, timeout_s: float | None, names: Sequence[str] | None = None
) -> list[Any]:
    """Results of remote calls in order; the first failure, or the deadline, ends the wait.

    Waiting for one call after the other would hang when one actor dies and the others wait for
    it in a collective. After a failure the others have a few seconds to reply, so that the error
    can name the dead, failed and silent actors.

    Args:
        references: the calls to wait for.
        what: the work, for the error's text.
        timeout_s: deadline for all calls; None for none.
        names: of the actors, for the error's text; default: their positions.

    Raises: the MorlError that an actor raised, else ActorsFailedError.
    """
    import ray

    until = None if timeout_s is None else time.monotonic() + timeout_s
    pending = list(references)
    late = failed = False
    while pending and not (late or failed):
        left = None if until is None else max(0.0, until - time.monotonic())
        done, pending = ray.wait(pending, num_returns=1, timeout=left)
        late = not done
        failed = bool(done) and _failure(done[0]) is not None
    if not (late or failed):
        return list(ray.get(list(references)))
    answered, _ = ray.wait(list(references), num_returns=len(references), timeout=ANSWER_S)
    causes = {place: _failure(reference) for place, reference in enumerate(references) if reference in answered}
    failures = {place: cause for place, cause in causes.items() if cause is not None}
    for cause in failures.values():
        if isinstance(cause, MorlError):
            raise cause
    silent = [place for place in range(len(references)) if place not in causes]
    labels = [str(place) for place in range(len(references))] if names is None else names
    reasons = [f"{labels[place]} {_reason(cause)}" for place, cause in failures.items()]
    if silent:
        # When another actor failed first they may only be waiting for it.
        since = f" within {timeout_s:g} s" if late and timeout_s is not None else ""
        reasons.insert(0, f"no answer{since} from {', '.join(labels[place] for place in silent)}")
    raise ActorsFailedError(f"{what}: {'; '.join(reasons)}", failures, silent) from next(iter(failures.values()), None)


def _failure(reference: Any) -> BaseException | None:
    """What a finished call raised in the actor, or Ray's error when the actor died; None when it succeeded."""
    import ray
    from ray.exceptions import RayError, RayTaskError

    cause: BaseException | None = None
    try:
        ray.get(reference)
    except RayTaskError as error:
        cause = error.cause if isinstance(error.cause, BaseException) else error.as_instanceof_cause()
    except RayError as error:
        cause = error
    return cause


def _reason(failure: BaseException) -> str:
    from ray.exceptions import RayError

    if isinstance(failure, RayError):
        # Ray's text is long and has several lines.
        return f"died: {' '.join(str(failure).split()):.400}"
    return f"failed: {type(failure).__name__}: {failure}"
