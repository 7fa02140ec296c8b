"""The terms of an objective, standardised one by one and averaged."""

from __future__ import annotations

import torch

from morl.algorithms.moments import standardise


def mean_of_terms(
    rewards_PG: torch.Tensor, terms_PGK: torch.Tensor, term_weights_PK: torch.Tensor, eps: float
) -> torch.Tensor:
    """`sum over k of w_k z_k / sum over k of w_k`, where `z_k` is term k standardised within the prompt's group.

    Args:
        rewards_PG: NaN where a sample has no score; its terms then count in no statistic.
        terms_PGK: NaN where a term gave no value; it adds 0 there.
        term_weights_PK: 0 or NaN where the objective has no such term.
        eps: added to each standard deviation.

    Returns: means_PG; 0 without a score. They sum to 0 in each group.
    """
    scored_PG1 = ~rewards_PG.isnan().unsqueeze(-1)
    z_PGK = standardise(torch.where(scored_PG1, terms_PGK, torch.nan), dim=1, eps=eps)
    weights_PK = torch.where(term_weights_PK > 0, term_weights_PK, 0.0)
    # Divide by the largest weight first, so that the sum cannot overflow.
    weights_PK = weights_PK / weights_PK.amax(dim=1, keepdim=True).clamp(min=torch.finfo(weights_PK.dtype).tiny)
    shares_PK = weights_PK / weights_PK.sum(dim=1, keepdim=True).clamp(min=1.0)
    return (z_PGK * shares_PK.unsqueeze(1)).sum(dim=-1)
