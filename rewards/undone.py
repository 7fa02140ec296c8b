"""Whether an answer is a calculation that is left for the reader to do.

A policy asked for 34 * 2 soon finds out that "34 * 2" equals the gold. It is equal, and it is
no answer.
"""

from __future__ import annotations

import re
from fractions import Fraction

from morl.rewards.plain import plain_value

_PLAIN = {r"\left": "", r"\right": "", r"\,": "", r"\!": "", r"\times": "*", r"\cdot": "*", r"\div": "/", "×": "*"}
_PLAIN |= {"·": "*", "÷": "/", "−": "-", "–": "-", "**": "^", "{,}": ""}
_FRACTION = re.compile(r"\\[dt]?frac\{?(-?\d+)\}?\{?(-?\d+)\}?")
_SIMPLE = re.compile(r"[-+]?\(?([-+]?\d+)/(-?\d+)\)?")
_SCIENTIFIC = re.compile(r"[-+]?\d+(?:\.\d+)?\*10\^\{?[-+]?\d+\}?")
_NUMBER = re.compile(r"[-+]?[\d,]*\.?\d+%?")
_UNIT = re.compile(r"\\(?:text|textbf|textrm|mathrm|mbox|rm)\b\s*\{[^{}\d]*\}(?:\^\{?\d\}?)?$")
_NAME = re.compile(r"[a-zA-Z](?:_\{?\w\}?)?=(?!.*=)")
_APPROXIMATELY = re.compile(r"\\approx(?:eq)?(?![a-zA-Z])|≈")
# Between two operands; what follows a bracket or an operator is a sign.
_OPERATION = re.compile(r"[\d.)}\]|][-+*/:][-+]?[\d.({\[|\\]")
_FUNCTION = re.compile(
    r"!|\^(?!\{?\\circ)|√|\\(?:sqrt|[dt]?binom|log|ln|lg|exp|sin|cos|tan|cot|sec|csc|lfloor|lceil|gcd|sum|prod|int|lim)"
    r"(?![a-zA-Z])"
)


def after_approximation(answer: str, gold: str) -> str:
    r"""What follows the last "≈", where the gold is a plain number: "81 - 31 ≈ 40" says 40.

    A number that equals the gold stays the answer if what follows is its rounding: "1/3 ≈ 0.333" says 1/3.
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
    r"""Whether `answer` is an unevaluated calculation although the gold is a plain number.

    A fraction stays a number unless it divides evenly ("85/5") or is what the question asked to
    calculate; so does "3 \times 10^5". A power, root, factorial or other function of numbers is a value
    unless the question asked to calculate it. An equation is judged by its right side.
    """
    gold = _NAME.sub("", _normal(gold))
    if not _is_plain(gold):
        return False
    side = _normal(answer).rpartition("=")[2]
    if side == gold or _SCIENTIFIC.fullmatch(side):
        return False
    simple = _SIMPLE.fullmatch(side)
    if simple is None and _OPERATION.search(side):
        return True
    if simple is None and not _FUNCTION.search(side):
        return False
    if simple and (int(simple[2]) == 0 or Fraction(int(simple[1]), int(simple[2])).denominator == 1):
        return True
    return re.search(rf"(?<![\d.]){re.escape(side)}(?![\d.])", _normal(question)) is not None


def _is_plain(gold: str) -> bool:
    return _NUMBER.fullmatch(_normal(gold)) is not None or _SIMPLE.fullmatch(_normal(gold)) is not None


def _normal(text: str) -> str:
    for mark, plain in _PLAIN.items():
        text = text.replace(mark, plain)
    return _FRACTION.sub(r"\1/\2", _UNIT.sub("", "".join(text.replace("$", "").split())))
