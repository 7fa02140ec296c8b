"""Combines the terms of an objective into one score: pure functions of numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from morl.types import Score, TermScore

if TYPE_CHECKING:
    from morl.recipe import TermSpec


def scaled(value: float, scale: tuple[float, float] | None) -> float:
    """`(value - low) / (high - low)`, clipped to [0, 1]."""
    low, high = scale or (0.0, 1.0)
    return min(1.0, max(0.0, (value - low) / (high - low)))


def checked(term: TermSpec, score: TermScore) -> TermScore:
    """The score unchanged, or status `error` when a value lies outside [0, 1] and the term has no scale."""
    if score.value is None or term.scale is not None or 0.0 <= score.value <= 1.0:
        return score
    detail = f"returned {score.value:g}, outside [0, 1]: give the term a 'scale: [low, high]'"
    return replace(score, value=None, status="error", detail=detail)


def mixed(values: Sequence[float], weights: Sequence[float], combine: Literal["sum", "product"]) -> float:
    """Weighted mean `Σ w v / Σ w`, or product `Π v ** w`; in [0, 1] when the values are."""
    if combine == "product":
        result: float = math.prod(value**weight for value, weight in zip(values, weights, strict=True))
    else:
        # Scaling by a power of two prevents overflow of the sums and changes no bit of the result.
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
    """The score of one sample from the scores of its terms.

    A term behind a closed gate counts as 0, whatever its value. If a term has no value, the sample has no score;
    with `on_error: zero` a failed term counts as 0 instead. A gold that cannot be read is an error in the data and
    always leaves the sample without a score.
    """
    entries: dict[str, TermScore] = {}
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
        # Not `replace`, which takes twice the time: this runs for every sample.
        entries[term.name] = TermScore(score.value, status, score.detail, score.seconds, value, term.weight)
    values = [score.entered for score in entries.values()]
    known = [value for value in values if value is not None]
    complete = len(known) == len(values)
    return Score(mixed(known, [term.weight for term in terms], combine) if complete else None, entries)
