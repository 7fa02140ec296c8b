"""Importance weights against the distribution that the rollout engine really sampled from."""

from __future__ import annotations

import torch


def truncated(logprobs_N: torch.Tensor, rollout_logprobs_N: torch.Tensor, cap: float) -> torch.Tensor:
    """`w = min(pi_learner / pi_rollout, cap)`, without gradient.

    Engine and learner compute the same network with other kernels and precisions, so
    "on-policy" samples are slightly off-policy. The truncation bounds the variance at the
    price of a bias on tokens that the engine found much less likely than the learner.

    Source: truncated importance sampling (Ionides 2008), token level.

    Args:
        logprobs_N: log-probability of each sampled token under the learner.
        rollout_logprobs_N: the same under the rollout engine.
        cap: upper bound of a weight, >= 1.

    Returns: weights_N in (0, cap].
    """
    return (logprobs_N.detach() - rollout_logprobs_N).exp().clamp(max=cap)
