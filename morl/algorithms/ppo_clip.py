"""The clipped surrogate of PPO."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from morl.algorithms import loss
from morl.algorithms.ratio import importance_ratio


@loss("ppo_clip")
def ppo_clip(
    logprobs_N: torch.Tensor,
    rollout_logprobs_N: torch.Tensor,
    advantages_N: torch.Tensor,
    *,
    clip_low: Annotated[float, Field(gt=0, lt=1)] = 0.2,
    clip_high: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.2,
    dual_clip: Annotated[float, Field(gt=1, allow_inf_nan=False)] | None = None,
) -> torch.Tensor:
    """`-min(r * A, clip(r, 1 - clip_low, 1 + clip_high) * A)` with `r = pi / pi_rollout`.

    Where A < 0, `dual_clip` bounds the loss from above by `-dual_clip * A`: a token that has become
    far likelier than when it was sampled gets no gradient, instead of one that grows with r.

    Source: PPO (arXiv 1707.06347, eq. 7); separate bounds from DAPO (arXiv 2503.14476), which takes
    0.2 and 0.28; dual clip from arXiv 1912.09729, which takes 3.
    Assumes `pi_rollout` is close to `pi`; a token beyond the bound in the direction of its
    advantage gets no gradient.

    Args:
        logprobs_N: log-probability of each sampled token under the learner, with gradient.
        rollout_logprobs_N: the same under the distribution that wrote it.
        advantages_N: advantage of the token's sample.
        clip_low: how far the ratio may fall below 1.
        clip_high: how far it may rise above 1; a larger value than clip_low lets rare tokens grow.
        dual_clip: largest ratio that counts where the advantage is negative; None for no bound.

    Returns: loss_N, to be weighted and summed.
    """
    ratio_N = importance_ratio(logprobs_N, rollout_logprobs_N)
    return clipped_surrogate(ratio_N, advantages_N, clip_low, clip_high, dual_clip)


def clipped_surrogate(
    ratio_N: torch.Tensor, advantages_N: torch.Tensor, low: float, high: float, dual: float | None = None
) -> torch.Tensor:
    """`-min(r * A, clip(r, 1 - low, 1 + high) * A)`; where A < 0 and `dual` is given, at most `-dual * A`."""
    clipped_N = ratio_N.clamp(1.0 - low, 1.0 + high)
    loss_N = -torch.minimum(ratio_N * advantages_N, clipped_N * advantages_N)
    if dual is None:
        return loss_N
    return torch.where(advantages_N < 0, torch.minimum(loss_N, -dual * advantages_N), loss_N)
