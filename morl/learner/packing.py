"""From scored groups to the tensors of an update, and from those to microbatches.

A group is one row: its prompt once, then its answers, each attending to the prompt and to
itself alone, with positions that go on from the prompt's end. The result is the same as
with one row a sample; the prompt's work is done once instead of once a sample. Answers
that are token for token the same share their tokens too, and an answer's last token is
never fed in: nothing is predicted from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from morl.types import Batch, Features, Group

PROMPT = 0
PADDING = -1


def build_batch(groups: Sequence[Group], advantages_PG: torch.Tensor, weights_PG: torch.Tensor) -> Batch:
    """Lay groups out as rows.

    A row whose advantages are all 0 has no gradient and is left out, except that one row
    always stays, so that a step always has something to measure and to run.

    Args:
        groups: the scored groups of a step.
        advantages_PG: one advantage a sample; what stands beyond a smaller group's samples is not read.
        weights_PG: the weight of each token of a sample in the loss; 0 where it has no score.
    """
    weighted_P = ((advantages_PG * weights_PG) != 0).any(dim=1)
    if not weighted_P.any():
        # Equal loss without gradient: the longest-lived measure is the first group's.
        weighted_P[0] = True
    rows = [
        _row(group, advantages_PG[p, : len(group.samples_G)].tolist(), weights_PG[p, : len(group.samples_G)].tolist())
        for p, group in enumerate(groups)
        if weighted_P[p]
    ]
    starts = [0]
    for row in rows:
        starts.append(starts[-1] + len(row.token_ids))
    return Batch(
        token_ids_T=torch.tensor([i for row in rows for i in row.token_ids], dtype=torch.long),
        positions_AT=_positions(rows),
        segments_T=torch.tensor([i for row in rows for i in row.segments], dtype=torch.long),
        row_starts_B1=torch.tensor(starts, dtype=torch.long),
        sources_N=torch.tensor(
            [start + i for start, row in zip(starts, rows, strict=False) for i in row.sources], dtype=torch.long
        ),
        targets_N=torch.tensor([i for row in rows for i in row.targets], dtype=torch.long),
        advantages_N=torch.tensor([x for row in rows for x in row.advantages], dtype=torch.float32),
        rollout_logprobs_N=torch.tensor([x for row in rows for x in row.logprobs], dtype=torch.float32),
        weights_N=torch.tensor([x for row in rows for x in row.weights], dtype=torch.float32),
        features_B=tuple(row.features for row in rows) if any(row.features for row in rows) else (),
    )


def _positions(rows: Sequence[_Row]) -> torch.Tensor:
    """All rows' positions: one axis for text, three as soon as one row has pictures."""
    if not any(row.features for row in rows):
        return torch.tensor([[i for row in rows for i in row.positions]], dtype=torch.long)
    parts = []
    for row in rows:
        own = torch.tensor(row.positions, dtype=torch.long).expand(3, -1)
        if row.features is not None:
            own = torch.cat([row.features.positions_3T, own[:, row.features.positions_3T.shape[1] :]], dim=1)
        parts.append(own)
    return torch.cat(parts, dim=1)


@dataclass(slots=True)
class _Row:
    token_ids: list[int]
    positions: list[int]
    segments: list[int]
    sources: list[int]
    targets: list[int]
    advantages: list[float]
    logprobs: list[float]
    weights: list[float]
    features: Features | None


def _row(group: Group, advantages_G: list[float], weights_G: list[float]) -> _Row:
    prompt = group.prompt_ids_T
    row = _Row(list(prompt), list(range(len(prompt))), [PROMPT] * len(prompt), [], [], [], [], [], group.features)
    # A picture takes as many positions as its longer side, not as many as its tokens.
    after = len(prompt) if group.features is None else int(group.features.positions_3T.max()) + 1
    first_token_of: dict[tuple[int, ...], int] = {}
    for sample, advantage, weight in zip(group.samples_G, advantages_G, weights_G, strict=True):
        if not sample.token_ids_T:
            continue
        fed = sample.token_ids_T[:-1]
        if fed not in first_token_of:
            first_token_of[fed] = len(row.token_ids)
            row.token_ids += fed
            row.positions += range(after, after + len(fed))
            row.segments += [len(first_token_of)] * len(fed)
        start = first_token_of[fed]
        for t, (target, policy_wrote) in enumerate(zip(sample.token_ids_T, sample.loss_mask_T, strict=True)):
            if policy_wrote:
                row.sources.append(len(prompt) - 1 if t == 0 else start + t - 1)
                row.targets.append(target)
                row.logprobs.append(sample.logprobs_T[t])
                row.advantages.append(advantage)
                row.weights.append(weight)
    return row


