r"""One number: a measurement, a count, a result of arithmetic."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from typing import Annotated, Any

from pydantic import Field

from morl.rewards.answer import Number, boxes, denied, final_text, first_together, last_together, numbers, stated
from morl.rewards.decorator import Example, Verdict, reward
from morl.rewards.reading import answer_text
from morl.rewards.scale import scaled

MAX_TAIL = 2000
"""Characters of an answer that are searched for numbers."""


@reward(
    "number",
    examples=[
        Example("There are 43.0 of them.", 43, 1.0),
        Example("There are 44 of them.", 43, 0.0),
        Example("3 or 4", 3, 0.0),
        Example("<think>12</think>The answer is 1,234 km.", "1234", 1.0),
        Example(r"\boxed{3.14}", 3.14159, 1.0, {"tolerance": 0.01}),
        Example("95", 100, 1.0, {"relative_tolerance": 0.05}),
        Example("94", 100, 0.0, {"relative_tolerance": 0.05}),
        Example("many", 43, 0.0),
        Example("43", "a few", None),
    ],
    answer=lambda gold: f"The answer is {gold}",
)
def number(
    response: str,
    gold: Any,
    *,
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0,
    relative_tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0,
) -> Verdict:
    r"""1 when the one number of the answer is the gold's, else 0; several different numbers are wrong.

    Reads the last `<answer>` after the thinking, if there is one, and in it the last `\boxed{}`; without a box, the
    number that follows "answer is"; without that, the last number. A number that is denied ("4, not 3") is none.
    Signs, decimals, `1,234`, `3/4`, `1 3/4`, `\frac{3}{4}`, `1e-5`, `2 \times 10^3` and "5 thousand" are read exactly;
    units and percent signs are not looked at. A part of a term, such as `5\pi`, `\sqrt{5}`, `2 + 5` without a
    result or `5x` in a box, is wrong.

    `tolerance` is the allowed difference, `relative_tolerance` the allowed part of the gold; either is enough.
    """
    target = _gold_value(gold)
    if target is None:
        return Verdict(None, "bad_gold", "the gold must be one finite number")
    found = answer_numbers(response)
    if not found:
        return Verdict(0.0, "no_answer", "no number in the answer")
    shown = ", ".join(item.text for item in found[:5])
    if len({item.value for item in found}) > 1:
        return Verdict(0.0, "ok", f"several numbers: {shown}")
    value = found[0].value
    if value is None:
        return Verdict(0.0, "ok", f"{shown[:50]}: not a number that anybody means")
    allowed = max(Fraction(tolerance), Fraction(relative_tolerance) * abs(target))
    return Verdict(float(abs(value - target) <= allowed), "ok", shown)


def _gold_value(gold: Any) -> Fraction | None:
    if isinstance(gold, bool) or not isinstance(gold, str | int | float):
        return None
    text = _plain(str(gold)[:MAX_TAIL])
    found = {_whole_term(text, item).value for item in numbers(text)}
    return found.pop() if len(found) == 1 else None


def answer_numbers(response: str) -> list[Number]:
    """The numbers that the answer offers: one, if it is a good answer."""
    text = _plain(answer_text(final_text(response)))
    boxed = last_together(text, boxes(text))
    if boxed:
        return [item for box in boxed for item in _result(box.text[:MAX_TAIL])]
    said = stated(text)
    if said is not None:
        found = first_together(said[:MAX_TAIL], _meant(said[:MAX_TAIL]))
        if found:
            return found
    tail = text[-MAX_TAIL:]
    found = _meant(tail)
    together = last_together(tail, found)
    return found[-len(together) :] if together else []


def _meant(text: str) -> list[Number]:
    """The numbers of a text without those that it denies: of "4, not 3" only the 4."""
    return [_whole_term(text, number) for number in numbers(text) if not denied(text, number)]


def _result(text: str) -> list[Number]:
    """All numbers after the last equals sign: of "2 + 3 = 5" only the 5."""
    result = text.rpartition("=")[2]
    result = result if numbers(result) else text
    return [_whole_term(result, number, boxed=True) for number in numbers(result)]


_SUPERSCRIPT = re.compile(r"(?<=[0-9])⁻?[⁰¹²³⁴⁵⁶⁷⁸⁹]{1,9}")
_LOWERED = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


def _plain(text: str) -> str:
    """The text with powers and words of scale in plain characters."""
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
# Outside a box, "5x" also says how many times.
_VARIABLE_AFTER = re.compile(r"\s?[*/]?\s?[xyz](?![A-Za-z])")


def _whole_term(text: str, number: Number, *, boxed: bool = False) -> Number:
    """The number; without a value when it is only a part of a term."""
    before, end = text[max(0, number.start - 40) : number.start], number.end
    if _TERM_BEFORE.search(before) or _TERM_AFTER.match(text, end) or (boxed and _VARIABLE_AFTER.match(text, end)):
        return replace(number, value=None)
    return number
