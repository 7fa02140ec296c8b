"""From logits and given uniform numbers to tokens, by inverting the cumulative distribution."""

from __future__ import annotations

import torch

from morl.errors import RunError
from morl.rollout.engine import Sampling

BLOCK = 128
"""Tokens per block: the block is drawn first, then the token within it."""


def draw(logits_BV: torch.Tensor, uniforms_B: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
    """One token per row, and its log-prob before `top_p`.

    `logits_BV` (float32) is overwritten; `uniforms_B` (float64) lie in [0, 1).

    Raises: RunError when a row has a logit that is NaN or infinite.
    """
    logits_BV[:, list(sampling.banned_token_ids)] = -float("inf")
    if sampling.scale != 1:
        logits_BV.div_(sampling.scale)
    probs_BV = torch.softmax(logits_BV, dim=-1)
    if probs_BV[:, 0].isnan().any():  # one such logit spoils its whole row
        raise RunError(
            "the policy's logits are not finite: its weights have diverged; lower learner.lr and resume from an "
            "earlier checkpoint"
        )
    if sampling.temperature == 0:
        tokens_B = probs_BV.argmax(dim=-1)
    else:
        kept_BV = nucleus(probs_BV, sampling.top_p) if sampling.top_p < 1 else probs_BV
        tokens_B = invert(kept_BV, uniforms_B)
    return tokens_B, probs_BV.gather(1, tokens_B[:, None]).squeeze(1).log_()


def invert(weights_BV: torch.Tensor, uniforms_B: torch.Tensor) -> torch.Tensor:
    """The first entry of each row at which the cumulative weight exceeds the fraction `uniforms_B` of the total.

    The block is located first, so that entries of one block are summed one by one and not the whole vocabulary.
    """
    short = -weights_BV.shape[1] % BLOCK
    blocks_BNK = torch.nn.functional.pad(weights_BV, (0, short)).view(len(weights_BV), -1, BLOCK)
    block_B, uniforms_B = _invert_whole(blocks_BNK.sum(dim=-1), uniforms_B)
    rows_B = torch.arange(len(block_B), device=block_B.device)
    entry_B, _ = _invert_whole(blocks_BNK[rows_B, block_B], uniforms_B)
    return block_B * BLOCK + entry_B


def _invert_whole(weights_BN: torch.Tensor, uniforms_B: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The entry of each row, and how far into it the uniform number points, as a fraction of its weight."""
    weights_BN = weights_BN.double()
    cdf_BN = weights_BN.cumsum(dim=-1)
    # Just below the total, so that rounding cannot reach past the last entry with any weight.
    total_B1 = torch.nextafter(cdf_BN[:, -1:], torch.zeros_like(cdf_BN[:, -1:]))
    target_B1 = uniforms_B[:, None] * total_B1
    entry_B1 = torch.searchsorted(cdf_BN, target_B1, right=True)
    weight_B1 = weights_BN.gather(1, entry_B1)
    inside_B1 = (target_B1 - (cdf_BN.gather(1, entry_B1) - weight_B1)) / weight_B1
    return entry_B1.squeeze(1), inside_B1.squeeze(1).clamp(0.0, 1.0 - 2.0**-53)


def nucleus(probs_BV: torch.Tensor, top_p: float) -> torch.Tensor:
    """The probabilities, with 0 for all but the likeliest tokens that together reach `top_p`."""
    sorted_BV, order_BV = probs_BV.sort(dim=-1, descending=True)
    before_BV = sorted_BV.cumsum(dim=-1) - sorted_BV
    return probs_BV.scatter(1, order_BV, sorted_BV.masked_fill(before_BV >= top_p, 0.0))
