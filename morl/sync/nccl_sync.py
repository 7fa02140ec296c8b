"""Weight sync from GPU to GPU: rank 0 of the learner broadcasts to every worker of every vLLM engine.

Written for vLLM 0.32 and its weight transfer (`vllm.distributed.weight_transfer`), with one engine per actor.
The content and order of its messages are tested without a GPU; the broadcast itself has not been run.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from morl.errors import RunError, StaleWeightsError

TIMEOUT_S = 600.0
"""Of each call to an engine."""


@dataclass(frozen=True, slots=True)
class Link:
    """The engines of one NCCL group."""

    number: int
    """Counts groups: a new one is needed whenever an engine was restarted."""
    timeout_s: float
    """Of each call to an engine."""
    workers: tuple[int, ...] = field(compare=False)
    """Number of workers of each engine: its tensor parallel size."""
    engines: tuple[Any, ...] = field(compare=False, repr=False)
    """Actor handles."""

    def sender(self, rank: int, source: Any) -> Sender:
        """The learner rank's end of the link, which sends the weights of `source`. Collective."""
        return Sender(self, rank, source)


class Publisher(Protocol):
    """What the sync needs of the learner."""

    policy_version: int

    def publish(self, folder: Path) -> None: ...  # noqa: D102

    def send_weights(self, link: Link) -> None: ...  # noqa: D102


class Subscriber(Protocol):
    """What the sync needs of the engines."""

    async def actors(self) -> list[Any]: ...  # noqa: D102

    async def policy_version(self) -> int: ...  # noqa: D102

    def restart_from(self, folder: Callable[[], str]) -> None: ...  # noqa: D102


class NcclSync:
    """Publishes each policy version by broadcast; an engine that replaces a dead one reads it below `root`."""

    def __init__(self, root: Path, *, workers: int) -> None:
        self.root = root
        self.workers = workers
        self._link: Link | None = None
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)

    async def publish(self, learner: Publisher, engines: Subscriber) -> float:
        """Bring the engines to the learner's version; returns the seconds that it took.

        Raises: StaleWeightsError when an engine then reports another version.
        """
        began = time.perf_counter()
        actors = tuple(await engines.actors())
        if self._link is None or self._link.engines != actors:
            number = 0 if self._link is None else self._link.number + 1
            self._link = Link(number, TIMEOUT_S, (self.workers,) * len(actors), actors)
        learner.send_weights(self._link)
        served = await engines.policy_version()
        if served != learner.policy_version:
            raise StaleWeightsError(
                f"after a weight sync an engine serves policy version {served}, the learner is at "
                f"{learner.policy_version}; use sync.kind=disk"
            )
        engines.restart_from(lambda: self._folder(learner))
        return time.perf_counter() - began

    def _folder(self, learner: Publisher) -> str:
        """The folder of the learner's weights, written on the first call."""
        folder = self.root / f"v{learner.policy_version:06d}"
        if not folder.exists():
            shutil.rmtree(self.root, ignore_errors=True)
            self.root.mkdir(parents=True)
            learner.publish(folder)
        return str(folder)

    def close(self) -> None:
        """Remove the weights written for restarted engines."""
        shutil.rmtree(self.root, ignore_errors=True)


class EngineClient:
    """Rank 0's calls to the engines: a `VLLMWeightSyncClient` over their actor handles.

    Every call goes to all engines at once and must return within the link's timeout.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self.policy_version = 0
        """Version of the weights being sent."""

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        """Have every worker join the group, numbered across all engines, after rank 0."""
        before = [sum(self.link.workers[:i]) for i in range(len(self.link.workers))]
        self._call("init", [({**init_info, "rank_offset": init_info["rank_offset"] + offset},) for offset in before])

    def start_weight_update(self) -> None:
        """Have the workers prepare to receive weights."""
        self._call("start", [()] * len(self.link.engines))

    def update_weights(self, update_info: Any) -> None:
        """Have the workers receive the tensors that `update_info` lists by name, dtype and shape."""
        self._call("update", [(update_info,)] * len(self.link.engines))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """Have the engines serve the received weights as the sent version."""
        self._call("finish", [(self.policy_version,)] * len(self.link.engines))

    def _call(self, stage: str, arguments: list[tuple[Any, ...]]) -> None:
        import ray

        calls = [
            engine.receive_weights.remote(stage, *args)
            for engine, args in zip(self.link.engines, arguments, strict=True)
        ]
        try:
            ray.get(calls, timeout=self.link.timeout_s)
        except ray.exceptions.GetTimeoutError as error:
            timeout = f"{self.link.timeout_s:g} s"
            raise RunError(f"sync.kind nccl: an engine did not answer '{stage}' within {timeout}") from error


class Sender:
    """A rank's end of the link. All ranks gather weights, rank 0 sends them."""

    def __init__(self, link: Link, rank: int, source: Any) -> None:
        """Join the group (collective). `source`: see `morl.learner.merged_weights.CheckpointSource`."""
        from vllm.distributed.weight_transfer import WeightTransferTrainerFactory
        from vllm.distributed.weight_transfer.nccl_engine import NCCLTrainerInitInfo

        address, port = _own_address() if rank == 0 else ("", 0)
        info = NCCLTrainerInitInfo(
            rank=rank, master_address=address, master_port=port, world_size=1 + sum(link.workers)
        )
        self.link = link
        self._client = EngineClient(link)
        self._engine = WeightTransferTrainerFactory.trainer_init(info, client=self._client, source=source)

    def send(self, policy_version: int) -> None:
        """Send the source's weights as version `policy_version`."""
        self._client.policy_version = policy_version
        self._engine.send_weights()

    def close(self) -> None:
        """Leave the group."""
        self._engine.shutdown()


def _own_address() -> tuple[str, int]:
    """Address of this node, and a free port."""
    import socket

    import ray

    with socket.socket() as listener:
        listener.bind(("", 0))
        port: int = listener.getsockname()[1]
    return ray.util.get_node_ip_address(), port
