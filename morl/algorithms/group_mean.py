"""Group-relative advantage without any scale."""

from __future__ import annotations

import torch

from morl.algorithms import advantage
from morl.algorithms.moments import centre


@advantage("group_mean")
def group_mean(rewards_PG: torch.Tensor) -> torch.Tensor:
    """`A_i = r_i - mean(r)` over the scored samples of each prompt.

    Dividing by the group's standard deviation favours prompts whose samples are nearly always
    right or nearly always wrong. Without it a prompt counts by how much its rewards differ.

    Source: Dr.GRPO (arXiv 2503.20783), which pairs it with `aggregation: constant`.
    Assumes that a unit of reward is worth the same in every objective.

    Args:
        rewards_PG: float64 rewards, NaN where there is no score.

    Returns: advantages_PG, float64; 0 without a score, and in a group whose rewards are all equal.
    """
    return centre(rewards_PG, dim=1)
