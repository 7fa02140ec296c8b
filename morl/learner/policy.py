"""The policy as the learner runs it: log-probabilities of answer tokens, and one policy-gradient step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from morl.algorithms import LOSSES
from morl.algorithms.importance import truncated
from morl.learner.body import last_hidden_states
from morl.learner.head import make_lean
from morl.learner.packing import Microbatch
from morl.learner.rank import Rank, RankSettings
from morl.model import load_policy
from morl.recipe import AlgorithmSpec, Recipe
from morl.registry import call_by_name, wanted_arguments


class Policy(torch.nn.Module):
    """Wraps a causal language model of transformers.

    Only hidden states from which a token is predicted go through the vocabulary, each of
    them once, and never all at a time.
    """

    def __init__(self, model: Any, *, temperature: float, banned_token_ids: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.banned_token_ids = list(banned_token_ids)
        make_lean(self.language_model.get_output_embeddings())

    @property
    def language_model(self) -> Any:
        """The transformers model, with LoRA layers in place if there are any."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    def forward(self, micro: Microbatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability of each target and entropy of its distribution, in nats.

        The distribution is the one that rollouts are drawn from: banned tokens left out,
        logits divided by the temperature.

        Returns: `(logprobs_N, entropy_N)`, float32; the entropy carries no gradient.
        """
        whole = self.language_model
        hidden_BLH = last_hidden_states(whole, micro)
        hidden_UH = hidden_BLH.flatten(0, 1)[micro.sources_U]
        logprobs_N, entropy_U = whole.get_output_embeddings()(
            hidden_UH,
            micro.source_of_N,
            micro.targets_N,
            banned_token_ids=self.banned_token_ids,
            temperature=self.temperature,
        )
        return logprobs_N, entropy_U[micro.source_of_N]


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySettings(RankSettings):
    """What a rank of a policy must know besides."""

    algorithm: AlgorithmSpec
    temperature: float
    banned_token_ids: tuple[int, ...]
    objectives: tuple[str, ...] = ()
    """Names in the recipe's order, by which advantages number them."""

    @classmethod
    def of(cls, recipe: Recipe, model: Path, banned_token_ids: tuple[int, ...]) -> PolicySettings:
        """What `recipe` says of the learner."""
        return cls(
            model=model,
            dtype=recipe.model.dtype,
            learner=recipe.learner,
            seed=recipe.run.seed,
            plugins=tuple(recipe.plugins),
            algorithm=recipe.algorithm,
            temperature=recipe.rollout.temperature,
            banned_token_ids=banned_token_ids,
            objectives=tuple(recipe.objectives),
        )


class PolicyRank(Rank):
    """A rank that learns from advantages."""

    settings: PolicySettings
    sums = ("tokens", "loss", "entropy", "mismatch", "mismatch_max", "importance")

    def __init__(self, settings: PolicySettings) -> None:
        super().__init__(settings)
        self.loss = LOSSES.load(settings.algorithm.loss.use)

    def _load(self) -> Any:
        return load_policy(self.settings.model, self.settings.dtype)

    def _module(self, model: Any) -> Policy:
        return Policy(model, temperature=self.settings.temperature, banned_token_ids=self.settings.banned_token_ids)

    def _accumulate(self, micro: Microbatch) -> dict[str, float]:
        logprobs_N, entropy_N = self.engine(micro)
        inputs = {
            "logprobs_N": logprobs_N,
            "rollout_logprobs_N": micro.rollout_logprobs_N,
            "advantages_N": micro.advantages_N,
            "sequence_N": micro.sequence_N,
        }
        algorithm = self.settings.algorithm
        loss_N = call_by_name(self.loss, inputs, algorithm.loss.options)
        importance_N = truncated(logprobs_N, micro.rollout_logprobs_N, algorithm.importance.cap)
        corrects_itself = "rollout_logprobs_N" in wanted_arguments(self.loss)
        if algorithm.importance.kind == "truncated" and not corrects_itself:
            loss_N = loss_N * importance_N
        loss = (loss_N * micro.weights_N).sum()
        # DeepSpeed averages gradients over ranks; the weights already make a sum.
        self.engine.backward(loss * self.ranks)
        difference_N = (logprobs_N.detach() - micro.rollout_logprobs_N).abs()
        return {
            "tokens": float(len(difference_N)),
            "loss": float(loss.detach()),
            "entropy": float(entropy_N.sum()),
            "mismatch": float(difference_N.sum()),
            "mismatch_max": float(difference_N.max()) if len(difference_N) else 0.0,
            "importance": float(importance_N.sum()),
        }


def combine(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The ranks' sums as the step's metrics.

    `policy/logprob_mismatch` is the mean of `|log pi_learner - log pi_rollout|`, in nats. Tokens are those the
    step learned from: a group without signal is not computed.
    """
    tokens = max(1.0, sum(part["tokens"] for part in parts))

    def mean(name: str) -> float:
        return sum(part[name] for part in parts) / tokens

    return {
        "learner/loss": sum(part["loss"] for part in parts),
        "learner/grad_norm": parts[0]["grad_norm"],
        "learner/tokens": tokens,
        "policy/entropy": mean("entropy"),
        "policy/logprob_mismatch": mean("mismatch"),
        "policy/logprob_mismatch_max": max(part["mismatch_max"] for part in parts),
        "policy/importance_weight": mean("importance"),
    }
