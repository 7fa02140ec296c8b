"""Advantage on the scale of the whole batch."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field

from morl.algorithms import advantage
from morl.algorithms.moments import centre, divide, spread


@advantage("reinforce_plus_plus")
def reinforce_plus_plus(
    rewards_PG: torch.Tensor,
    *,
    baseline: Literal["batch", "group"] = "batch",
    eps: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1e-6,
) -> torch.Tensor:
    """`A_i = (r_i - b) / (std(r - b) + eps)`, the standard deviation taken over the batch.

    With `baseline: batch`, b is the mean over all scored samples (REINFORCE++): a prompt whose
    responses are all right is pushed up, one whose responses are all wrong is pushed down. With
    `baseline: group`, b is the mean over the prompt's samples (REINFORCE++ with baseline),
    and a group whose rewards are all equal has advantage exactly 0. A sample counts once,
    whatever its length.

    Source: REINFORCE++ (arXiv 2501.03262), for one reward per response and no KL term.
    Assumes that rewards of all objectives in the batch are on one scale; with `batch` also that
    their prompts are equally hard.

    Args:
        rewards_PG: float64 rewards, NaN where there is no score.
        baseline: what a reward is compared with.
        eps: keeps the scale finite for tiny standard deviations; in units of reward.

    Returns: advantages_PG, float64; 0 without a score.
    """
    known_S = ~rewards_PG.flatten().isnan()
    # Distances from the group means add up to 0, so the batch mean is 0 already.
    centred_S = centre(rewards_PG, dim=1).flatten() if baseline == "group" else centre(rewards_PG.flatten(), dim=0)
    return divide(centred_S, spread(centred_S, known_S, dim=0), eps).view_as(rewards_PG)
