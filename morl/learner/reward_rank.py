"""A Bradley-Terry reward model in the learner: one score per response, one optimiser step on preference pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from morl.learner.hidden_states import last_hidden_states
from morl.learner.packing import Microbatch, build_batch
from morl.learner.rank import Rank, RankSettings
from morl.learner.rank_metrics import RankMetrics
from morl.learner.rows import Response, Row
from morl.model import load_reward_model
from morl.types import Batch, Encoded

Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TokenPair:
    """Tokens of a prompt and two responses; the score is read from a response's last token, which is included."""

    prompt: Encoded
    chosen_T: Tokens
    rejected_T: Tokens

    @property
    def length(self) -> int:
        """Number of tokens of its row."""
        return len(self.prompt.token_ids_T) + len(self.chosen_T) + len(self.rejected_T)


class RewardModel(torch.nn.Module):
    """Wraps a transformers model with a `score` head: a linear map of a response's last hidden state."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    @property
    def language_model(self) -> Any:
        """The transformers model, with LoRA layers in place if there are any."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model

    def forward(self, micro: Microbatch) -> torch.Tensor:
        """The score of each response, in the order of the batch.

        Returns: `scores_N`, float32.
        """
        whole = self.language_model
        hidden_BLH = last_hidden_states(whole, micro)
        scores_U1 = whole.score(hidden_BLH.flatten(0, 1)[micro.sources_U])
        scores_N: torch.Tensor = scores_U1.float()[micro.source_of_N, 0]
        return scores_N


def bradley_terry(chosen_N: torch.Tensor, rejected_N: torch.Tensor) -> torch.Tensor:
    """`-log sigmoid(s_chosen - s_rejected)`, in nats per pair (Bradley and Terry, 1952).

    The negative log-likelihood of the preferences if the chosen response wins with odds
    `exp(s_chosen) : exp(s_rejected)`.
    """
    return -torch.nn.functional.logsigmoid(chosen_N - rejected_N)


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardSettings(RankSettings):
    """Settings of a reward model's rank, beyond those of any rank."""

    centering: float
    """Weight of `(s_chosen + s_rejected)²`, which keeps scores near 0 (Eisenstein et al. 2023, arXiv 2312.09244)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardMetrics(RankMetrics):
    """Metrics of a reward model's rank."""

    pairs: float = 0.0
    right: float = 0.0
    """Number of pairs whose chosen response scores higher."""
    margin: float = 0.0
    """Sum of `s_chosen - s_rejected`."""


class RewardRank(Rank[RewardMetrics]):
    """A rank that learns from preference pairs."""

    settings: RewardSettings
    metrics = RewardMetrics

    def _load(self) -> Any:
        return load_reward_model(self.settings.model, self.settings.dtype)

    def _module(self, model: Any) -> RewardModel:
        module = RewardModel(model)
        module.language_model.score.requires_grad_(True)  # a new head must train even with LoRA
        return module

    def _accumulate(self, micro: Microbatch) -> RewardMetrics:
        chosen_N, rejected_N = self.engine(micro).view(-1, 2).unbind(dim=1)
        weights_N = micro.weights_N.view(-1, 2)[:, 0]
        loss_N = bradley_terry(chosen_N, rejected_N) + self.settings.centering * (chosen_N + rejected_N).square()
        loss = (loss_N * weights_N).sum()
        # DeepSpeed averages gradients over ranks; the weights call for a sum.
        self.engine.backward(loss * self.ranks)
        margin_N = (chosen_N - rejected_N).detach()
        return RewardMetrics(
            loss=float(loss.detach()),
            pairs=float(len(margin_N)),
            right=float((margin_N > 0).sum()),
            margin=float(margin_N.sum()),
        )

    def score(self, batch: Batch, plan: Sequence[Sequence[Sequence[int]]]) -> dict[int, tuple[float, ...]]:
        """Scores of this rank's rows, by row: of the chosen response, then of the rejected one."""
        scored: dict[int, tuple[float, ...]] = {}
        for rows, _, scores in self._forward(batch, plan[self.rank]):
            pairs = scores.view(-1, 2).tolist()
            scored |= {row: tuple(pair) for row, pair in zip(rows, pairs, strict=False)}
        return scored

    def publish(self, folder: Path, version: int) -> None:
        """Write the reward model as a checkpoint folder that `load_reward_model` reads (rank 0 writes)."""
        super().publish(folder, version)
        if self.rank == 0:
            model = self.engine.module.language_model
            model.config.architectures = [type(model).__name__]
            model.config.save_pretrained(folder)


def pair_batch(pairs: Sequence[TokenPair]) -> Batch:
    """One row per pair, with the chosen response first; the weights make the loss a mean over pairs."""
    return response_batch([(pair.prompt, (pair.chosen_T, pair.rejected_T)) for pair in pairs])


def response_batch(rows: Sequence[tuple[Encoded, Sequence[Tokens]]]) -> Batch:
    """Rows of a prompt and its responses, with one target per response, which reads its last token.

    Every response has weight 1 / rows. Target ids, advantages and rollout log-probabilities are not used.
    """
    weight = 1 / len(rows)
    return build_batch(
        [
            Row(prompt, tuple(_read_last_token(response_T, weight) for response_T in responses), number)
            for number, (prompt, responses) in enumerate(rows)
        ]
    )


def _read_last_token(response_T: Tokens, weight: float) -> Response:
    # A row does not feed a response's last token: one more token, and the response is fed whole.
    return Response((*response_T, 0), weight, loss_mask_T=(0,) * len(response_T) + (1,))
