"""Importance weights against the distribution that the rollout engine actually sampled from.

Engine and learner compute the same network with different kernels and precisions, so
"on-policy" samples are slightly off-policy. A weight `pi_learner / pi_rollout` corrects
that; its variance must be bounded, either by capping weights (`truncated`) or by leaving
out tokens on which the two disagree (`masked`). The two combine: weights from one level,
a mask from another.

Levels are those of `ratio.importance_ratio`. A token's weight considers that token alone: its variance
is small, but it is biased, since the tokens before it also came from the rollout distribution. A response's
weight is the ratio of its probabilities, unbiased for a reward on the whole response; over thousands
of tokens it is close to 0 or beyond any cap. The geometric mean is not an importance weight but a
measure of disagreement that does not depend on length, which suits masks.
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

    The cap bounds the variance at the price of a bias on tokens that the engine found much
    less likely than the learner.

    Source: truncated importance sampling (Ionides 2008), as applied to rollout engines by verl, TRL and slime.

    Args:
        logprobs_N: log-probability of each sampled token under the learner.
        rollout_logprobs_N: the same under the rollout engine.
        cap: upper bound of a weight, >= 1.
        level: compare the probability of the token, of the response, or of the response per token.
        sequence_N: the response that each token belongs to; required unless the level is `token`.

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

    A ratio far from 1 means that engine and learner disagree about the text, not that the text is
    good or bad, so it is left out instead of being weighted. Masked tokens should leave the
    denominators of the loss too (`aggregation.without_masked`), or every mask makes the step smaller.

    Source: rejection of outliers as in IcePop (arXiv 2510.18855), verl and slime.

    Args:
        logprobs_N: log-probability of each sampled token under the learner.
        rollout_logprobs_N: the same under the rollout engine.
        low: smallest ratio that counts, <= 1; 0 for no bound.
        high: largest ratio that counts, >= 1.
        level: mask single tokens, responses by their ratio, or responses by their ratio per token.
        sequence_N: the response that each token belongs to; required unless the level is `token`.

    Returns: `(weights_N, kept_N)`: weights, 0 where masked, and a bool, False where masked.
    """
    ratio_N = importance_ratio(logprobs_N.detach(), rollout_logprobs_N, level=level, sequence_N=sequence_N)
    kept_N = (ratio_N >= low) & (ratio_N <= high)
    return torch.where(kept_N, ratio_N, 0.0), kept_N
