"""How many are there?"""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Annotated, Any

from pydantic import Field

from morl.rewards.answer import boxes, final_text, numbers, stated
from morl.rewards.decorator import Example, Verdict, reward
from morl.rewards.number import MAX_TAIL, answer_numbers
from morl.rewards.reading import answer_text


@reward(
    "count",
    examples=[
        Example("<think>3</think>There are 43 of them.", 43, 1.0),
        Example("43.0", 43, 1.0),
        Example("43.5", 43, 0.0),
        Example("There are three cats.", 3, 1.0),
        Example("twenty-one", "21", 1.0),
        Example("3 or 4", 3, 0.0),
        Example("three or 4", 3, 0.0),
        Example("No one else is there, so 2.", 2, 1.0),
        Example("44", 43, 0.0),
        Example("many", 43, 0.0),
        Example("9", 10, 0.5, {"falloff": 0.2}),
        Example("43", -1, None),
        Example("43", 43.5, None),
    ],
    answer=lambda gold: f"There are {gold}.",
)
def count(
    response: str,
    gold: Any,
    *,
    falloff: Annotated[float, Field(ge=0, le=1)] = 0.0,
) -> Verdict:
    r"""1 when the one number of the answer is the gold count, else 0; several different numbers are wrong.

    Reads the last `\boxed{}` or `<answer>` after the thinking; else the number that follows "answer is"; else the
    one after "total of"; else the last number. English number words up to 999 are numbers too ("three",
    "twenty-one"), but not the pronoun of "this one". 43.0 is 43; 43.5 is wrong. The gold is a whole number that is
    not negative, or its text.

    `falloff`: with 0, the default, only the exact count scores. With more, a wrong count scores what is left
    of 1 after its distance over `falloff` times the gold: with 0.2, 9 for 10 scores 0.5, and 8 scores 0.
    """
    target = _gold_count(gold)
    if target is None:
        return Verdict(None, "bad_gold", "the gold must be one whole number that is not negative")
    text = numbers_for_words(answer_text(final_text(response)))
    found = answer_numbers(_total(text) or text)
    if not found:
        return Verdict(0.0, "no_answer", "no number in the answer")
    shown = ", ".join(item.text for item in found[:5])
    if len({item.value for item in found}) > 1:
        return Verdict(0.0, "ok", f"several numbers: {shown}")
    value = found[0].value
    if value is None or value.denominator != 1 or value < 0:
        return Verdict(0.0, "ok", f"{shown[:50]}: no whole number that can be counted to")
    distance = abs(value - target)
    if not distance or not falloff:
        return Verdict(float(not distance), "ok", shown)
    room = Fraction(falloff) * target
    return Verdict(float(max(Fraction(0), 1 - distance / room)) if room else 0.0, "ok", shown)


_TOTAL = re.compile(
    r"\b(?:total|altogether)\b[\s,:=*]*+(?:(?:of|is|are|number|count|there|it|comes|to|i|see)\b[\s,:=*]*+){0,5}+(?=[0-9])",
    re.IGNORECASE,
)
_SENTENCE_END = re.compile(r"[.!?。](?=\s|$)|\n")


def _total(text: str) -> str | None:
    """What follows the last "total of", in its sentence; None where the answer is stated more plainly."""
    starts = [match.end() for match in _TOTAL.finditer(text)]
    if not starts or boxes(text) or stated(text) is not None:
        return None
    rest = text[starts[-1] :]
    end = _SENTENCE_END.search(rest)
    return rest[: end.start()] if end else rest


def _gold_count(gold: Any) -> int | None:
    if isinstance(gold, bool) or not isinstance(gold, str | int | float):
        return None
    try:
        text = str(gold)[:MAX_TAIL]
    except ValueError:  # more digits than Python prints
        return None
    found = {item.value for item in numbers(numbers_for_words(answer_text(text)))}
    value = found.pop() if len(found) == 1 else None
    return int(value) if value is not None and value.denominator == 1 and value >= 0 else None


_UNITS = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_VALUES = {word: value for value, word in enumerate(_UNITS)} | {word: 10 * i for i, word in enumerate(_TENS, 2)}
_BELOW_TEN, _BELOW_TWENTY = "|".join(_UNITS[1:10]), "|".join(_UNITS)
_BELOW_HUNDRED = rf"(?:(?:{'|'.join(_TENS)})(?:[-\s](?:{_BELOW_TEN})\b)?|(?:{_BELOW_TWENTY}))"
_WORDS = re.compile(
    rf"\b(?<![\w’'-])(?:(?P<hundreds>a|{_BELOW_TEN})[-\s]hundred(?:(?:\s+and)?[-\s]+(?P<rest>{_BELOW_HUNDRED})\b)?"
    rf"|(?P<small>{_BELOW_HUNDRED}))\b(?![-’'][a-z])",
    re.IGNORECASE,
)
# "one" counts where a number is expected, and nothing follows that makes it a pronoun; or on its own between marks.
_BEFORE_ONE = re.compile(
    r"(?:^|[{*:\"=(]|\b(?:is|are|be|or|and|exactly|only|just|to|about|see|count|contains?|has|have|was|were"
    r"|maybe|perhaps|possibly|probably|likely|either|around|approximately)\s)[\s*]*$",
    re.IGNORECASE,
)
_AFTER_ONE = re.compile(
    r"\s+(?:of|that|which|who|another|with|can|could|may|might|by|in|on|at|is|has)\b", re.IGNORECASE
)


_ALONE_BEFORE, _ALONE_AFTER = re.compile(r"[,;/|~–-]\s*$"), re.compile(r"\s*(?:[.,;/|~)!?]|$)")


def _is_number_one(text: str, start: int, end: int) -> bool:
    before = text[max(0, start - 20) : start]
    if _ALONE_BEFORE.search(before) and _ALONE_AFTER.match(text, end):
        return True
    return _BEFORE_ONE.search(before) is not None and _AFTER_ONE.match(text, end) is None


def numbers_for_words(text: str) -> str:
    """The text with English number words up to 999 written in digits; in linear time."""

    def digits(match: re.Match[str]) -> str:
        if match.group().lower() == "one" and not _is_number_one(text, *match.span()):
            return match.group()
        hundreds = match["hundreds"]
        value = _small(match["rest"] or "") if hundreds else _small(match["small"])
        return str(value + 100 * (_VALUES.get(hundreds.lower(), 1) if hundreds else 0))

    return _WORDS.sub(digits, text)


def _small(words: str) -> int:
    return sum(_VALUES[word] for word in re.split(r"[-\s]+", words.lower()) if word)
