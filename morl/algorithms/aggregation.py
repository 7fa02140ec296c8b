"""How the losses of single tokens add up to the loss of a batch."""

from __future__ import annotations

from typing import Literal

import torch

Aggregation = Literal["prompt_tokens", "batch_tokens", "sequence_mean", "constant"]


def token_weights(
    lengths_PG: torch.Tensor, scored_PG: torch.Tensor, mode: Aggregation, max_length: int
) -> torch.Tensor:
    """The weight of each token of each sample, so that the batch loss is the weighted sum of token losses.

    With `P` prompts that have a score, `S` scored samples in all and `|o_i|` tokens in a sample:

    - `prompt_tokens`: `1 / (P * sum of |o_i| over the prompt's group)`: every prompt counts the
      same, every token of a prompt counts the same (MiMo-VL, arXiv 2506.03569, 3.3);
    - `batch_tokens`: `1 / (sum of |o_i| over the batch)` (DAPO, arXiv 2503.14476);
    - `sequence_mean`: `1 / (S * |o_i|)`: every sample counts the same (GRPO, arXiv 2402.03300);
    - `constant`: `1 / (S * max_length)`: no length enters (Dr.GRPO, arXiv 2503.20783).

    A sample without a score has weight 0 and enters no denominator.

    Args:
        lengths_PG: tokens of each sample that the policy wrote.
        scored_PG: whether the sample has a score.
        mode: one of the four above.
        max_length: `rollout.max_new_tokens`; read by `constant` alone.

    Returns: weights_PG, float64.
    """
    tokens_PG = torch.where(scored_PG, lengths_PG, 0).double()
    prompts = scored_PG.any(dim=1).sum().clamp(min=1)
    samples = scored_PG.sum().clamp(min=1)
    if mode == "prompt_tokens":
        denominator_PG = prompts * tokens_PG.sum(dim=1, keepdim=True).expand_as(tokens_PG)
    elif mode == "batch_tokens":
        denominator_PG = tokens_PG.sum().expand_as(tokens_PG)
    elif mode == "sequence_mean":
        denominator_PG = samples * tokens_PG
    elif mode == "constant":
        denominator_PG = (samples * max_length).double().expand_as(tokens_PG)
    else:
        raise ValueError(f"unknown aggregation {mode!r}")
    return torch.where(scored_PG & (denominator_PG > 0), 1.0 / denominator_PG, 0.0)
