"""The learner's interface for the training loop: groups in, one optimiser step, weights out."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from morl.algorithms import token_weights
from morl.cluster import Cluster
from morl.learner.critic import Critic, token_inputs, with_token_advantages
from morl.learner.packing import build_batch
from morl.learner.policy import PolicySettings
from morl.learner.policy_rank import PolicyMetrics, PolicyRank, policy_metrics
from morl.learner.rank import RankSettings
from morl.learner.rank_group import RankGroup, start_rank_group
from morl.learner.rows import group_rows
from morl.recipe import AlgorithmSpec
from morl.registry import ADVANTAGES, call_by_name, wanted_arguments
from morl.types import Batch, Group

if TYPE_CHECKING:
    from morl.sync import Link

logger = logging.getLogger(__name__)


class Learner:
    """A group of DeepSpeed ranks that hold the policy, and another one for the critic if there is one."""

    def __init__(
        self,
        settings: PolicySettings,
        ranks: RankGroup[PolicyMetrics],
        *,
        total_steps: int,
        max_new_tokens: int,
        critic: Critic | None = None,
    ) -> None:
        self.settings = settings
        self.total_steps = total_steps
        self.max_new_tokens = max_new_tokens
        self.policy_version = 0
        """Optimiser steps taken so far."""
        self._advantage_state: dict[str, Any] = {}
        self._ranks = ranks
        self._critic = critic

    @classmethod
    def start(
        cls,
        settings: PolicySettings,
        cluster: Cluster,
        *,
        total_steps: int,
        max_new_tokens: int,
        critic: RankSettings | None = None,
    ) -> Learner:
        """Start the ranks of policy and critic, and load the models. Raises: RunError, UsageError."""
        ranks = start_rank_group(PolicyRank, settings, cluster)
        try:
            started = None if critic is None else Critic.start(critic, cluster, total_steps=total_steps)
        except BaseException:
            ranks.close()
            raise
        return cls(settings, ranks, total_steps=total_steps, max_new_tokens=max_new_tokens, critic=started)

    def batch(self, groups: Sequence[Group]) -> Batch:
        """The tensors of an update: advantages, aggregation weights, rows.

        Groups may differ in size; a missing sample counts as one without a score.
        """
        algorithm = self.settings.algorithm
        inputs = advantage_inputs(groups, self.settings.objectives)
        rewards_PG = inputs["rewards_PG"]
        lengths_PG = torch.zeros(rewards_PG.shape, dtype=torch.long)
        for p, group in enumerate(groups):
            lengths_PG[p, : len(group.samples_G)] = torch.tensor([sample.length for sample in group.samples_G])
        scored_PG = ~rewards_PG.isnan()
        weights_PG = token_weights(lengths_PG, scored_PG, algorithm.aggregation, self.max_new_tokens)
        share = self.settings.learner.share_prefix
        if self._critic is None:
            (advantages_PG,) = self._advantages(inputs)
            keep_zeros = needs_zeros(algorithm)
            return build_batch(group_rows(groups, advantages_PG, weights_PG, share=share, keep_zeros=keep_zeros))
        # Rewards take the place of the advantages, which need the critic's values.
        batch = build_batch(group_rows(groups, rewards_PG.nan_to_num(), weights_PG, share=share, keep_zeros=True))
        by_token = token_inputs(batch, self._critic.values(batch), inputs["objectives_P"])
        return with_token_advantages(batch, by_token["mask_BT"], *self._advantages({**inputs, **by_token}))

    def _advantages(self, inputs: Mapping[str, torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """The outputs of the recipe's advantage; its state is kept and not returned."""
        spec = self.settings.algorithm.advantage
        advantage = ADVANTAGES.load(spec.use)
        outputs = call_by_name(advantage, {**inputs, "state": self._advantage_state}, spec.options)
        if "state" in wanted_arguments(advantage):
            *outputs, self._advantage_state = outputs
        return tuple(outputs) if isinstance(outputs, list | tuple) else (outputs,)

    def step(self, batch: Batch) -> dict[str, float]:
        """Exactly one optimiser step of the policy, and one of the critic; returns the step's metrics."""
        critic_metrics = None if self._critic is None else self._critic.begin_step(batch, self.policy_version + 1)
        began = time.perf_counter()
        total = self._ranks.step(batch, self.policy_version + 1, self.total_steps)
        self.policy_version += 1
        seconds = time.perf_counter() - began
        metrics = policy_metrics(total, self.settings.algorithm)
        if critic_metrics is not None:
            metrics |= critic_metrics()
        return metrics | {
            "learner/lr": total.learning_rate,
            "learner/rows": float(batch.rows),
            "learner/microbatches": total.microbatches,
            "learner/tokens_per_s": len(batch.token_ids_T) / seconds,
            "time/learner_s": seconds,
        }

    def nonfinite_rows(self, batch: Batch) -> list[int]:
        """Rows of a batch whose loss is not finite, computed one by one, without an update."""
        return self._ranks.nonfinite_rows(batch)

    def publish(self, folder: Path) -> None:
        """Write the current weights as a checkpoint folder that engines can load."""
        self._ranks.call("publish", folder, self.policy_version)

    def publish_adapter(self, folder: Path) -> None:
        """Write the current LoRA adapter as a folder that engines load on top of the initial model."""
        self._ranks.call("publish_adapter", folder, self.policy_version)

    def send_weights(self, link: Link) -> None:
        """Send the current weights to the engines behind `link`."""
        self._ranks.call("send_weights", link, self.policy_version)

    def adapted_outside(self) -> list[str]:
        """Names of the layers with a LoRA adapter that lie outside of the language model."""
        layers: list[str] = self._ranks.call("adapted_outside")[0]
        return layers

    def save(self, folder: Path, *, background: bool = False) -> dict[str, Any]:
        """Save all state that `load` needs to resume exactly; returns the part that is plain JSON.

        In the background the ranks write while the next step runs, until `saved`.
        """
        self._ranks.call("save", folder, background)
        if self._critic is not None:
            self._critic.save(folder / "critic", background)
        return {"policy_version": self.policy_version, "advantage": self._advantage_state}

    def saved(self) -> bool:
        """Whether `save` has written everything; thread-safe. Raises: the writer's error."""
        return self._ranks.saved() and (self._critic is None or self._critic.saved())

    def load(self, folder: Path, state: Mapping[str, Any]) -> None:
        """Resume from what `save` wrote and returned. Raises: CheckpointError when it does not fit."""
        writers, ranks = self._ranks.call("load", folder)[0], self.settings.learner.ranks
        if writers != ranks:
            logger.info(
                "'%s' was written by %d rank(s) and is read by %d: random numbers restart from seed, step and rank",
                folder,
                writers,
                ranks,
            )
        if self._critic is not None:
            self._critic.load(folder / "critic")
        self.policy_version = state["policy_version"]
        self._advantage_state = dict(state.get("advantage", {}))

    def close(self) -> None:
        """Stop the ranks."""
        self._ranks.close()
        if self._critic is not None:
            self._critic.close()


def needs_zeros(algorithm: AlgorithmSpec) -> bool:
    """Whether samples with advantage 0 take part in the update.

    They do with a KL term, and where a mask takes tokens out of a denominator that samples share.
    """
    shared = algorithm.aggregation in ("prompt_tokens", "batch_tokens")
    return algorithm.kl is not None or (algorithm.importance.kind == "masked" and shared)


def advantage_inputs(groups: Sequence[Group], objectives: Sequence[str]) -> dict[str, torch.Tensor]:
    """Inputs of an advantage, by parameter name.

    Args:
        groups: may differ in size; a missing sample counts as one without a score.
        objectives: names in the order of their numbers.

    Returns: `rewards_PG`, NaN where there is no score; `objectives_P`; `terms_PGK`, each term's value in the
    mixture; and `term_weights_PK`, 0 where an objective has fewer terms.
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
    return {
        "rewards_PG": rewards_PG,
        "objectives_P": objectives_P,
        "terms_PGK": terms_PGK,
        "term_weights_PK": weights_PK,
    }
