"""The learner as the training loop sees it: groups in, one optimiser step, weights out."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from morl.algorithms import ADVANTAGES
from morl.algorithms.aggregation import token_weights
from morl.cluster import Cluster
from morl.learner.group import Ranks, start_ranks
from morl.learner.packing import build_batch, plan_microbatches
from morl.learner.policy import PolicyRank, PolicySettings, combine
from morl.learner.schedule import learning_rate
from morl.registry import call_by_name
from morl.types import Batch, Group


class Learner:
    """A group of DeepSpeed ranks that hold one policy."""

    def __init__(self, settings: PolicySettings, ranks: Ranks, *, total_steps: int, max_new_tokens: int) -> None:
        self.settings = settings
        self.total_steps = total_steps
        self.max_new_tokens = max_new_tokens
        self.policy_version = 0
        """Optimiser steps taken so far."""
        self._ranks = ranks

    @classmethod
    def start(cls, settings: PolicySettings, cluster: Cluster, *, total_steps: int, max_new_tokens: int) -> Learner:
        """Start the ranks and load the model. Raises: RunError, UsageError."""
        ranks = start_ranks(PolicyRank, settings, cluster)
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
