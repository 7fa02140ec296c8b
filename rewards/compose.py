"""How the terms of an objective become one score: pure functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from morl.types import Score, TermScore

if TYPE_CHECKING:
    from morl.recipe import TermSpec


def scaled(value: float, scale: tuple[float, float] | None) -> float:
    """`(value - low) / (high - low)`, cut off to [0, 1]."""
    low, high = scale or (0.0, 1.0)
    return min(1.0, max(0.0, (value - low) / (high - low)))


def checked(term: TermSpec, score: TermScore) -> TermScore:
    """The score itself; or status `error` where a value outside [0, 1] comes without a scale."""
    if score.value is None or term.scale is not None or 0.0 <= score.value <= 1.0:
        return score
    detail = f"returned {score.value:g}, outside [0, 1]: give the term a 'scale: [low, high]'"
    return replace(score, value=None, status="error", detail=detail)


def mixed(values: Sequence[float], weights: Sequence[float], combine: Literal["sum", "product"]) -> float:
    """Weighted mean `Σ w v / Σ w`, or product `Π v ** w`; in [0, 1] when the values are."""
    if combine == "product":
        result: float = math.prod(value**weight for value, weight in zip(values, weights, strict=True))
    else:
        # Scaled by a power of two, which changes no bit of the result, so that no sum is too large for a number.
        exponent = math.frexp(max(weights))[1]
        shares = [math.ldexp(weight, -exponent) for weight in weights]
        result = math.fsum(v * w for v, w in zip(values, shares, strict=True)) / math.fsum(shares)
    return min(1.0, max(0.0, result))


def is_open(term: TermSpec, scores: Mapping[str, TermScore]) -> bool:
    """Whether the term counts: the value of its gate's term, before scale, reaches the threshold."""
    if term.gate is None:
        return True
    value = scores[term.gate.term].value
    return value is not None and value >= term.gate.at_least


def combine_terms(
    terms: Sequence[TermSpec], scores: Mapping[str, TermScore], combine: Literal["sum", "product"]
) -> Score:
    """The score of one sample from what each term said of it.

    A term behind a closed gate counts as 0, whatever it said. A term without a value leaves the
    sample without a score, or counts as 0 if it failed and its `on_error` is `zero`; a gold answer
    that cannot be read is the data's fault and never counts.
    """
    shown: dict[str, TermScore] = {}
    value: float | None
    for term in terms:
        score = scores[term.name]
        status = score.status
        if not is_open(term, scores):
            status, value = "gated", 0.0
        elif score.value is not None:
            value = scaled(score.value, term.scale)
        else:
            value = 0.0 if term.on_error == "zero" and status != "bad_gold" else None
        # Written out, because this runs for every sample and `replace` takes twice the time.
        shown[term.name] = TermScore(score.value, status, score.detail, score.seconds, value, term.weight)
    values = [score.entered for score in shown.values()]
    known = [value for value in values if value is not None]
    complete = len(known) == len(values)
    return Score(mixed(known, [term.weight for term in terms], combine) if complete else None, shown)
