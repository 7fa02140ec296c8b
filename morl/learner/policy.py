"""The policy in the learner: from a micro-batch to the log-probabilities of its response tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from morl.learner.hidden_states import last_hidden_states
from morl.learner.lm_head import make_lean
from morl.learner.packing import Microbatch
from morl.learner.rank import RankSettings
from morl.model import resolve_model
from morl.recipe import AlgorithmSpec, Recipe


class Policy(torch.nn.Module):
    """Wraps a causal language model of transformers.

    Only hidden states that predict a target go through the head, each of them once, in chunks.
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

        The distribution is the one that rollouts are sampled from: without banned tokens, and
        with logits divided by the temperature.

        Returns: `(logprobs_N, entropy_N)`, float32; the entropy has no gradient.
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
    """Settings of a policy rank, beyond those of any rank."""

    algorithm: AlgorithmSpec
    temperature: float
    banned_token_ids: tuple[int, ...]
    objectives: tuple[str, ...] = ()
    """Names in the recipe's order, which numbers them for advantages."""
    reference: Path | None = None
    """Folder of the KL term's reference; None for the initial policy."""

    @classmethod
    def of(cls, recipe: Recipe, model: Path, banned_token_ids: tuple[int, ...]) -> PolicySettings:
        """The settings that `recipe` asks for."""
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
            reference=_reference(recipe),
        )


def _reference(recipe: Recipe) -> Path | None:
    spec = recipe.algorithm.kl
    if spec is None or spec.reference is None:
        return None
    return resolve_model(spec.reference, key="algorithm.kl.reference")
