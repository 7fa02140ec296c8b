"""Importance weights against the distribution that the rollout engine really sampled from.

Engine and learner compute the same network with other kernels and precisions, so
"on-policy" samples are slightly off-policy. A weight `pi_learner / pi_rollout` corrects
that; its variance must be bounded, either by cutting weights off (`truncated`) or by leaving
out what the two disagree on (`masked`). The two go together: weights from one level, a mask
from another.

Levels are those of `ratio.importance_ratio`. A weight a token looks at that token alone: little variance,
but a bias, since the tokens before it were drawn from the other distribution too. A weight
a response is the ratio of the responses' probabilities, the unbiased one for a reward on the whole
response; over thousands of tokens it is close to 0 or beyond any cap. The geometric mean is
no importance weight at all, but a measure of disagreement that does not depend on length:
good for masks.
"""

from __future__ import annotations

import torch

from morl.algorithms.ratio import Level, importance_ratio


def truncated(
    logprobs_N: torch.Tensor,
    rollout_logprobs_N: torch.Tensor,
    cap: float,
    *,
    level: Level = "token",
    sequence_N: torch.Tensor | None = None,
) -> torch.Tensor:
    """`w = min(pi_learner / pi_rollout, cap)`, without gradient.

    The truncation bounds the variance at the price of a bias on what the engine found much
    less likely than the learner.

    Source: truncated importance sampling (Ionides 2008), as applied to rollout engines by verl, TRL and slime.

    Args:
        logprobs_N: log-probability of each sampled token under the learner.
        rollout_logprobs_N: the same under the rollout engine.
        cap: upper bound of a weight, >= 1.
        level: whose probability is compared: the token's, the response's, or the response's per token.
        sequence_N: which response each token belongs to; needed unless the level is `token`.

    Returns: weights_N in (0, cap].
    """
    ratio_N = importance_ratio(logprobs_N.detach(), rollout_logprobs_N, level=level, sequence_N=sequence_N)
    return ratio_N.clamp(max=cap)


def masked(
    logprobs_N: torch.Tensor,
    rollout_logprobs_N: torch.Tensor,
    low: float,
    high: float,
    *,
    level: Level = "token",
    sequence_N: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`w = pi_learner / pi_rollout` if it lies in [low, high], else 0; without gradient.

    A ratio far from 1 says that engine and learner disagree about the text, not that the text is
    good or bad: it is left out instead of being weighted. What is left out should leave
    the denominators of the loss as well, or every mask makes the step smaller:
    `aggregation.without_masked` does that.

    Source: rejection of outliers as in IcePop (arXiv 2510.18855), verl and slime.

    Args:
        logprobs_N: log-probability of each sampled token under the learner.
        rollout_logprobs_N: the same under the rollout engine.
        low: least ratio that counts, <= 1; 0 for none.
        high: largest ratio that counts, >= 1.
        level: what is left out: single tokens; responses by their own ratio; responses by their ratio per token.
        sequence_N: which response each token belongs to; needed unless the level is `token`.

    Returns: `(weights_N, kept_N)`: the weights, 0 where masked, and a bool that is True where not.
    """
    ratio_N = importance_ratio(logprobs_N.detach(), rollout_logprobs_N, level=level, sequence_N=sequence_N)
    kept_N = (ratio_N >= low) & (ratio_N <= high)
    return torch.where(kept_N, ratio_N, 0.0), kept_N
