"""The learner as the training loop sees it: groups in, one optimiser step, weights out."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from morl.algorithms import ADVANTAGES
from morl.algorithms.aggregation import token_weights
from morl.cluster import Cluster
from morl.learner.group import Ranks, start_ranks
from morl.learner.packing import build_batch, plan_microbatches
from morl.learner.policy import PolicyRank, PolicySettings, combine
from morl.learner.schedule import learning_rate
from morl.registry import call_by_name, wanted_arguments
from morl.types import Batch, Group


class Learner:
    """A group of DeepSpeed ranks that hold one policy."""

    def __init__(self, settings: PolicySettings, ranks: Ranks, *, total_steps: int, max_new_tokens: int) -> None:
        self.settings = settings
        self.total_steps = total_steps
        self.max_new_tokens = max_new_tokens
        self.policy_version = 0
        """Optimiser steps taken so far."""
        self._advantage_state: dict[str, Any] = {}
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
        inputs = advantage_inputs(groups, self.settings.objectives)
        advantage = ADVANTAGES.load(algorithm.advantage.use)
        found = call_by_name(advantage, {**inputs, "state": self._advantage_state}, algorithm.advantage.options)
        if "state" in wanted_arguments(advantage):
            found, self._advantage_state = found
        advantages_PG: torch.Tensor = found
        rewards_PG = inputs["rewards_PG"]
        lengths_PG = torch.zeros(rewards_PG.shape, dtype=torch.long)
        for p, group in enumerate(groups):
            lengths_PG[p, : len(group.samples_G)] = torch.tensor([sample.length for sample in group.samples_G])
        scored_PG = ~rewards_PG.isnan()
        weights_PG = token_weights(lengths_PG, scored_PG, algorithm.aggregation, self.max_new_tokens)
        return build_batch(groups, advantages_PG, weights_PG, share=self.settings.learner.share_prefix)

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

    def save(self, folder: Path) -> dict[str, Any]:
        """Save everything that `load` needs to go on exactly here; returns the part that is plain JSON."""
        self._ranks.call("save", folder)
        return {"policy_version": self.policy_version, "advantage": self._advantage_state}

    def load(self, folder: Path, state: Mapping[str, Any]) -> None:
        """Go on from what `save` wrote, and returned."""
        self._ranks.call("load", folder)
        self.policy_version = state["policy_version"]
        self._advantage_state = dict(state.get("advantage", {}))

    def close(self) -> None:
        """End the ranks."""
        self._ranks.close()


def advantage_inputs(groups: Sequence[Group], objectives: Sequence[str]) -> dict[str, torch.Tensor]:
    """What an advantage may ask for by name.

    Args:
        groups: may differ in size; a missing sample is like one without a score.
        objectives: names in the order of their numbers.

    Returns: `rewards_PG`, NaN where there is no score; `objectives_P`; `terms_PGK`, what each term entered the
    mixture with; and `term_weights_PK`, 0 where an objective has fewer terms.
    """
    numbers = {name: number for number, name in enumerate(objectives)}
    width = max(len(group.samples_G) for group in groups)
    deepest = max((len(score.terms) for group in groups for score in group.scores_G), default=0)
    rewards_PG = torch.full((len(groups), width), math.nan, dtype=torch.float64)
    terms_PGK = torch.full((len(groups), width, deepest), math.nan, dtype=torch.float64)
    weights_PK = torch.zeros((len(groups), deepest), dtype=torch.float64)
    for p, group in enumerate(groups):
        for g, score in enumerate(group.scores_G):
            rewards_PG[p, g] = math.nan if score.value is None else score.value
            for k, term in enumerate(score.terms.values()):
                terms_PGK[p, g, k] = math.nan if term.entered is None else term.entered
                weights_PK[p, k] = term.weight
    objectives_P = torch.tensor([numbers.setdefault(group.prompt.objective, len(numbers)) for group in groups])
    def publish_adapter(self, folder: Path) -> None:
        """Write the current LoRA adapter alone, as a folder that engines load on top of the model they began with."""
        self._ranks.call("publish_adapter", folder, self.policy_version)

    def adapted_layers(self) -> list[str]:
        """Names of the layers with a LoRA adapter."""
        layers: list[str] = self._ranks.call("adapted_layers")[0]
        return layers

    return {
        "rewards_PG": rewards_PG,
        "objectives_P": objectives_P,
        "terms_PGK": terms_PGK,
        "term_weights_PK": weights_PK,
    }
