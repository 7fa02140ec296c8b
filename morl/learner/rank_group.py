"""The processes of a learner: one rank in this process, or `learner.ranks` Ray actors."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Generic

from morl.cluster import ActorsFailedError, Cluster, gather
from morl.errors import CheckpointError, RunError, UsageError
from morl.learner.learning_rate import learning_rate
from morl.learner.packing import plan_microbatches
from morl.learner.rank import Rank, RankSettings, rank_environment
from morl.learner.rank_metrics import M, add_up
from morl.recipe import LearnerSpec
from morl.types import Batch


class LearnerDiedError(RunError):
    """A rank died or hangs; the group must be restarted from a checkpoint."""


class LearnerMemoryError(LearnerDiedError):
    """A rank ran out of memory."""


class RankGroup(ABC, Generic[M]):
    """The ranks that hold one model, in one process or several."""

    def __init__(self, spec: LearnerSpec) -> None:
        self._spec = spec

    @abstractmethod
    def call(self, method: str, *arguments: Any) -> list[Any]:
        """Call a method of every rank with the same arguments; returns results by rank. Raises: LearnerDiedError."""

    @abstractmethod
    def close(self) -> None:
        """Stop the ranks."""

    def call_on_rows(self, method: str, batch: Batch, *arguments: Any, budget: int | None = None) -> list[Any]:
        """Call a method of every rank with a batch and its micro-batch plan.

        Args:
            method: takes the batch, the plan, and `arguments`.
            batch: sent whole to every rank.
            arguments: further arguments of the method.
            budget: tokens of a micro-batch; by default `learner.tokens_per_microbatch`.

        Returns: results by rank.
        """
        plan = plan_microbatches(batch.lengths_B, budget or self._spec.tokens_per_microbatch, self._spec.ranks)
        return self.call(method, batch, plan, *arguments)

    def step(self, batch: Batch, number: int, total_steps: int) -> M:
        """Optimiser step `number`, counted from 1, of `total_steps`; returns the ranks' metrics, combined."""
        spec = self._spec
        rate = learning_rate(
            number, peak=spec.lr, warmup_steps=spec.warmup_steps, total_steps=total_steps, schedule=spec.schedule
        )
        parts: list[M] = self.call_on_rows("step", batch, rate)
        return add_up(parts)

    def nonfinite_rows(self, batch: Batch) -> list[int]:
        """Rows of a batch whose loss is not finite, computed one by one, without an update."""
        return sorted(row for part in self.call_on_rows("nonfinite_rows", batch, budget=1) for row in part)

    def saved(self) -> bool:
        """Whether the ranks' `save` has written everything; thread-safe.

        Raises: the writer's error; CheckpointError when a file is not visible from this node.
        """
        files: list[Path | None] = self.call("saved")
        for file in files:
            if file is not None and not file.is_file():
                raise CheckpointError(
                    f"{file}: written by a rank on another node, and not visible from this one: "
                    "run.dir must be a folder that all nodes share"
                )
        return None not in files


def start_rank_group(kind: type[Rank[M]], settings: RankSettings, cluster: Cluster) -> RankGroup[M]:
    """Start the ranks and load the model. Raises: LearnerDiedError, RunError, UsageError."""
    return _LocalRank(kind, settings, cluster) if cluster.local else _RayRanks(kind, settings, cluster)


class _LocalRank(RankGroup[M]):
    """The only rank, in this process."""

    def __init__(self, kind: type[Rank[M]], settings: RankSettings, cluster: Cluster) -> None:
        super().__init__(settings.learner)
        if settings.learner.ranks != 1:
            raise UsageError(f"--local runs one learner rank; learner.ranks is {settings.learner.ranks}")
        port = _free_port()
        os.environ |= rank_environment(0, 1, "127.0.0.1", port, threads=cluster.cpus, gpu=cluster.gpus > 0)
        self._rank = kind(settings)

    def call(self, method: str, *arguments: Any) -> list[Any]:
        try:
            return [getattr(self._rank, method)(*arguments)]
        except Exception as error:
            if not _out_of_memory(error):
                raise
            raise LearnerMemoryError(f"learner.{method}: {error}") from error

    def close(self) -> None:
        self._rank.close()


