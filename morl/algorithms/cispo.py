"""Policy gradient with a clipped weight, so that every token keeps a gradient."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from morl.algorithms import loss
from morl.algorithms.ratio import importance_ratio


@loss("cispo")
def cispo(
    logprobs_N: torch.Tensor,
    rollout_logprobs_N: torch.Tensor,
    advantages_N: torch.Tensor,
    *,
    clip_low: Annotated[float, Field(gt=0, le=1)] = 1.0,
    clip_high: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 4.0,
) -> torch.Tensor:
    """`-stop(clip(r, 1 - clip_low, 1 + clip_high)) * A * log pi(token)` with `r = pi / pi_rollout`.

    PPO drops a token once its ratio leaves the bounds, and the rare tokens at which reasoning forks
    leave first. Here the bounds limit a token's weight and never drop its gradient.

    Source: CISPO (MiniMax-M1, arXiv 2506.13585, eq. 4 f.), which sets no lower bound and tunes the
    upper one; the cap of 5 is ScaleRL's (arXiv 2510.13786).
    Assumes `pi_rollout` is close to `pi`; the clip is a bias on tokens where it is not.

    Args:
        logprobs_N: log-probability of each sampled token under the learner, with gradient.
        rollout_logprobs_N: the same under the distribution that wrote it.
        advantages_N: advantage of the token's sample.
        clip_low: how far the weight may fall below 1; 1 means no bound.
        clip_high: how far it may rise above 1.

    Returns: loss_N, to be weighted and summed.
    """
    ratio_N = importance_ratio(logprobs_N.detach(), rollout_logprobs_N)
    return -ratio_N.clamp(1.0 - clip_low, 1.0 + clip_high) * advantages_N * logprobs_N
