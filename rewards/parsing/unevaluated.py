"""Detects answers that are unevaluated calculations.

A policy that is asked for 34 * 2 soon learns that "34 * 2" equals the gold, but it is no answer.
"""

from __future__ import annotations

import re
from fractions import Fraction

from morl.rewards.parsing.latex import simply_written
from morl.rewards.parsing.plain_numbers import plain_value

_PLAIN = dict.fromkeys((r"\left", r"\right", r"\,", r"\!", r"\:", r"\;", r"\ ", "{,}"), "")
_PLAIN |= {r"^\circ": "", r"^{\circ}": "", r"\times": "*", r"\cdot": "*", r"\ast": "*", r"\div": "/", "**": "^"}
_FRACTION = re.compile(r"\\[cdt]?frac\{?(-?\d+(?:\.\d+)?)\}?\{?(-?\d+(?:\.\d+)?)\}?")
_MIXED = re.compile(r"(?<![\d.])(\d{1,9})\\[cdt]?frac(?:\{(\d{1,9})\}\{(\d{1,9})\}|(\d)(\d))")
_SIMPLE = re.compile(r"[-+]?\(?([-+]?\d+)/(-?\d+)\)?")
_SCIENTIFIC = re.compile(r"[-+]?\d+(?:\.\d+)?\*10\^\{?[-+]?\d+\}?")
_NUMBER = re.compile(r"[-+]?[\d,]*\.?\d+%?")
_UNIT = re.compile(r"\\(?:text|textbf|textrm|mathrm|mbox|rm)\b\s*\{[^{}\d]*\}(?:\^\{?\d\}?)?$")
_NAME = re.compile(r"[a-zA-Z](?:_\{?\w\}?)?=(?!.*=)")
_APPROXIMATELY = re.compile(r"\\approx(?:eq)?(?![a-zA-Z])|≈")
# Between two operands; what follows a bracket or an operator is a sign.
_OPERATION = re.compile(r"[\d.)}\]|][-+*/:][-+]?[\d.({\[|\\]")
_NAMED_FUNCTION = (
    r"\\(?:sqrt|[dt]?binom|log|ln|lg|exp|sin|cos|tan|cot|sec|csc|lfloor|lceil|gcd|sum|prod|int|lim)(?![a-zA-Z])"
)
_FUNCTION = re.compile(rf"!|\^(?!\{{?\\circ)|{_NAMED_FUNCTION}")
_MULTIPLE = re.compile(rf"[\d)}}\]]{_NAMED_FUNCTION}")
# Signs within words ("x-axis", "m/s") and the sign of a number in a list are no operations.
_CALCULATION = re.compile(rf"{_FUNCTION.pattern}|[\d)}}\]][-+*/]|\w[-+*/][\d({{\\]|\w\+\w|\)\(")
_EQUALS = re.compile(r"=(?![^{}=]*\})")  # but not that of "\sum_{i=1}"
_SENTENCE_END = re.compile(r"\.(?=\s|$)")


def after_approximation(answer: str, gold: str) -> str:
    r"""The part after the last "≈", if the gold is a plain number: 40 for "81 - 31 ≈ 40".

    A number that equals the gold is kept if the part after it is its rounding: 1/3 for "1/3 ≈ 0.333".
    """
    sides = [side.strip(" $") for side in _APPROXIMATELY.split(answer)]
    if len(sides) == 1 or not _is_plain(gold):
        return answer
    exact, rounded = plain_value(sides[-2].rpartition("=")[2].strip()), plain_value(sides[-1])
    if isinstance(exact, Fraction) and isinstance(rounded, Fraction) and exact == plain_value(gold) != rounded:
        step = Fraction(1, 10 ** len(sides[-1].partition(".")[2]))
        if abs(exact - rounded) <= step:
            return sides[-2]
    return sides[-1]


def left_undone(answer: str, gold: str, question: str = "") -> bool:
    r"""Whether `answer` repeats the calculation of the question, or is unevaluated where the gold is a plain number.

    For a plain gold, a fraction of integers counts as evaluated unless it divides evenly ("85/5") or is the
    calculation of the question; "3 \times 10^5" always does. A power, root, factorial or other function of numbers
    counts as evaluated unless it is the calculation of the question, or a number precedes it ("34\sqrt{4}"). Of an
    equation, the right side is judged.
    """
    gold = _NAME.sub("", _normal(gold))
    side = _EQUALS.split(_normal(answer))[-1]
    if not _is_plain(gold):
        quoted = _CALCULATION.search(side) and _quotes(question, side)
        return bool(quoted) and _signs(side) != _signs(_EQUALS.split(gold)[-1])
    if side == gold or _SCIENTIFIC.fullmatch(side):
        return False
    simple = _SIMPLE.fullmatch(side)
    if simple is None and _OPERATION.search(side):
        return True
    if simple is None and "." not in gold and _MULTIPLE.search(side):
        return True
    if simple is None and not _FUNCTION.search(side):
        return False
    if simple and (int(simple[2]) == 0 or Fraction(int(simple[1]), int(simple[2])).denominator == 1):
        return True
    return _quotes(question, side)


def _quotes(question: str, side: str) -> bool:
    """Whether the question contains the side, and not within a longer number, sum or product."""
    pattern = rf"(?<![\d+*/])(?<!\d\.){re.escape(side)}(?![+*/]|\.?\d)"
    return re.search(pattern, _normal(_SENTENCE_END.sub(";", question))) is not None


def _signs(formula: str) -> list[str]:
    """The characters of a formula in sorted order: "1+x" is not an unevaluated "x+1"."""
    return sorted(re.sub(r"\\[cdt]?frac|[\\{}()*/]", "", formula))


def _is_plain(gold: str) -> bool:
    return _NUMBER.fullmatch(_normal(gold)) is not None or _SIMPLE.fullmatch(_normal(gold)) is not None


def _normal(text: str) -> str:
    text = simply_written(text)
    for mark, plain in _PLAIN.items():
        text = text.replace(mark, plain)
    text = _UNIT.sub("", "".join(text.replace("$", "").split()))
    return _FRACTION.sub(r"\1/\2", _MIXED.sub(_improper, text))


def _improper(match: re.Match[str]) -> str:
    r"""`5\frac{1}{3}` as 16/3, not as 51/3."""
    top, bottom = int(match[2] or match[4]), int(match[3] or match[5])
    return f"{int(match[1]) * bottom + top}/{bottom}"
