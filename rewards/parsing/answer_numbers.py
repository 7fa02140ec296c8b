"""The numbers that an answer offers."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from typing import Any

from morl.rewards.parsing.answer import (
    Number,
    boxes,
    denied,
    final_text,
    first_together,
    last_together,
    numbers,
    stated,
)
from morl.rewards.parsing.scale_words import scaled
from morl.rewards.parsing.stated_values import answer_text

MAX_TAIL = 2000
"""Characters of an answer that are searched for numbers."""


def answer_numbers(response: str) -> list[Number]:
    """The numbers that the answer offers; a good answer offers one."""
    text = _plain(answer_text(final_text(response)))
    boxed = last_together(text, boxes(text))
    if boxed:
        return [item for box in boxed for item in _result(box.text[:MAX_TAIL])]
    statement = stated(text)
    if statement is not None:
        candidates = first_together(statement[:MAX_TAIL], _affirmed(statement[:MAX_TAIL]))
        if candidates:
            return candidates
    tail = text[-MAX_TAIL:]
    candidates = _affirmed(tail)
    together = last_together(tail, candidates)
    return candidates[-len(together) :] if together else []


def _affirmed(text: str) -> list[Number]:
    """The numbers that a text does not deny: of "4, not 3" only the 4."""
    return [_whole_term(text, number) for number in numbers(text) if not denied(text, number)]


def _result(text: str) -> list[Number]:
    """The numbers after the last equals sign: of "2 + 3 = 5" only the 5."""
    result = text.rpartition("=")[2]
    result = result if numbers(result) else text
    return [_whole_term(result, number, boxed=True) for number in numbers(result)]


_SUPERSCRIPT = re.compile(r"(?<=[0-9])⁻?[⁰¹²³⁴⁵⁶⁷⁸⁹]{1,9}")
_LOWERED = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


def _plain(text: str) -> str:
    """The text with superscripts and words of scale as plain numbers."""
    return scaled(_SUPERSCRIPT.sub(lambda match: "^" + match.group().translate(_LOWERED), text))


_TERM_BEFORE = re.compile(
    r"""
    (?: (?: √ | \\sqrt (?:\[[^\[\]]*\])? ) [ ]? [({]? [ ]?
      | \\[cdt]?frac [ ]? \{ (?: [^{}]* \} [ ]? \{ )?
      | (?: π | \\pi ) [ ]? (?: [*/×·] | \\cdot )? [ ]?
      | (?: [0-9] | (?<![A-Za-z])[xyz] ) [ ]? (?: [+×*] | \b(?:plus|times)\b ) [ ]? ) $
    """,
    re.VERBOSE,
)
_TERM_AFTER = re.compile(r"[ ]?(?:\\,|\\cdot|[*×·])?[ ]?(?:\\?pi\b|π|√|\\sqrt)")
# Outside a box, "5x" may mean "five times".
_VARIABLE_AFTER = re.compile(r"\s?[*/]?\s?[xyz](?![A-Za-z])")


def _whole_term(text: str, number: Number, *, boxed: bool = False) -> Number:
    """The number, without a value if it is only part of a larger term."""
    before, end = text[max(0, number.start - 40) : number.start], number.end
    if _TERM_BEFORE.search(before) or _TERM_AFTER.match(text, end) or (boxed and _VARIABLE_AFTER.match(text, end)):
        return replace(number, value=None)
    return number


def gold_number(gold: Any) -> Fraction | None:
    """The value of a gold that is one number, else None."""
    if isinstance(gold, bool) or not isinstance(gold, str | int | float):
        return None
    text = _plain(str(gold)[:MAX_TAIL])
    values = {_whole_term(text, item).value for item in numbers(text)}
    return values.pop() if len(values) == 1 else None
