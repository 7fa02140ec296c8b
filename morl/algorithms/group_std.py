"""Group-relative advantage with the group's standard deviation."""

from __future__ import annotations

import torch

from morl.algorithms import advantage


@advantage("group_std")
def group_std(rewards_PG: torch.Tensor, *, eps: float = 1e-6) -> torch.Tensor:
    """`A_i = (r_i - mean(r)) / (std(r) + eps)` over the scored samples of each prompt.

    The standard deviation is the population's: the group is all there is, not a sample
    of something larger. A group whose rewards are all equal has advantage exactly 0, and
    so has a sample without a score (NaN), which counts in no statistic.

    Source: GRPO (arXiv 2402.03300, eq. 3 ff.), as used by MiMo-VL (arXiv 2506.03569, 3.3).
    Assumes that rewards of one prompt are comparable with each other and nothing else.

    Args:
        rewards_PG: float64 rewards, NaN where there is no score.
        eps: keeps tiny spreads from growing without bound; in units of reward.

    Returns: advantages_PG, float64, finite.
    """
    scored_PG = ~rewards_PG.isnan()
    count_P1 = scored_PG.sum(dim=1, keepdim=True).clamp(min=1)
    filled_PG = rewards_PG.nan_to_num(0.0)
    mean_P1 = filled_PG.sum(dim=1, keepdim=True) / count_P1
    centred_PG = torch.where(scored_PG, filled_PG - mean_P1, 0.0)
    std_P1 = (centred_PG.square().sum(dim=1, keepdim=True) / count_P1).sqrt()
    # The mean of equal numbers can be off by a rounding error, which eps would blow up.
    low_P1 = torch.where(scored_PG, filled_PG, torch.inf).amin(dim=1, keepdim=True)
    high_P1 = torch.where(scored_PG, filled_PG, -torch.inf).amax(dim=1, keepdim=True)
    return torch.where(high_P1 > low_P1, centred_PG / (std_P1 + eps), 0.0)
