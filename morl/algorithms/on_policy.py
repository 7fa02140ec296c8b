"""The paper's objective: plain policy gradient on fresh samples."""

from __future__ import annotations

import torch

from morl.algorithms import loss


@loss("on_policy")
def on_policy(logprobs_N: torch.Tensor, advantages_N: torch.Tensor) -> torch.Tensor:
    """`-A * log pi(token)`.

    One update follows each rollout, so the policy that learns is the one that sampled:
    GRPO's ratio is 1, nothing is clipped, and no KL term is needed.

    Source: MiMo-VL (arXiv 2506.03569, 3.3). Assumes that the samples are on-policy up to
    the small mismatch between engine and learner, which importance weights correct.

    Args:
        logprobs_N: log-probability of each sampled token under the learner, with gradient.
        advantages_N: advantage of the token's sample.

    Returns: loss_N, to be weighted and summed.
    """
    return -advantages_N * logprobs_N
