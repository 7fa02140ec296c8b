"""How token losses add up to the loss of a batch."""

from __future__ import annotations

from typing import Literal

import torch

from morl.algorithms.ratio import sum_over

Aggregation = Literal["prompt_tokens", "batch_tokens", "sequence_mean", "constant"]


def token_weights(
    lengths_PG: torch.Tensor, scored_PG: torch.Tensor, mode: Aggregation, max_length: int
) -> torch.Tensor:
    """The weight of each sample's tokens: the batch loss is the weighted sum of token losses.

    With `P` prompts that have a score, `S` scored samples in all and `|o_i|` tokens in a sample:

    - `prompt_tokens`: `1 / (P * sum of |o_i| over the prompt's group)`: prompts count equally, and so
      do the tokens of a prompt (MiMo-VL, arXiv 2506.03569, 3.3);
    - `batch_tokens`: `1 / (sum of |o_i| over the batch)` (DAPO, arXiv 2503.14476);
    - `sequence_mean`: `1 / (S * |o_i|)`: samples count equally (GRPO, arXiv 2402.03300);
    - `constant`: `1 / (S * max_length)`: lengths do not matter (Dr.GRPO, arXiv 2503.20783).

    A sample without a score or without tokens has weight 0 and counts in no denominator.

    Args:
        lengths_PG: number of tokens of each sample in the loss: those that the policy wrote,
            less the masked ones if they are known already.
        scored_PG: whether the sample has a score.
        mode: one of the four above.
        max_length: `rollout.max_new_tokens`; only `constant` reads it.

    Returns: weights_PG, float64.
    """
    counted_PG = scored_PG & (lengths_PG > 0)
    tokens_PG = torch.where(counted_PG, lengths_PG, 0).double()
    prompts = counted_PG.any(dim=1).sum()
    samples = counted_PG.sum()
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
    return torch.where(counted_PG, 1.0 / denominator_PG, 0.0)


def without_masked(weights_N: torch.Tensor, kept_N: torch.Tensor, group_N: torch.Tensor) -> torch.Tensor:
    """`w_n * (sum of w over the group) / (sum of w over the kept tokens of the group)` where kept, else 0.

    The masked tokens' weight moves to the kept tokens of their group, as if the masked tokens had never
    been in the denominator: with 2 of a prompt's 8 tokens masked, `1 / (P * 8)` becomes `1 / (P * 6)`.
    The group is what the aggregation averages over: the prompt for `prompt_tokens`, the response for
    `sequence_mean`, the whole batch for `batch_tokens`. (`constant` has no group: multiply by the mask
    instead.) A group without kept tokens contributes 0; the number of prompts or samples does not change.

    Args:
        weights_N: weight of each token.
        kept_N: bool, False where the token is masked.
        group_N: int64, the group that each token belongs to: 0, 1, …; every token of a group is present.

    Returns: weights_N, of the same dtype.
    """
    exact_N = weights_N.double()
    kept_weights_N = torch.where(kept_N, exact_N, 0.0)
    remaining_N = sum_over(kept_weights_N, group_N)
    scaled_N = kept_weights_N * sum_over(exact_N, group_N) / remaining_N
    return torch.where(remaining_N > 0, scaled_N, 0.0).to(weights_N.dtype)
