"""English number words as digits: "three", "twenty-one", "two dozen"."""

from __future__ import annotations

import re

from morl.rewards.parsing.scale_words import scaled

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
# "one" counts where a number is expected and the next word does not make it a pronoun, or alone between marks.
_BEFORE_ONE = re.compile(
    r"(?:^|[{*:\"=(]|\b(?:is|are|be|or|and|exactly|only|just|to|about|see|count|contains?|has|have|was|were"
    r"|plus|minus|times|maybe|perhaps|possibly|probably|likely|either|around|approximately)\s)[\s*]*$",
    re.IGNORECASE,
)
_AFTER_ONE = re.compile(
    r"\s+(?:of|that|which|who|another|with|can|could|may|might|by|in|on|at|is|has)\b", re.IGNORECASE
)
_MINUS = re.compile(r"\b(?:minus|negative)\s{1,3}(?=[0-9])", re.IGNORECASE)


_ALONE_BEFORE, _ALONE_AFTER = re.compile(r"[,;/|~–-]\s*$"), re.compile(r"\s*(?:[.,;/|~)!?]|$)")


def _is_number_one(text: str, start: int, end: int) -> bool:
    before = text[max(0, start - 20) : start]
    if _ALONE_BEFORE.search(before) and _ALONE_AFTER.match(text, end):
        return True
    return _BEFORE_ONE.search(before) is not None and _AFTER_ONE.match(text, end) is None


def numbers_for_words(text: str) -> str:
    """The text with English number words as digits, also "7 thousand", "two dozen" and "minus 3"; in linear time."""

    def digits(match: re.Match[str]) -> str:
        if match.group().lower() == "one" and not _is_number_one(text, *match.span()):
            return match.group()
        hundreds = match["hundreds"]
        value = _small(match["rest"] or "") if hundreds else _small(match["small"])
        return str(value + 100 * (_VALUES.get(hundreds.lower(), 1) if hundreds else 0))

    return _MINUS.sub("-", scaled(_WORDS.sub(digits, text)))


def _small(words: str) -> int:
    return sum(_VALUES[word] for word in re.split(r"[-\s]+", words.lower()) if word)
