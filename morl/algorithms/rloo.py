"""Leave-one-out baseline."""

from __future__ import annotations

import torch

from morl.algorithms import advantage
from morl.algorithms.moments import centre


@advantage("rloo")
def rloo(rewards_PG: torch.Tensor) -> torch.Tensor:
    """`A_i = r_i - mean of the other r_j` over the scored samples of each prompt.

    The baseline excludes the sample's own reward, so the gradient is unbiased. With n scored
    samples this is `n / (n - 1)` times the distance from the group mean.

    Source: RLOO (arXiv 2402.14740).
    Assumes that a unit of reward is worth the same in every objective.

    Args:
        rewards_PG: float64 rewards, NaN where there is no score.

    Returns: advantages_PG, float64; 0 without a score, in a group with one scored sample, and in
    a group whose rewards are all equal.
    """
    count_P1 = (~rewards_PG.isnan()).sum(dim=1, keepdim=True)
    return centre(rewards_PG, dim=1) * (count_P1 / (count_P1 - 1).clamp(min=1))
