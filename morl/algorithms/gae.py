"""Generalised advantage estimation: token-level advantages from a critic's values."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field

from morl.algorithms import advantage
from morl.algorithms.moments import standardise

Share = Annotated[float, Field(ge=0, le=1)]


@advantage("gae")
def gae(
    rewards_BT: torch.Tensor,
    values_BT: torch.Tensor,
    mask_BT: torch.Tensor,
    *,
    discount: Share = 1.0,
    trace: Share = 0.95,
    normalise: bool = True,
    eps: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-6,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`A_t = d_t + discount * trace * A_t+1`, with `d_t = r_t + discount * V_t+1 - V_t`, then standardised.

    Beyond a response's last token V and A are 0. Tokens outside the mask (padding, and what an
    environment or a tool wrote) are skipped: token t + 1 is the next one that the policy wrote.
    With trace 1 the advantage is the discounted return minus V_t; with trace 0 it is d_t.

    Source: GAE (arXiv 1506.02438, eq. 16; its gamma and lambda are `discount` and `trace`).
    Assumes that V_t is the value of the state before token t is written.

    Args:
        rewards_BT: reward of each token; not read outside the mask, so an outcome reward belongs on
            the last token that the policy wrote.
        values_BT: the critic's values; they get no gradient.
        mask_BT: bool, True on tokens that the policy wrote.
        discount: gamma, the factor on a reward one token later.
        trace: lambda, how far ahead rewards are trusted over values.
        normalise: whether to standardise advantages over all tokens of all responses.
        eps: keeps the scale finite for tiny standard deviations; in units of reward.

    Returns: `(advantages_BT, returns_BT)`, both 0 outside the mask. `returns = advantages + values`, taken before
    the advantages are normalised, are the critic's targets.
    """
    rewards_BT, values_BT, mask_BT = rewards_BT.detach(), values_BT.detach(), mask_BT.bool()
    # The loop reads one token of all responses at a time: make these contiguous.
    rewards_TB, values_TB, mask_TB = (each_BT.T.contiguous() for each_BT in (rewards_BT, values_BT, mask_BT))
    advantages_TB = torch.zeros_like(values_TB)
    next_value_B = next_advantage_B = values_BT.new_zeros(len(values_BT))
    for t in reversed(range(len(values_TB))):
        delta_B = rewards_TB[t] + discount * next_value_B - values_TB[t]
        advantage_B = delta_B + discount * trace * next_advantage_B
        next_value_B = torch.where(mask_TB[t], values_TB[t], next_value_B)
        next_advantage_B = torch.where(mask_TB[t], advantage_B, next_advantage_B)
        advantages_TB[t] = torch.where(mask_TB[t], advantage_B, 0.0)
    advantages_BT = advantages_TB.T.contiguous()
    returns_BT = torch.where(mask_BT, advantages_BT + values_BT, 0.0)
    if normalise:
        masked_BT = torch.where(mask_BT, advantages_BT, torch.nan)
        advantages_BT = standardise(masked_BT.flatten(), dim=0, eps=eps).view_as(masked_BT)
    return advantages_BT, returns_BT
