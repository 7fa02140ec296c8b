"""Which rows of a batch have a loss that is not finite."""

from __future__ import annotations

from morl.learner.packing import plan_microbatches
from morl.learner.rank_group import Ranks
from morl.types import Batch


def find_spoiled_rows(ranks: Ranks, count: int, batch: Batch) -> list[int]:
    """Rows of a batch whose loss is not finite, each computed alone by one of `count` ranks; nothing is learnt."""
    plan = plan_microbatches(batch.row_starts_B1.diff().tolist(), 1, count)
    return sorted(row for part in ranks.call("spoiled_rows", batch, plan) for row in part)