class _RayRanks(RankGroup[M]):
    """Ranks as Ray actors in one placement group."""

    def __init__(self, kind: type[Rank[M]], settings: RankSettings, cluster: Cluster) -> None:
        super().__init__(settings.learner)
        import ray
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        count, gpu = settings.learner.ranks, cluster.gpus > 0
        wait_s = cluster.spec.start_timeout_s
        resources = cluster.actor_options({})
        bundle = {"CPU": resources["num_cpus"], "GPU": resources["num_gpus"]}
        self._group = placement_group([{key: size for key, size in bundle.items() if size}] * count, strategy="PACK")
        ready, _ = ray.wait([self._group.ready()], timeout=wait_s)
        if not ready:
            ray.util.remove_placement_group(self._group)
            raise RunError(
                f"learner.ranks={count}: the cluster has no room for {count} x {bundle} after {wait_s:g} s; "
                f"it has {ray.cluster_resources()}, free {ray.available_resources()}"
            )
        at = [PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=i) for i in range(count)]
        find_port = ray.remote(_address_and_port).options(num_cpus=0, scheduling_strategy=at[0])
        self._actors: list[Any] = []
        self._names = [f"rank {rank}" for rank in range(count)]
        # Several ranks notice a stuck one after their own timeout; the timeout of the whole call must be longer.
        self._timeout_s = settings.learner.timeout_s * (1 if count == 1 else 2)
        try:
            [(address, port)] = gather([find_port.remote()], "finding a port for the learner", wait_s)
            if cluster.spec.address == "local":
                address = "127.0.0.1"
            threads = max(1, cluster.cpus // count)
            actor = ray.remote(RankProcess)
            for rank in range(count):
                environment = rank_environment(rank, count, address, port, threads=threads, gpu=gpu)
                options = {"scheduling_strategy": at[rank], **cluster.actor_options(environment)}
                self._actors.append(actor.options(**options).remote())
            what = f"starting the learner (cluster.start_timeout_s={wait_s:g})"
            processes = self._call_actors(what, wait_s, "node_and_pid")
            self._names = [f"rank {rank} (pid {pid} on {node})" for rank, (node, pid) in enumerate(processes)]
            self._call_actors(what, wait_s, "start", kind, settings)
        except BaseException:
            self.close()
            raise

    def call(self, method: str, *arguments: Any) -> list[Any]:
        return self._call_actors(f"learner.{method}", self._timeout_s, "call", method, *arguments)

    def _call_actors(self, what: str, timeout_s: float, method: str, *arguments: Any) -> list[Any]:
        import ray

        shared = [ray.put(argument) for argument in arguments]
        references = [getattr(actor, method).remote(*shared) for actor in self._actors]
        try:
            return gather(references, what, timeout_s, self._names)
        except ActorsFailedError as error:
            if method == "call" and any(map(_out_of_memory, error.failures.values())):
                raise LearnerMemoryError(str(error)) from error
            if method == "call" or error.died:
                raise LearnerDiedError(str(error)) from error
            raise

    def close(self) -> None:
        import ray

        for actor in self._actors:
            # The node kills a stopped or hanging actor a few seconds later.
            ray.kill(actor)
        ray.util.remove_placement_group(self._group)


class RankProcess:
    """The Ray actor of a rank."""

    _rank: Rank[Any]

    def node_and_pid(self) -> tuple[str, int]:
        """Address of the node, and process id."""
        import ray

        return ray.util.get_node_ip_address(), os.getpid()

    def start(self, kind: type[Rank[Any]], settings: RankSettings) -> None:
        """Load the model, outside the constructor: Ray reports a constructor's error as a dead actor."""
        self._rank = kind(settings)

    def call(self, method: str, *arguments: Any) -> Any:
        """Call a method of the rank."""
        return getattr(self._rank, method)(*arguments)


def _out_of_memory(error: BaseException) -> bool:
    """Whether an error means that GPU or host ran out of memory, or that Ray killed the process to free some."""
    import torch

    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    message = str(error)
    return "DefaultCPUAllocator: can't allocate memory" in message or "running low on memory" in message


def _free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("", 0))
        port: int = listener.getsockname()[1]
    return port


def _address_and_port() -> tuple[str, int]:
    """Address and port for the process group; runs on rank 0's node."""
    import ray

    return ray.util.get_node_ip_address(), _free_port()
