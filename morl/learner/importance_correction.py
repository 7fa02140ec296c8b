"""Importance correction of an update for the mismatch between rollout engine and learner."""

from __future__ import annotations

from dataclasses import replace

import torch

from morl.algorithms import masked, truncated, without_masked
from morl.learner.packing import Microbatch
from morl.recipe import AlgorithmSpec, ImportanceSpec
from morl.types import Batch


def importance_weights(micro: Microbatch, logprobs_N: torch.Tensor, spec: ImportanceSpec) -> torch.Tensor:
    """The importance weight of each token's loss, without gradient.

    Masked tokens get one too: their aggregation weight is 0 already.
    """
    if spec.kind == "none":
        return torch.ones_like(micro.weights_N)
    _, cap = spec.bounds
    return truncated(logprobs_N, micro.rollout_logprobs_N, cap, level=spec.level, sequence_N=micro.sequence_N)


def without_outliers(batch: Batch, logprobs_N: torch.Tensor, algorithm: AlgorithmSpec) -> Batch:
    """The batch with weight 0 on masked tokens and their weight moved to the kept ones.

    Weight moves among the tokens that share a denominator in the aggregation: those of a prompt, the batch, or a
    response. With `constant` there is no such group, and the weight is dropped.

    Args:
        batch: the whole batch, because a denominator's tokens may lie in different rows, and on different ranks.
        logprobs_N: of all targets, under the policy before the step.
        algorithm: with importance weights of kind `masked`.
    """
    # Renumber: samples and prompts that are left out of the update leave gaps.
    answers_N = torch.unique(batch.answers_N, return_inverse=True)[1]
    prompts_N = torch.unique(batch.prompts_N, return_inverse=True)[1]
    spec = algorithm.importance
    _, kept_N = masked(logprobs_N, batch.rollout_logprobs_N, *spec.bounds, level=spec.level, sequence_N=answers_N)
    if algorithm.aggregation == "constant":
        return replace(batch, weights_N=torch.where(kept_N, batch.weights_N, 0.0), kept_N=kept_N)
    groups = {
        "prompt_tokens": prompts_N,
        "batch_tokens": torch.zeros_like(prompts_N),
        "sequence_mean": answers_N,
    }
    weights_N = without_masked(batch.weights_N, kept_N, groups[algorithm.aggregation])
    return replace(batch, weights_N=weights_N, kept_N=kept_N)
