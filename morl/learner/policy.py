"""The policy as the learner runs it: token log-probabilities of answer positions, nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from morl.learner.packing import Microbatch


class Policy(torch.nn.Module):
    """Wraps a causal language model of transformers.

    Only hidden states from which a token is predicted go through the vocabulary, each of
    them once.
    """

    def __init__(self, model: Any, *, temperature: float, banned_token_ids: Sequence[int]) -> None:
        super().__init__()
        self.model = model
        self.temperature = temperature
        self.banned_token_ids = list(banned_token_ids)

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
        body = getattr(whole, whole.base_model_prefix)
        hidden_BLH = body(
            input_ids=micro.input_ids_BL,
            attention_mask=micro.attention_mask_B1LL,
            position_ids=micro.positions_BL,
            use_cache=False,
        ).last_hidden_state
        hidden_UH = hidden_BLH.flatten(0, 1)[micro.sources_U]
        logits_UV = whole.get_output_embeddings()(hidden_UH).float()
        if self.banned_token_ids:
            logits_UV[:, self.banned_token_ids] = -torch.inf
        logprobs_UV = (logits_UV / self.temperature).log_softmax(dim=-1)
        logprobs_N = logprobs_UV[micro.source_of_N, micro.targets_N]
        with torch.no_grad():
            # entr(0) is 0 where p * log p would be NaN.
            entropy_U = torch.special.entr(logprobs_UV.exp()).sum(dim=-1)
        return logprobs_N, entropy_U[micro.source_of_N]
