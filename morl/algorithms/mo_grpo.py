"""Each reward term normalised within its group, then added up."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from morl.algorithms import advantage
from morl.algorithms.terms import mean_of_terms


@advantage("mo_grpo")
def mo_grpo(
    rewards_PG: torch.Tensor,
    terms_PGK: torch.Tensor,
    term_weights_PK: torch.Tensor,
    *,
    eps: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-6,
) -> torch.Tensor:
    """`A = sum of w_k (x_k - mean(x_k)) / (std(x_k) + eps)`, with statistics over the prompt's group.

    In a sum of raw rewards the one that varies most decides the advantage. Normalised first,
    all correlate equally with the advantage. Weights are relative, with mean 1 (`w_k` adds up
    to the number of the objective's terms): equal weights are the paper's plain sum. An objective
    with more terms has larger advantages, which `gdpo` avoids.

    Source: MO-GRPO (arXiv 2509.22047). Assumes that an objective's terms add up; `combine: product`
    is ignored.

    Args:
        rewards_PG: float64 mixed rewards; only tell which samples have a score.
        terms_PGK: float64 values of the terms, NaN where there is none.
        term_weights_PK: float64 weights of the terms; 0 or NaN where the objective has no such term.
        eps: keeps the scale finite for tiny standard deviations; in units of reward.

    Returns: advantages_PG, float64; 0 without a score, and where each term is equal within the group.
    """
    terms_P1 = (term_weights_PK > 0).sum(dim=1, keepdim=True)
    return mean_of_terms(rewards_PG, terms_PGK, term_weights_PK, eps) * terms_P1
