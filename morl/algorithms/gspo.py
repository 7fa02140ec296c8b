"""PPO's clip on whole responses."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from morl.algorithms import loss
from morl.algorithms.ppo_clip import clipped_surrogate
from morl.algorithms.ratio import importance_ratio

Bound = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@loss("gspo")
def gspo(
    logprobs_N: torch.Tensor,
    rollout_logprobs_N: torch.Tensor,
    advantages_N: torch.Tensor,
    sequence_N: torch.Tensor,
    *,
    clip_low: Annotated[float, Field(gt=0, lt=1)] = 3e-4,
    clip_high: Bound = 4e-4,
) -> torch.Tensor:
    """`-min(s * A, clip(s, 1 - clip_low, 1 + clip_high) * A)`; `s = (pi(o) / pi_rollout(o))^(1 / |o|)` of response o.

    The reward belongs to the whole response, so the ratio and the clip do too. s is a mean over
    its tokens, hence the narrow bounds. All tokens of a response have the same loss;
    `aggregation: sequence_mean` makes that the paper's objective.

    Source: GSPO (arXiv 2507.18071, eq. 5; bounds from 5.1).
    Assumes one advantage per response, and that engine and learner agree to well within the
    bounds: their mismatch alone can clip a response.

    Args:
        logprobs_N: log-probability of each sampled token under the learner, with gradient.
        rollout_logprobs_N: the same under the distribution that wrote it.
        advantages_N: advantage of the token's sample.
        sequence_N: which response each token belongs to: 0, 1, …; a response's tokens are all there.
        clip_low: how far s may fall below 1.
        clip_high: how far it may rise above 1.

    Returns: loss_N, to be weighted and summed.
    """
    ratio_N = importance_ratio(logprobs_N, rollout_logprobs_N, level="geometric", sequence_N=sequence_N)
    return clipped_surrogate(ratio_N, advantages_N, clip_low, clip_high)


@loss("gspo_token")
def gspo_token(
    logprobs_N: torch.Tensor,
    rollout_logprobs_N: torch.Tensor,
    advantages_N: torch.Tensor,
    sequence_N: torch.Tensor,
    *,
    clip_low: Annotated[float, Field(gt=0, lt=1)] = 3e-4,
    clip_high: Bound = 4e-4,
) -> torch.Tensor:
    """`gspo` with `s_t = stop(s) * pi(token) / stop(pi(token))`: the value of s with the token's gradient.

    Where s is not clipped the gradient is `-s * A_t * grad log pi(token)`, so tokens of one
    response may differ in advantage or weight. If they do not, the response's gradient is
    that of `gspo`.

    Source: GSPO-token (arXiv 2507.18071). Assumes what `gspo` assumes, except for the
    one advantage per response.

    Args:
        logprobs_N: log-probability of each sampled token under the learner, with gradient.
        rollout_logprobs_N: the same under the distribution that wrote it.
        advantages_N: advantage of each token.
        sequence_N: which response each token belongs to: 0, 1, …; a response's tokens are all there.
        clip_low: how far s may fall below 1.
        clip_high: how far it may rise above 1.

    Returns: loss_N, to be weighted and summed.
    """
    ratio_N = importance_ratio(logprobs_N.detach(), rollout_logprobs_N, level="geometric", sequence_N=sequence_N)
    return clipped_surrogate(ratio_N * (logprobs_N - logprobs_N.detach()).exp(), advantages_N, clip_low, clip_high)
