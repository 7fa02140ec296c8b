"""What ranks measure in an optimiser step, added up over microbatches and then over ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar


def largest() -> Any:
    """A field of `RankMetrics` of which the largest value counts, and not the sum."""
    return field(default=0.0, metadata={"combine": max})


@dataclass(frozen=True, slots=True, kw_only=True)
class RankMetrics:
    """What a rank of any kind measures; each kind adds fields of its own."""

    loss: float = 0.0
    grad_norm: float = largest()
    """Norm of the whole gradient, which is the same on every rank; NaN when there is none."""
    learning_rate: float = largest()
    microbatches: float = 0.0
    seconds: float = largest()
    """Of the slowest rank."""

    @property
    def skipped(self) -> float:
        """1 when loss or gradient are not finite and the step changed nothing, else 0."""
        return float(not math.isfinite(self.grad_norm))


M = TypeVar("M", bound=RankMetrics)


def add_up(parts: Sequence[M]) -> M:
    """The metrics of several microbatches, or of several ranks, as one."""
    combine = {one.name: one.metadata.get("combine", sum) for one in fields(parts[0])}
    return type(parts[0])(**{name: of(getattr(part, name) for part in parts) for name, of in combine.items()})
