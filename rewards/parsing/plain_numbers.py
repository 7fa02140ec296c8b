r"""Comparison of plain numbers and sets of integers without computer algebra; most answers are such.

The results are those of math-verify, at a thousandth of the cost.
"""

from __future__ import annotations

import re
from fractions import Fraction

ROUNDING = Fraction(1, 10**6)
"""math-verify rounds to this in some comparisons: numbers that differ by about as little are left to it."""

_NUMBER = re.compile(
    r"""
    (-?) (?: (?P<whole>\d{1,9}|\d{1,3}(?:,\d{3}){1,2}) (?P<decimals>\.\d{1,6})?
           | \\[dt]?frac \{ (?P<top>-?\d{1,9}) \} \{ (?P<bottom>\d{1,9}) \}
           | (?P<dividend>\d{1,9}) / (?P<divisor>\d{1,9}) )
    """,
    re.VERBOSE | re.ASCII,
)
_SET = re.compile(r"(?:\\left)?\\\{\s*(-?\d{1,9}(?:\s*,\s*-?\d{1,9})*)\s*(?:\\right)?\\\}", re.ASCII)


def plain_value(latex: str) -> Fraction | frozenset[int] | None:
    r"""The value of a number like `-1,234.5`, `3/4` or `\frac{3}{4}`, or of a set like `\{1, -2\}`; else None."""
    if match := _NUMBER.fullmatch(latex):
        sign = -1 if match[1] else 1
        if match["whole"]:
            return sign * Fraction(match["whole"].replace(",", "") + (match["decimals"] or ""))
        bottom = int(match["bottom"] or match["divisor"])
        return sign * Fraction(int(match["top"] or match["dividend"]), bottom) if bottom else None
    if match := _SET.fullmatch(latex):
        return frozenset(map(int, match[1].split(",")))
    return None


_BASED = re.compile(r"([0-9A-F]{1,60})_\{?\s?([1-9][0-9]?)\s?\}?", re.ASCII)


def _in_base(number: re.Match[str]) -> int | str:
    """The value of `1011_2`; the text itself if the base has no such digits."""
    try:
        return int(number[1], int(number[2]))
    except ValueError:
        return number.group().translate(_BRACES)


_BRACES = dict.fromkeys(map(ord, "{} "))


def compared(gold: str, answer: str) -> bool | None:
    """Whether both are the same number or the same set; None where math-verify must decide."""
    ours, theirs = _BASED.fullmatch(gold), _BASED.fullmatch(answer)
    if ours and theirs:
        return _in_base(ours) == _in_base(theirs)
    x, y = plain_value(gold), plain_value(answer)
    if isinstance(x, Fraction) and isinstance(y, Fraction):
        return None if 0 < abs(x - y) <= 2 * ROUNDING else x == y
    return x == y if isinstance(x, frozenset) and isinstance(y, frozenset) else None
