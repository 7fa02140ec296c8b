"""Each reward term normalised within its group, and their sum over the batch."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from morl.algorithms import advantage
from morl.algorithms.moments import divide, spread
from morl.algorithms.terms import mean_of_terms


@advantage("gdpo")
def gdpo(
    rewards_PG: torch.Tensor,
    terms_PGK: torch.Tensor,
    term_weights_PK: torch.Tensor,
    *,
    eps: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-6,
) -> torch.Tensor:
    """`z_k = (x_k - mean(x_k)) / (std(x_k) + eps)` in the group, `s = sum of w_k z_k`, `A = s / (std(s) + eps)`.

    The sum of two rewards is the same for (0, 1) and (1, 0); normalised one by one, the
    rarer reward counts for more. The last division, by the standard deviation over the
    batch's scored samples, keeps the size of an update from growing with the number of
    rewards; without it training can diverge. The mean over the batch is 0 by construction.
    Weights are relative (`w_k` adds up to 1 in an objective), as in the recipe's weighted mean.

    Source: GDPO (arXiv 2601.05242). Assumes that an objective's terms add up; `combine: product`
    is ignored.

    Args:
        rewards_PG: float64 mixed rewards; only tell which samples have a score.
        terms_PGK: float64 values of the terms, NaN where there is none.
        term_weights_PK: float64 weights of the terms; 0 or NaN where the objective has no such term.
        eps: keeps the scale finite for tiny standard deviations; in units of reward.

    Returns: advantages_PG, float64; 0 without a score, and where each term is equal within the group.
    """
    scored_S = ~rewards_PG.flatten().isnan()
    sum_S = mean_of_terms(rewards_PG, terms_PGK, term_weights_PK, eps).flatten()
    return divide(sum_S, spread(sum_S, scored_S, dim=0), eps).view_as(rewards_PG)
