"""Group-relative advantage, scaled by a running standard deviation of the objective."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from pydantic import Field

from morl.algorithms import advantage
from morl.algorithms.moments import centre


@advantage("ema_std")
def ema_std(
    rewards_PG: torch.Tensor,
    objectives_P: torch.Tensor,
    state: Mapping[str, Any],
    *,
    decay: Annotated[float, Field(ge=0, lt=1)] = 0.99,
    clip: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 5.0,
    min_std: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1e-3,
) -> tuple[torch.Tensor, dict[str, Any]]:
    """`A_i = clip((r_i - mean(r)) / max(sigma_objective, min_std), -clip, clip)`, with the mean of the prompt's group.

    `sigma^2 = m_2 - m_1^2`, where `m_1` and `m_2` are moving averages of the objective's rewards
    and of their squares: `m <- decay * m + (1 - decay) * mean over the batch`. Sigma is read after
    the batch's rewards have been added; an objective's first batch sets its moments. This way
    a rare right or wrong response is not amplified within an objective, and sparse and dense
    rewards count equally across objectives.

    Source: EMA-GRPO (arXiv 2512.03043), decay 0.99; the bound of 5 limits the update when
    rewards differ for the first time after many equal ones.
    Assumes that an objective keeps its number from step to step, and that the rewards seen
    are a fair sample of the objective: leaving out groups without signal changes sigma.

    Args:
        rewards_PG: float64 rewards, NaN where there is no score.
        objectives_P: int64 number of each prompt's objective.
        state: what the last call returned; empty at first. Maps an objective's number, as
            text, to `{"mean", "variance"}` of its rewards.
        decay: weight of the old moments in the new ones.
        clip: largest advantage, in standard deviations.
        min_std: smallest standard deviation, in units of reward.

    Returns: `(advantages_PG, new state)`; the advantage is 0 without a score, and in a group whose
    rewards are all equal. An objective without a score in the batch keeps its moments.
    """
    moments = dict(state)
    scale_P1 = torch.full_like(rewards_PG[:, :1], min_std)
    for objective in sorted(set(objectives_P.tolist())):
        mine_P = objectives_P == objective
        known_S = rewards_PG[mine_P]
        known_S = known_S[~known_S.isnan()]
        if len(known_S) == 0:
            continue
        new = {"mean": float(known_S.mean()), "variance": float(known_S.var(correction=0))}
        old = moments.get(str(objective), new)
        moments[str(objective)] = new = _mixed(old, new, decay)
        scale_P1[mine_P] = max(new["variance"] ** 0.5, min_std)
    return (centre(rewards_PG, dim=1) / scale_P1).clamp(-clip, clip), moments


def _mixed(old: Mapping[str, float], new: Mapping[str, float], decay: float) -> dict[str, float]:
    """Mean and variance after averaging first and second moments, without subtracting large squares."""
    apart = old["mean"] - new["mean"]
    return {
        "mean": new["mean"] + decay * apart,
        "variance": decay * old["variance"] + (1 - decay) * new["variance"] + decay * (1 - decay) * apart**2,
    }
