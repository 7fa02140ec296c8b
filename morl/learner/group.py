"""The processes of a learner: one rank here, or as many as the recipe says as Ray actors."""

from __future__ import annotations

from typing import Any, Protocol

from morl.cluster import Cluster, gather
from morl.errors import RunError, UsageError
from morl.learner.rank import Rank, RankSettings, rank_environment


class LearnerDiedError(RunError):
    """A rank is gone; the group must be started again from a checkpoint."""


class Ranks(Protocol):
    """A group of ranks that does everything together."""

    def call(self, method: str, *arguments: Any) -> list[Any]:
        """Call a method of every rank with the same arguments; the results by rank. Raises: LearnerDiedError."""

    def close(self) -> None:
        """End the ranks."""


def start_ranks(kind: type[Rank], settings: RankSettings, cluster: Cluster) -> Ranks:
    """Start the ranks and load the model. Raises: RunError, UsageError."""
    return _LocalRank(kind, settings, cluster) if cluster.local else _RayRanks(kind, settings, cluster)


class _LocalRank:
    """The only rank, in this process."""

    def __init__(self, kind: type[Rank], settings: RankSettings, cluster: Cluster) -> None:
        import os

        if settings.learner.ranks != 1:
            raise UsageError(f"--local runs one learner rank; learner.ranks is {settings.learner.ranks}")
        port = _free_port()
        os.environ |= rank_environment(0, 1, "127.0.0.1", port, threads=cluster.cpus, gpu=cluster.gpus > 0)
        self._rank = kind(settings)

    def call(self, method: str, *arguments: Any) -> list[Any]:
        return [getattr(self._rank, method)(*arguments)]

    def close(self) -> None:
        self._rank.close()


class _RayRanks:
    """Ranks as Ray actors in one placement group."""

    def __init__(self, kind: type[Rank], settings: RankSettings, cluster: Cluster) -> None:
        import ray
        from ray.util.placement_group import placement_group
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        count, gpu = settings.learner.ranks, cluster.gpus > 0
        wait_s = cluster.spec.start_timeout_s
        need = cluster.actor_options({})
        bundle = {"CPU": need["num_cpus"], "GPU": need["num_gpus"]}
        self._group = placement_group([{key: size for key, size in bundle.items() if size}] * count, strategy="PACK")
        ready, _ = ray.wait([self._group.ready()], timeout=wait_s)
        if not ready:
            ray.util.remove_placement_group(self._group)
            raise RunError(
                f"learner.ranks={count}: the cluster has no room for {count} x {bundle} after {wait_s:g} s; "
                f"it has {ray.cluster_resources()}, free {ray.available_resources()}"
            )
        at = [PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=i) for i in range(count)]
        where = ray.remote(_address_and_port)
        address, port = ray.get(where.options(num_cpus=0, scheduling_strategy=at[0]).remote(), timeout=wait_s)
        if cluster.spec.address == "local":
            address = "127.0.0.1"
        threads = max(1, cluster.cpus // count)
        actor = ray.remote(kind)
        self._actors = [
            actor.options(
                scheduling_strategy=at[rank],
                **cluster.actor_options(rank_environment(rank, count, address, port, threads=threads, gpu=gpu)),
            ).remote(settings)
            for rank in range(count)
        ]
        gather([actor.ready.remote() for actor in self._actors], "starting learner rank", wait_s)

    def call(self, method: str, *arguments: Any) -> list[Any]:
        import ray

        shared = [ray.put(argument) for argument in arguments]
        try:
            return gather([getattr(actor, method).remote(*shared) for actor in self._actors], f"learner.{method}", None)
        except RunError as error:
            raise LearnerDiedError(str(error)) from error

    def close(self) -> None:
        import ray

        for actor in self._actors:
            ray.kill(actor)
        ray.util.remove_placement_group(self._group)


def _free_port() -> int:
    import socket

    with socket.socket() as listener:
        listener.bind(("", 0))
        port: int = listener.getsockname()[1]
    return port


def _address_and_port() -> tuple[str, int]:
    """Where rank 0's process group can listen; runs on rank 0's node."""
    import ray

    return ray.util.get_node_ip_address(), _free_port()
