"""The rows of a batch: a prompt with the responses to learn from, and their weights in the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from morl.types import Encoded, Group


@dataclass(frozen=True, slots=True)
class Response:
    """One response of a row."""

    token_ids_T: tuple[int, ...]
    weight: float
    """Of each learned token in the loss."""
    advantage: float = 1.0
    loss_mask_T: tuple[int, ...] | None = None
    """1 on learned tokens, 0 on context; None if all are learned."""
    logprobs_T: tuple[float, ...] | None = None
    """Log-probability of each token when it was sampled; None for a response that no engine sampled."""

    def __post_init__(self) -> None:
        for per_token in (self.loss_mask_T, self.logprobs_T):
            if per_token is not None and len(per_token) != len(self.token_ids_T):
                raise ValueError(f"{len(self.token_ids_T)} tokens, but {len(per_token)} masks or log-probs")


@dataclass(frozen=True, slots=True)
class Row:
    """A prompt and the responses that share its tokens."""

    prompt: Encoded
    responses: tuple[Response, ...]
    group: int
    """Number of its group, or example, in the step; several rows may belong to one."""


def group_rows(
    groups: Sequence[Group],
    advantages_PG: torch.Tensor,
    weights_PG: torch.Tensor,
    *,
    share: bool = True,
    keep_zeros: bool = False,
) -> list[Row]:
    """The rows that a policy learns from.

    A sample with weight 0 has no gradient and is left out, as is one with advantage 0 unless `keep_zeros`.
    One row always stays, so that the step has something to run and to measure.

    Args:
        groups: the scored groups of a step.
        advantages_PG: one advantage per sample; entries beyond a smaller group's samples are not read.
        weights_PG: the weight of each token of a sample in the loss; 0 where it has no score.
        share: whether the responses of a group share one row; else each has a row with its own copy of the prompt.
        keep_zeros: keep samples with advantage 0: for a loss with other terms than the advantage, or where their
            tokens affect the weights of others.
    """
    counts_PG = (weights_PG != 0) & ((advantages_PG != 0) | keep_zeros)
    if not counts_PG.any():
        counts_PG[0, : None if share else 1] = True
    rows: list[Row] = []
    for number, (group, counts_G) in enumerate(zip(groups, counts_PG.tolist(), strict=True)):
        # Smaller groups have fewer samples than the tensors have columns.
        per_sample = (group.samples_G, counts_G, advantages_PG[number].tolist(), weights_PG[number].tolist())
        responses = tuple(
            Response(sample.token_ids_T, weight, advantage, sample.loss_mask_T, sample.logprobs_T)
            for sample, counts, advantage, weight in zip(*per_sample, strict=False)
            if counts
        )
        parts = [responses] if share else [(response,) for response in responses]
        rows += [Row(group.encoded, part, number) for part in parts if part]
    return rows
