"""The learner as the training loop sees it: groups in, one optimiser step, weights out."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import torch

from morl.algorithms import ADVANTAGES
from morl.algorithms.aggregation import token_weights
from morl.cluster import Cluster, gather
from morl.errors import RunError, UsageError
from morl.learner.packing import build_batch, plan_microbatches
from morl.learner.rank import LearnerRank, RankSettings, combine, rank_environment
from morl.learner.schedule import learning_rate
from morl.registry import call_by_name
from morl.types import Batch, Group


class LearnerDiedError(RunError):
    """A rank is gone; the group must be started again from a checkpoint."""


class _Ranks(Protocol):
    def call(self, method: str, *arguments: Any) -> list[Any]: ...
    def close(self) -> None: ...


class Learner:
    """A group of DeepSpeed ranks that hold one policy."""

    def __init__(self, settings: RankSettings, ranks: _Ranks, *, total_steps: int, max_new_tokens: int) -> None:
        self.settings = settings
        self.total_steps = total_steps
        self.max_new_tokens = max_new_tokens
        self.policy_version = 0
        """Optimiser steps taken so far."""
        self._ranks = ranks

    @classmethod
    def start(cls, settings: RankSettings, cluster: Cluster, *, total_steps: int, max_new_tokens: int) -> Learner:
        """Start the ranks and load the model. Raises: RunError, UsageError."""
        ranks: _Ranks = _LocalRank(settings, cluster) if cluster.local else _RayRanks(settings, cluster)
        return cls(settings, ranks, total_steps=total_steps, max_new_tokens=max_new_tokens)

    def batch(self, groups: Sequence[Group]) -> Batch:
        """The tensors of an update: advantages, aggregation weights, rows.

        Groups may differ in size; a missing sample is like one without a score.
        """
        algorithm = self.settings.algorithm
        width = max(len(group.samples_G) for group in groups)
        rewards_PG = torch.full((len(groups), width), math.nan, dtype=torch.float64)
        lengths_PG = torch.zeros((len(groups), width), dtype=torch.long)
        for p, group in enumerate(groups):
            for g, (sample, value) in enumerate(zip(group.samples_G, group.values_G, strict=True)):
                rewards_PG[p, g] = math.nan if value is None else value
                lengths_PG[p, g] = sample.length
        scored_PG = ~rewards_PG.isnan()
        advantages_PG = call_by_name(
            ADVANTAGES.load(algorithm.advantage.use), {"rewards_PG": rewards_PG}, algorithm.advantage.options
        )
        weights_PG = token_weights(lengths_PG, scored_PG, algorithm.aggregation, self.max_new_tokens)
        return build_batch(groups, advantages_PG, weights_PG)

    def step(self, batch: Batch) -> dict[str, float]:
        """Exactly one optimiser step; returns the step's metrics."""
        began = time.perf_counter()
        spec = self.settings.learner
        lengths_B = batch.row_starts_B1.diff().tolist()
        plan = plan_microbatches(lengths_B, spec.tokens_per_microbatch, spec.ranks)
        rate = learning_rate(
            self.policy_version + 1,
            peak=spec.lr,
            warmup_steps=spec.warmup_steps,
            total_steps=self.total_steps,
            schedule=spec.schedule,
        )
        metrics = combine(self._ranks.call("step", batch, plan, rate))
        self.policy_version += 1
        seconds = time.perf_counter() - began
        return metrics | {
            "learner/lr": rate,
            "learner/rows": float(batch.rows),
            "learner/microbatches": float(sum(len(own) for own in plan)),
            "learner/tokens_per_s": len(batch.token_ids_T) / seconds,
            "time/learner_s": seconds,
        }

    def publish(self, folder: Path) -> None:
        """Write the current weights as a checkpoint folder that engines can load."""
        self._ranks.call("publish", folder, self.policy_version)

    def save(self, folder: Path) -> None:
        """Save everything that `load` needs to go on exactly here."""
        self._ranks.call("save", folder)

    def load(self, folder: Path, policy_version: int) -> None:
        """Go on from what `save` wrote."""
        self._ranks.call("load", folder)
        self.policy_version = policy_version

    def close(self) -> None:
        """End the ranks."""
        self._ranks.close()


class _LocalRank:
    """The only rank, in this process."""

    def __init__(self, settings: RankSettings, cluster: Cluster) -> None:
        import os

        if settings.learner.ranks != 1:
            raise UsageError(f"--local runs one learner rank; learner.ranks is {settings.learner.ranks}")
        port = _free_port()
        os.environ |= rank_environment(0, 1, "127.0.0.1", port, threads=cluster.cpus, gpu=cluster.gpus > 0)
        self._rank = LearnerRank(settings)

    def call(self, method: str, *arguments: Any) -> list[Any]:
        return [getattr(self._rank, method)(*arguments)]

    def close(self) -> None:
        self._rank.close()


class _RayRanks:
    """Ranks as Ray actors in one placement group."""

    def __init__(self, settings: RankSettings, cluster: Cluster) -> None:
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
        actor = ray.remote(LearnerRank)
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
