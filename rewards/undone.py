"""Whether an answer is a calculation that is left for the reader to do.

A policy asked for 34 * 2 soon finds out that "34 * 2" equals the gold. It is equal, and it is
no answer.
"""

from __future__ import annotations

import re
from fractions import Fraction

_PLAIN = {r"\left": "", r"\right": "", r"\,": "", r"\!": "", r"\times": "*", r"\cdot": "*", r"\div": "/", "×": "*"}
_PLAIN |= {"·": "*", "÷": "/", "−": "-", "–": "-", "**": "^", "{,}": ""}
_FRACTION = re.compile(r"\\[dt]?frac\{?(-?\d+)\}?\{?(-?\d+)\}?")
_SIMPLE = re.compile(r"[-+]?\(?([-+]?\d+)/(\d+)\)?")
_SCIENTIFIC = re.compile(r"[-+]?\d+(?:\.\d+)?\*10\^\{?[-+]?\d+\}?")
_NUMBER = re.compile(r"[-+]?[\d,]*\.?\d+%?")
_APPROXIMATELY = re.compile(r"\\approx(?:eq)?(?![a-zA-Z])|≈")
# Between two operands; what follows a bracket or an operator is a sign.
_OPERATION = re.compile(r"[\d.)}\]|][-+*/:][-+]?[\d.({\[|\\]")


def after_approximation(answer: str, gold: str) -> str:
    r"""What follows the last "≈", where the gold is a plain number: "81 - 31 ≈ 40" says 40."""
    return _APPROXIMATELY.split(answer)[-1] if _is_plain(gold) else answer


def left_undone(answer: str, gold: str, question: str = "") -> bool:
    r"""Whether `answer` is an unevaluated calculation although the gold is a plain number.

    A fraction stays a number unless it divides evenly ("85/5") or is what the question asked to
    calculate; so does "3 \times 10^5". An equation is judged by its right side.
    """
    if not _is_plain(gold):
        return False
    side = _normal(answer).rpartition("=")[2]
    if not _OPERATION.search(side) or _SCIENTIFIC.fullmatch(side) or side == _normal(gold):
        return False
    simple = _SIMPLE.fullmatch(side)
    if simple is None:
        return True
    divides = int(simple[2]) == 0 or Fraction(int(simple[1]), int(simple[2])).denominator == 1
    return divides or re.search(rf"(?<![\d.]){re.escape(side)}(?![\d.])", _normal(question)) is not None


def _is_plain(gold: str) -> bool:
    return _NUMBER.fullmatch(_normal(gold)) is not None or _SIMPLE.fullmatch(_normal(gold)) is not None


def _normal(text: str) -> str:
    for mark, plain in _PLAIN.items():
        text = text.replace(mark, plain)
    return _FRACTION.sub(r"\1/\2", "".join(text.replace("$", "").split()))