def plan_microbatches(lengths_B: Sequence[int], budget: int, ranks: int) -> list[list[list[int]]]:
    """Which rows each rank runs together: `plan[rank][microbatch]` is a list of row numbers.

    Rows of like length go together; a microbatch of `b` rows of at most `l` tokens costs
    `b * l` and stays within `budget` tokens (a longer row runs alone). Every rank gets the
    same number of microbatches, some maybe empty, because collectives need all ranks, and
    a near-equal share of the cost. The plan decides speed and memory, never the update.
    """
    order = sorted(range(len(lengths_B)), key=lambda row: (-lengths_B[row], row))
    # Without this cap one big microbatch would leave the other ranks idle.
    share = max(lengths_B[order[0]], -(-sum(lengths_B) // ranks))
    limit = min(budget, share)
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
    most = max(len(own) for own in plan)
    return [own + [[]] * (most - len(own)) for own in plan]


@dataclass(frozen=True, slots=True)
class Microbatch:
    """A rectangle of padded rows, ready for the model. `B` rows of `L` tokens."""

    input_ids_BL: torch.Tensor
    positions: torch.Tensor
    """`BL`, or `3BL` where there are pictures."""
    attention_mask_B1LL: torch.Tensor
    """bool; True where the query (third axis) may attend to the key (last axis)."""
    sources_U: torch.Tensor
    """Distinct indices into the flattened B * L hidden states."""
    source_of_N: torch.Tensor
    """For each target the index into `sources_U`."""
    targets_N: torch.Tensor
    advantages_N: torch.Tensor
    rollout_logprobs_N: torch.Tensor
    weights_N: torch.Tensor
    features: Mapping[str, torch.Tensor] = field(default_factory=dict)
    """Further arguments of the model: the rows' pictures, end to end."""


def microbatch(batch: Batch, rows: Sequence[int], pad_id: int = 0) -> Microbatch:
    """Cut rows out of a batch and pad them to one length.

    No rows give the first row with weight 0: the rank takes part in collectives and changes nothing.
    """
    chosen = list(rows) or [0]
    starts, ends = batch.row_starts_B1[:-1][chosen], batch.row_starts_B1[1:][chosen]
    height, length = len(chosen), int((ends - starts).max())
    index_L = torch.arange(length)
    within_BL = index_L < (ends - starts)[:, None]
    source_BL = (starts[:, None] + index_L).clamp(max=len(batch.token_ids_T) - 1)
    segments_BL = torch.where(within_BL, batch.segments_T[source_BL], PADDING)
    keys_B1L, queries_BL1 = segments_BL[:, None, :], segments_BL[:, :, None]
    # Padding attends to the prompt as well, so that no softmax is over nothing.
    allowed_BLL = (index_L[None, :] <= index_L[:, None]) & ((keys_B1L == PROMPT) | (keys_B1L == queries_BL1))

    # The flat index of a source in the padded rectangle: b * L + its offset in the row.
    slot_of_row = torch.full((batch.rows,), -1)
    slot_of_row[chosen] = torch.arange(height)
    row_of_N = torch.bucketize(batch.sources_N, batch.row_starts_B1, right=True) - 1
    mine_N = slot_of_row[row_of_N] >= 0
    flat = slot_of_row[row_of_N[mine_N]] * length + batch.sources_N[mine_N] - batch.row_starts_B1[row_of_N[mine_N]]
    sources_U, source_of_N = torch.unique(flat, return_inverse=True)
    weights_N = batch.weights_N[mine_N]
    positions_ABL = torch.where(within_BL, batch.positions_AT[:, source_BL], 0)
    return Microbatch(
        input_ids_BL=torch.where(within_BL, batch.token_ids_T[source_BL], pad_id),
        positions=positions_ABL[0] if len(positions_ABL) == 1 else positions_ABL,
        attention_mask_B1LL=allowed_BLL[:, None],
        sources_U=sources_U,
        source_of_N=source_of_N,
        targets_N=batch.targets_N[mine_N],
        advantages_N=batch.advantages_N[mine_N],
        rollout_logprobs_N=batch.rollout_logprobs_N[mine_N],
        weights_N=weights_N if rows else torch.zeros_like(weights_N),
        features=_together([batch.features_B[row] for row in chosen] if batch.features_B else []),
    )


def _together(features: Sequence[Features | None]) -> dict[str, torch.Tensor]:
    tensors = [own.tensors for own in features if own is not None]
    return {
        name: torch.cat([own[name] for own in tensors if name in own])
        for name in dict.fromkeys(n for own in tensors for n in own)
    }
