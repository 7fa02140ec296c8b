"""From rows to the tensors of an update, and from those to micro-batches.

A row holds a prompt once, then its responses. Each attends only to the prompt and to
itself, with positions that continue from the prompt's end. The result is the same as
with one row per sample, but the prompt is computed once. Identical responses share
their tokens too. A response's last token is not fed in: nothing is predicted from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from morl.image_features import concatenate_features
from morl.learner.rows import Row
from morl.learner.shared_prefix_attention import Layout, worth_it
from morl.types import Batch

PROMPT = 0
PADDING = -1


def build_batch(rows: Sequence[Row]) -> Batch:
    """Lay rows end to end. `rows` must not be empty."""
    laid_out = [_lay_out(row) for row in rows]
    starts = [0]
    for laid in laid_out:
        starts.append(starts[-1] + len(laid.token_ids))
    return Batch(
        token_ids_T=torch.tensor([i for laid in laid_out for i in laid.token_ids], dtype=torch.long),
        positions_AT=_positions(laid_out),
        segments_T=torch.tensor([i for laid in laid_out for i in laid.segments], dtype=torch.long),
        row_starts_B1=torch.tensor(starts, dtype=torch.long),
        sources_N=torch.tensor(
            [start + i for start, laid in zip(starts, laid_out, strict=False) for i in laid.sources], dtype=torch.long
        ),
        targets_N=torch.tensor([i for laid in laid_out for i in laid.targets], dtype=torch.long),
        answers_N=_numbered(laid_out),
        prompts_N=torch.tensor([laid.row.group for laid in laid_out for _ in laid.targets], dtype=torch.long),
        advantages_N=torch.tensor([x for laid in laid_out for x in laid.advantages], dtype=torch.float32),
        rollout_logprobs_N=torch.tensor([x for laid in laid_out for x in laid.logprobs], dtype=torch.float32),
        weights_N=torch.tensor([x for laid in laid_out for x in laid.weights], dtype=torch.float32),
        features_B=tuple(row.prompt.features for row in rows) if any(row.prompt.features for row in rows) else (),
    )


@dataclass(slots=True)
class _LaidOut:
    """A row as lists over its tokens, and over its targets."""

    row: Row
    token_ids: list[int]
    positions: list[int]
    segments: list[int]
    sources: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    responses: list[int] = field(default_factory=list)
    advantages: list[float] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)


def _lay_out(row: Row) -> _LaidOut:
    prompt, features = row.prompt.token_ids_T, row.prompt.features
    laid = _LaidOut(row, list(prompt), list(range(len(prompt))), [PROMPT] * len(prompt))
    # An image takes as many positions as its longer side has patches, fewer than it has tokens.
    after = len(prompt) if features is None else int(features.positions_3T.max()) + 1
    first_token_of: dict[tuple[int, ...], int] = {}
    for number, response in enumerate(row.responses):
        if not response.token_ids_T:
            continue
        fed = response.token_ids_T[:-1]
        if fed not in first_token_of:
            first_token_of[fed] = len(laid.token_ids)
            laid.token_ids += fed
            laid.positions += range(after, after + len(fed))
            laid.segments += [len(first_token_of)] * len(fed)
        start, count = first_token_of[fed], len(response.token_ids_T)
        learned_T, logprobs_T = response.loss_mask_T or (1,) * count, response.logprobs_T or (0.0,) * count
        per_token = zip(response.token_ids_T, learned_T, logprobs_T, strict=True)
        for t, (target, learned, logprob) in enumerate(per_token):
            if learned:
                laid.sources.append(len(prompt) - 1 if t == 0 else start + t - 1)
                laid.targets.append(target)
                laid.logprobs.append(logprob)
                laid.responses.append(number)
                laid.advantages.append(response.advantage)
                laid.weights.append(response.weight)
    return laid


def _numbered(laid_out: Sequence[_LaidOut]) -> torch.Tensor:
    """The response of each target, numbered through all rows."""
    first, numbers = 0, []
    for laid in laid_out:
        numbers += [first + response for response in laid.responses]
        first += len(laid.row.responses)
    return torch.tensor(numbers, dtype=torch.long)


def _positions(laid_out: Sequence[_LaidOut]) -> torch.Tensor:
    """All rows' positions: one axis for text, three if any row has images."""
    if not any(laid.row.prompt.features for laid in laid_out):
        return torch.tensor([[i for laid in laid_out for i in laid.positions]], dtype=torch.long)
    parts = []
    for laid in laid_out:
        positions_3T = torch.tensor(laid.positions, dtype=torch.long).expand(3, -1)
        if (features := laid.row.prompt.features) is not None:
            of_prompt_3T = features.positions_3T
            positions_3T = torch.cat([of_prompt_3T, positions_3T[:, of_prompt_3T.shape[1] :]], dim=1)
        parts.append(positions_3T)
    return torch.cat(parts, dim=1)


