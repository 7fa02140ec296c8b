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
# Between two operands; what follows a bracket or an operator is a sign.
_OPERATION = re.compile(r"[\d.)}\]|][-+*/:][-+]?[\d.({\[|\\]")


def left_undone(answer: str, gold: str, question: str = "") -> bool:
    r"""Whether `answer` is an unevaluated calculation although the gold is a plain number.

    A fraction stays a number unless it divides evenly ("85/5") or is what the question asked to
    calculate; so does "3 \times 10^5". An equation is judged by its right side.
    """
    if not (_NUMBER.fullmatch(_normal(gold)) or _SIMPLE.fullmatch(_normal(gold))):
        return False
    side = re.split(r"=|\\approx|≈", _normal(answer))[-1]
    if not _OPERATION.search(side) or _SCIENTIFIC.fullmatch(side) or side == _normal(gold):
        return False
    simple = _SIMPLE.fullmatch(side)
    if simple is None:
        return True
    divides = int(simple[2]) == 0 or Fraction(int(simple[1]), int(simple[2])).denominator == 1
    return divides or re.search(rf"(?<![\d.]){re.escape(side)}(?![\d.])", _normal(question)) is not None


def _normal(text: str) -> str:
    for mark, plain in _PLAIN.items():
        text = text.replace(mark, plain)
    return _FRACTION.sub(r"\1/\2", "".join(text.replace("$", "").split()))
