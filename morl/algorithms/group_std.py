"""Group-relative advantage with the group's standard deviation."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from morl.algorithms import advantage
from morl.algorithms.moments import standardise


@advantage("group_std")
def group_std(
    rewards_PG: torch.Tensor, *, eps: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-6
) -> torch.Tensor:
    """`A_i = (r_i - mean(r)) / (std(r) + eps)` over the scored samples of each prompt.

    The standard deviation is the population's: the group is not a sample of something larger.
    The advantage is exactly 0 in a group whose rewards are all equal, and for a sample without
    a score (NaN), which counts in no statistic.

    Source: GRPO (arXiv 2402.03300, eq. 3 ff.), as used by MiMo-VL (arXiv 2506.03569, 3.3).
    Assumes only that rewards of one prompt are comparable with each other.

    Args:
        rewards_PG: float64 rewards, NaN where there is no score.
        eps: keeps the scale finite for tiny standard deviations; in units of reward.

    Returns: advantages_PG, float64, finite.
    """
    return standardise(rewards_PG, dim=1, eps=eps)
