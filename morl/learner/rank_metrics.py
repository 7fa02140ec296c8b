"""Metrics of an optimiser step, combined over micro-batches and then over ranks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar


def largest() -> Any:
    """A field of `RankMetrics` that is combined by its largest value instead of the sum."""
    return field(default=0.0, metadata={"combine": max})


def alike() -> Any:
    """A field of `RankMetrics` that has the same value on every rank."""
    return field(default=0.0, metadata={"combine": lambda values: next(iter(values))})


@dataclass(frozen=True, slots=True, kw_only=True)
class RankMetrics:
    """Metrics of any rank; subclasses add fields."""

    loss: float = 0.0
    grad_norm: float = alike()
    """Norm of the whole gradient; NaN if DeepSpeed reports none."""
    learning_rate: float = alike()
    microbatches: float = 0.0
    seconds: float = largest()
    """Of the slowest rank."""

    @property
    def skipped(self) -> float:
        """1 if the step changed nothing because loss or gradient is not finite, else 0."""
        return float(not math.isfinite(self.grad_norm))


M = TypeVar("M", bound=RankMetrics)


def add_up(parts: Sequence[M]) -> M:
    """Combine the metrics of several micro-batches, or of several ranks."""
    combiners = {metric.name: metric.metadata.get("combine", sum) for metric in fields(parts[0])}
    return type(parts[0])(
        **{name: combine(getattr(part, name) for part in parts) for name, combine in combiners.items()}
    )
