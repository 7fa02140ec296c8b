"""The importance ratio between learner and rollout engine."""

from __future__ import annotations

from typing import Literal

import torch

Level = Literal["token", "sequence", "geometric"]

BOUND = 20.0
"""Largest absolute log ratio, in nats: beyond it numbers overflow, and a correction is meaningless."""


def importance_ratio(
    logprobs_N: torch.Tensor,
    rollout_logprobs_N: torch.Tensor,
    *,
    level: Level = "token",
    sequence_N: torch.Tensor | None = None,
) -> torch.Tensor:
    """`pi_learner / pi_rollout` of each token, of its response, or on average over its response.

    - `token`: `r_t = pi_learner(token) / pi_rollout(token)`;
    - `sequence`: the product of `r_t` over the response, which is the ratio of the response's
      probabilities; it drifts further from 1 as responses grow longer;
    - `geometric`: that product to the power `1 / length`, which does not depend on length.

    Clamped to `[exp(-20), exp(20)]`, without gradient outside.

    Args:
        logprobs_N: log-probability of each sampled token under the learner.
        rollout_logprobs_N: the same under the distribution that wrote it.
        level: one of the three.
        sequence_N: the response that each token belongs to: 0, 1, …; required unless the level is `token`.

    Returns: ratio_N, with gradient; the same for all tokens of a response unless the level is `token`.
    Raises: ValueError when sequence_N is required and missing.
    """
    log_ratio_N = logprobs_N - rollout_logprobs_N
    if level != "token":
        if sequence_N is None:
            raise ValueError(f"a ratio of level '{level}' needs to know which response each token belongs to")
        total_N = sum_over(log_ratio_N.double(), sequence_N)
        if level == "geometric":
            total_N = total_N / sum_over(torch.ones_like(total_N), sequence_N)
        log_ratio_N = total_N.to(log_ratio_N.dtype)
    return log_ratio_N.clamp(-BOUND, BOUND).exp()


def sum_over(values_N: torch.Tensor, group_N: torch.Tensor) -> torch.Tensor:
    """For each token the sum over all tokens of its group; groups are numbered 0, 1, … without gaps."""
    # N slots are enough for any number of groups: counting the groups would wait for the device.
    return torch.zeros_like(values_N).index_add(0, group_N, values_N)[group_N]
