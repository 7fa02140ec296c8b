"""Words in mathematics. Computer algebra drops them after a number, and otherwise reads them as products of letters."""

from __future__ import annotations

import re

_WORD = re.compile(r"(?<![\\a-z])[a-z]+")
_OPPOSITES = (
    {"am", "pm"},
    {"north", "south"},
    {"east", "west"},
    {"left", "right"},
    {"up", "down"},
    {"above", "below"},
    {"before", "after"},
    {"clockwise", "counterclockwise"},
    {"increase", "decrease"},
    {"profit", "loss"},
    {"gain", "loss"},
)


def opposed(one: str, other: str) -> bool:
    """Whether the texts differ as "AM" from "PM", or "north" from "south"."""
    ours, theirs = (set(_WORD.findall(text.lower().replace(".", ""))) for text in (one, other))
    return any(pair & ours and pair & theirs and not pair & ours & theirs for pair in _OPPOSITES)


_SINGLE = re.compile(r"(?:\\(?:text|textbf|textit|mathrm|mbox)\s?\{)?\s?([a-zA-Z]{3,})\s?\}?")


def _word(text: str) -> str | None:
    """The word, if the text is one word; None for "xyz" and "abc", which are products."""
    match = _SINGLE.fullmatch(text)
    if match is None:
        return None
    letters = match[1].lower()
    is_product = not set(letters) & set("aeiou") or list(letters) == sorted(set(letters))
    return None if is_product else match[1]


def same_word(one: str, other: str) -> bool | None:
    """Whether two words are the same in any case; None if one may be a product or the name of a figure."""
    ours, theirs = _word(one), _word(other)
    if ours is None or theirs is None:
        return None
    if ours.lower() == theirs.lower():
        return True
    return None if ours.isupper() or theirs.isupper() else False


_LETTER = re.compile(r"(?:\\(?:text|textbf|textrm|mathrm|mathbf)\s?\{)?\s?\(?([A-J])\)?\s?\}?")
_LABEL = re.compile(r"(?:\\(?:text|textbf|textrm|mathrm|mathbf|rm|bf)\s?\{?\s?)?\(?\s?[A-J]\s?[).:](?!\d)")
_LETTERS = re.compile(r"\b[A-J]\b")


def labelled(answer: str, gold: str) -> str:
    """The letter of "(B) 12" or "B. 12" if it is the gold, else the answer unchanged."""
    letter = _LETTER.fullmatch(gold)
    if letter is None or not _LABEL.match(answer):
        return answer
    return gold if set(_LETTERS.findall(answer)) == {letter[1]} else answer