def plan_microbatches(lengths_B: Sequence[int], budget: int, ranks: int) -> list[list[list[int]]]:
    """Assign rows to ranks and micro-batches: `plan[rank][microbatch]` is a list of row numbers.

    Rows of similar length go together; a micro-batch of `b` rows of at most `l` tokens costs
    `b * l` and stays within `budget` tokens (a longer row runs alone). Every rank gets about the
    same cost, and the same number of micro-batches, because collectives need all ranks; some may be
    empty. The plan affects speed and memory, never the update.
    """
    order = sorted(range(len(lengths_B)), key=lambda row: (-lengths_B[row], row))
    # Without this cap one large micro-batch would leave the other ranks idle.
    share = max(lengths_B[order[0]], -(-sum(lengths_B) // ranks))
    limit = min(budget, share) if ranks > 1 else budget
    microbatches: list[list[int]] = []
    for row in order:
        if microbatches and (len(microbatches[-1]) + 1) * lengths_B[microbatches[-1][0]] <= limit:
            microbatches[-1].append(row)
        else:
            microbatches.append([row])
    plan: list[list[list[int]]] = [[] for _ in range(ranks)]
    cost = [0] * ranks
    for rows in microbatches:
        rank = cost.index(min(cost))
        plan[rank].append(sorted(rows))
        cost[rank] += len(rows) * lengths_B[rows[0]]
    most = max(len(of_rank) for of_rank in plan)
    return [of_rank + [[]] * (most - len(of_rank)) for of_rank in plan]


@dataclass(frozen=True, slots=True)
class Microbatch:
    """`B` rows padded to `L` tokens, ready for the model."""

    input_ids_BL: torch.Tensor
    positions: torch.Tensor
    """`BL`, or `3BL` if the batch has images."""
    layout: Layout
    """Token counts of each row's prompt and responses."""
    attention_mask_B1LL: torch.Tensor | None
    """bool; True where the query (third axis) may attend to the key (last axis). None if attention uses the layout."""
    indices_N: torch.Tensor
    """Index of each target among the batch's targets."""
    sources_U: torch.Tensor
    """Distinct indices into the flattened B * L hidden states."""
    source_of_N: torch.Tensor
    """Index of each target's source in `sources_U`."""
    targets_N: torch.Tensor
    sequence_N: torch.Tensor
    """The response that each target belongs to, numbered from 0 within the micro-batch."""
    advantages_N: torch.Tensor
    rollout_logprobs_N: torch.Tensor
    weights_N: torch.Tensor
    reference_logprobs_N: torch.Tensor | None = None
    kept_N: torch.Tensor | None = None
    returns_N: torch.Tensor | None = None
    features: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """The rows' images, concatenated, by argument name of the model."""
    absent: tuple[str, ...] = ()
    """Names of pixel tensors that other rows of the batch have but none of these rows."""

    @property
    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of the model's body."""
        shared: dict[str, Any] = {
            "input_ids": self.input_ids_BL,
            "position_ids": self.positions,
            "use_cache": False,
            **self.features,
        }
        if self.attention_mask_B1LL is None:
            return shared | {"layout": self.layout}
        return shared | {"attention_mask": self.attention_mask_B1LL}


def microbatch(batch: Batch, rows: Sequence[int], *, dense: bool = True) -> Microbatch:
    """Cut rows out of a batch and pad them to one length.

    `dense`: make a dense mask where one attention call with it is faster than several without.

    Without rows, returns the first row with weight 0, so that the rank takes part in collectives.
    """
    chosen = list(rows) or [0]
    starts, ends = batch.row_starts_B1[:-1][chosen], batch.row_starts_B1[1:][chosen]
    height, length = len(chosen), int((ends - starts).max())
    index_L = torch.arange(length)
    within_BL = index_L < (ends - starts)[:, None]
    source_BL = (starts[:, None] + index_L).clamp(max=len(batch.token_ids_T) - 1)
    layout = tuple(_layout(batch.segments_T[start:end]) for start, end in zip(starts, ends, strict=True))
    # Flat index of a source in the padded rows: b * L + its offset in the row.
    slot_of_row = torch.full((batch.rows,), -1)
    slot_of_row[chosen] = torch.arange(height)
    row_of_N = torch.bucketize(batch.sources_N, batch.row_starts_B1, right=True) - 1
    mine_N = slot_of_row[row_of_N] >= 0
    flat = slot_of_row[row_of_N[mine_N]] * length + batch.sources_N[mine_N] - batch.row_starts_B1[row_of_N[mine_N]]
    sources_U, source_of_N = torch.unique(flat, return_inverse=True)
    weights_N = batch.weights_N[mine_N]
    positions_ABL = torch.where(within_BL, batch.positions_AT[:, source_BL], 0)
    features = concatenate_features([batch.features_B[row] for row in chosen] if batch.features_B else [])
    all_features = [of_row for of_row in batch.features_B or () if of_row is not None]
    pixels = {name for of_row in all_features for name in of_row.tensors if "pixel" in name}
    return Microbatch(
        input_ids_BL=torch.where(within_BL, batch.token_ids_T[source_BL], 0),
        positions=positions_ABL[0] if len(positions_ABL) == 1 else positions_ABL,
        layout=layout,
        attention_mask_B1LL=_mask(batch.segments_T[source_BL], within_BL)
        if dense and not worth_it(layout, length)
        else None,
        indices_N=mine_N.nonzero()[:, 0],
        sources_U=sources_U,
        source_of_N=source_of_N,
        targets_N=batch.targets_N[mine_N],
        sequence_N=torch.unique(batch.answers_N[mine_N], return_inverse=True)[1],
        advantages_N=batch.advantages_N[mine_N],
        rollout_logprobs_N=batch.rollout_logprobs_N[mine_N],
        weights_N=weights_N if rows else torch.zeros_like(weights_N),
        reference_logprobs_N=None if batch.reference_logprobs_N is None else batch.reference_logprobs_N[mine_N],
        kept_N=None if batch.kept_N is None else batch.kept_N[mine_N],
        returns_N=None if batch.returns_N is None else batch.returns_N[mine_N],
        features=features,
        absent=tuple(sorted(pixels - features.keys())),
    )


def _layout(segments_T: torch.Tensor) -> tuple[int, tuple[int, ...]]:
    prompt, *responses = torch.bincount(segments_T, minlength=1).tolist()
    return prompt, tuple(responses)


def _mask(segments_BL: torch.Tensor, within_BL: torch.Tensor) -> torch.Tensor:
    """The layout as a dense mask, `B1LL`."""
    segments_BL = torch.where(within_BL, segments_BL, PADDING)
    keys_B1L, queries_BL1 = segments_BL[:, None, :], segments_BL[:, :, None]
    causal_LL = torch.ones(segments_BL.shape[1], segments_BL.shape[1], dtype=torch.bool).tril()
    # Padding attends to the prompt too, so that no softmax is empty.
    return (causal_LL & ((keys_B1L == PROMPT) | (keys_B1L == queries_BL1)))[:, None]
