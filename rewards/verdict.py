"""Converts what a reward returned or raised to plain data that can cross a process boundary."""

from __future__ import annotations

import math
import numbers
from typing import Any, get_args

from morl.rewards.reward import Verdict
from morl.types import Status, TermScore

MAX_DETAIL = 300
"""Longest detail, in characters."""
_STATUSES = get_args(Status)


def to_term_score(returned: Any, seconds: float) -> TermScore:
    """A reward's return value as a term score; an invalid one gets status `error`.

    Never prints the returned object: printing a formula may never end.
    """
    verdict = returned if isinstance(returned, Verdict) else Verdict(returned, "error" if returned is None else "ok")
    if verdict.status not in _STATUSES or not isinstance(verdict.detail, str):
        return failure("error", "returned a verdict with an unknown status, or a detail that is not text", seconds)
    if verdict.value is None:
        if verdict.status in ("ok", "no_answer", "gated"):
            return failure("error", f"returned no score with status '{verdict.status}'", seconds)
        return failure(verdict.status, verdict.detail or "returned no score", seconds)
    if verdict.status not in ("ok", "no_answer"):
        return failure(verdict.status, verdict.detail or "failed", seconds)
    number = _number(verdict.value)
    if number is None:
        return failure("error", f"returned {type(verdict.value).__name__}, not a number", seconds)
    if not math.isfinite(number):
        return failure("error", f"returned {number}, not a finite number", seconds)
    return TermScore(number, verdict.status, clip(verdict.detail), seconds)


def _number(value: Any) -> float | None:
    if type(value) is float:
        return value
    try:
        if callable(getattr(value, "item", None)):  # a scalar of numpy or torch
            value = value.item()
        return float(value) if isinstance(value, numbers.Real) else None
    except (OverflowError, ValueError, TypeError, RuntimeError):
        return None


def failure(status: Status, detail: str, seconds: float = 0.0) -> TermScore:
    """A term score without a value, with its reason."""
    return TermScore(None, status, clip(detail), seconds)


def describe(error: BaseException) -> str:
    """An exception as one line. Of its arguments, only text and numbers are printed, never a formula."""
    parts = [str(part) for part in error.args if type(part) in (str, int, float, bool) and not _is_huge(part)]
    return clip(": ".join([type(error).__name__, *parts]))


def _is_huge(part: Any) -> bool:
    return type(part) is int and part.bit_length() > 1000


def clip(text: str) -> str:
    """The text on one line; the middle of a long one is cut."""
    if len(text) > 4 * MAX_DETAIL:
        text = text[: 2 * MAX_DETAIL] + text[-2 * MAX_DETAIL :]
    text = " ".join(text.encode("utf-8", "replace").decode().split())
    if len(text) <= MAX_DETAIL:
        return text
    half = (MAX_DETAIL - 3) // 2
    return f"{text[:half]} … {text[-half:]}"
