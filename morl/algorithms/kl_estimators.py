"""Estimators of KL(policy || reference) from one sampled token each.

With `x = log pi - log pi_ref` and a token drawn from pi, after Schulman, "Approximating KL
divergence" (2020). A loss is differentiated with the sampled token held fixed, so an estimator's
mean and its gradient's mean are two different things:

| | value | its mean | gradient | its mean |
|---|---|---|---|---|
| k1 | `x` | KL(pi, ref), unbiased | `grad log pi` | 0: no use as a loss |
| k2 | `x^2 / 2` | near KL(pi, ref) while the two are close | `x * grad log pi` | grad KL(pi, ref), unbiased |
| k3 | `exp(-x) - 1 + x` | KL(pi, ref), unbiased | `(1 - exp(-x)) * grad log pi` | grad KL(ref, pi), the other way |

So k1 and k3 are for measuring (k3 has the smaller variance and is never negative) and k2 is for
learning: it is the default of a recipe's KL term, and the metric is k3. GRPO (arXiv 2402.03300)
learns with k3: close to k2 while x is small, but its gradient is bounded where the policy has become
likelier than the reference, and unbounded where it has become less likely.

"Unbiased" refers to the next token's distribution after a given prefix; as usual for a KL loss, it
ignores that a token also leads to other prefixes. If the tokens come from a distribution other than
pi, multiply by importance weights without gradient.
"""

from __future__ import annotations

from typing import Literal

import torch

from morl.algorithms.ratio import BOUND

Estimator = Literal["k1", "k2", "k3"]


def kl(logprobs_N: torch.Tensor, reference_logprobs_N: torch.Tensor, estimator: Estimator) -> torch.Tensor:
    """KL(policy || reference) of each token by one of the estimators above.

    Args:
        logprobs_N: log-probability of each sampled token under the policy, with gradient.
        reference_logprobs_N: the same under the reference; it gets no gradient.
        estimator: one of the three.

    Returns: kl_N, in nats, to be weighted, summed and minimised. The log ratio is clamped to [-20, 20], without
    gradient beyond.
    Raises: ValueError for an unknown estimator.
    """
    x_N = (logprobs_N - reference_logprobs_N.detach()).clamp(-BOUND, BOUND)
    if estimator == "k1":
        return x_N
    if estimator == "k2":
        return x_N.square() / 2
    if estimator == "k3":
        # exp(-x) - 1 would lose every digit where x is small.
        return torch.expm1(-x_N) + x_N
    raise ValueError(f"unknown estimator of KL {estimator!r}")
