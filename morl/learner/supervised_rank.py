"""Supervised training of a language model on given responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from morl.algorithms import Aggregation, token_weights
from morl.learner.packing import Microbatch, build_batch
from morl.learner.policy import Policy
from morl.learner.rank import Rank
from morl.learner.rank_metrics import RankMetrics
from morl.learner.rows import Response, Row
from morl.model import load_policy
from morl.types import Batch, Encoded


@dataclass(frozen=True, slots=True)
class Example:
    """Tokens of a prompt, and of the response to learn."""

    prompt: Encoded
    answer_T: tuple[int, ...]
    """The response, end-of-turn token included."""

    @property
    def length(self) -> int:
        """Number of tokens of its row."""
        return len(self.prompt.token_ids_T) + len(self.answer_T)


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisedMetrics(RankMetrics):
    """Metrics of a supervised rank."""

    tokens: float = 0.0
    """Of the responses."""
    nats: float = 0.0
    """Sum of `-log pi(token)` over these tokens."""


class SupervisedRank(Rank[SupervisedMetrics]):
    """A rank that learns given responses: the loss is `-sum of w_t log pi(token t)` over their tokens."""

    metrics = SupervisedMetrics

    def _load(self) -> Any:
        return load_policy(self.settings.model, self.settings.dtype)

    def _module(self, model: Any) -> Policy:
        return Policy(model, temperature=1.0, banned_token_ids=())

    def _accumulate(self, micro: Microbatch) -> SupervisedMetrics:
        logprobs_N, _ = self.engine(micro)
        loss = -(logprobs_N * micro.weights_N).sum()
        # DeepSpeed averages gradients over ranks; the weights call for a sum.
        self.engine.backward(loss * self.ranks)
        nats = -float(logprobs_N.detach().sum())
        return SupervisedMetrics(loss=float(loss.detach()), tokens=float(len(logprobs_N)), nats=nats)

    def measure(self, batch: Batch, plan: Sequence[Sequence[Sequence[int]]]) -> dict[int, float]:
        """`-log pi(response)` in nats of this rank's rows, by row, without an update."""
        measured: dict[int, float] = {}
        for rows, micro, (logprobs_N, _) in self._forward(batch, plan[self.rank]):
            total_G = torch.zeros(max(1, len(rows))).index_add_(0, micro.sequence_N.cpu(), logprobs_N.cpu())
            measured |= {row: -float(total) for row, total in zip(rows, total_G, strict=False)}
        return measured


def example_batch(examples: Sequence[Example], aggregation: Aggregation) -> Batch:
    """One row per example, in order; the weights make the loss a mean over tokens or responses."""
    lengths_PG = torch.tensor([[len(example.answer_T)] for example in examples])
    scored_PG = torch.ones(lengths_PG.shape, dtype=torch.bool)
    weights_P = token_weights(lengths_PG, scored_PG, aggregation, int(lengths_PG.max()))[:, 0].tolist()
    pairs = enumerate(zip(examples, weights_P, strict=True))
    return build_batch(
        [Row(example.prompt, (Response(example.answer_T, weight),), p) for p, (example, weight) in pairs]
    )
