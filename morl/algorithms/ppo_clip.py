"""The clipped surrogate of PPO."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from morl.algorithms import loss


@loss("ppo_clip")
def ppo_clip(
    logprobs_N: torch.Tensor,
    rollout_logprobs_N: torch.Tensor,
    advantages_N: torch.Tensor,
    *,
    clip_low: Annotated[float, Field(gt=0, lt=1)] = 0.2,
    clip_high: Annotated[float, Field(gt=0)] = 0.2,
) -> torch.Tensor:
    """`-min(r * A, clip(r, 1 - clip_low, 1 + clip_high) * A)` with `r = pi / pi_rollout`.

    Source: PPO (arXiv 1707.06347, eq. 7); separate bounds from DAPO (arXiv 2503.14476).
    Assumes `pi_rollout` is close to `pi`; a token beyond the bound in the direction its
    advantage pulls gets no gradient.

    Args:
        logprobs_N: log-probability of each sampled token under the learner, with gradient.
        rollout_logprobs_N: the same under the distribution that wrote it.
        advantages_N: advantage of the token's sample.
        clip_low: how far the ratio may fall below 1.
        clip_high: how far it may rise above 1.

    Returns: loss_N, to be weighted and summed.
    """
    ratio_N = (logprobs_N - rollout_logprobs_N).exp()
    clipped_N = ratio_N.clamp(1.0 - clip_low, 1.0 + clip_high)
    return -torch.minimum(ratio_N * advantages_N, clipped_N * advantages_N)
