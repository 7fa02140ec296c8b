"""How repetitive a response is: loops, stuck words, copied paragraphs."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field

from morl.rewards.parsing.answer import final_text
from morl.rewards.parsing.text_metrics import UNSPACED
from morl.rewards.reward import Example, Verdict, reward

SPARED = 20
"""Repeated n-grams that cost nothing: short answers such as "no, no, no" and short lists repeat themselves."""
MAX_WORD = 40
"""A longer word counts as separate characters."""
MAX_GAP = 200
"""In a longer gap between words, each character counts as a word."""


@reward(
    "repetition",
    examples=[
        Example("Paris is the capital of France, and has been for centuries.", None, 1.0),
        Example("no " * 20, None, 1.0),
        Example("<think>Is it 4? It is.</think>It is 4.", None, 1.0),
        Example("and so on " * 400, None, 23 / 1197 / 0.8 * 100 / 1194),
        Example("9" * 100_000, None, 0.0),
        Example("", None, 0.0),
    ],
)
def repetition(
    response: str,
    *,
    n: Annotated[int, Field(ge=1, le=50)] = 4,
    allowed: Annotated[float, Field(ge=0, lt=1)] = 0.2,
    maximum_run: Annotated[int, Field(ge=1)] = 100,
    part: Literal["response", "answer"] = "response",
) -> Verdict:
    """1 for text without much repetition, down to 0 for a loop.

    The value is min(1, (1 - s) / (1 - allowed)) * min(1, maximum_run / r). s is the share of word n-grams that
    occurred before, the first 20 of them not counted. r is the length, in n-grams, of the longest run of such
    repeats: a stuck word or line, a copied paragraph.

    Ordinary prose, code, lists and uniform tables have s below 0.2 and r below 100, and so score 1; grids of few
    symbols score less, and songs may. Punctuation and case are ignored. In scripts without spaces, in words of more
    than 40 characters, and in gaps of more than 200 characters between words, each character is a word.

    Thinking and answer are measured separately, so that the answer may repeat the thinking; `part: answer` measures
    the answer alone. An empty text scores 0. Short or meaningless text scores 1: mix this with other rewards.
    """
    answer = final_text(response)
    thinking = response[: response.rfind("</think>")] if "</think>" in response else "" if answer else response
    parts = [answer] if part == "answer" else [thinking.replace("<think>", " "), answer]
    if not any(text.strip() for text in parts):
        return Verdict(0.0, "no_answer", "no text")
    repeated = total = run = 0
    for text in parts:
        repeated_in_part, count, longest = repeats(words(text), n)
        repeated, total = repeated + repeated_in_part, total + count
        run = max(run, longest)
    share = max(0, repeated - SPARED) / max(1, total)
    value = min(1.0, (1.0 - share) / (1.0 - allowed)) * min(1.0, maximum_run / max(1, run))
    return Verdict(value, "ok", f"{share:.1%} of {total} {n}-grams repeated, at most {run} in a row")


_MARKS = r"\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0900-\u0963\u0966-\u0dff"
_WORD = re.compile(rf"[{UNSPACED}]|(?:(?![{UNSPACED}])[\w{_MARKS}])+")


def words(text: str) -> list[str]:
    """The words of a text in lower case; the characters of long words and of long gaps between words."""
    text = text.casefold().strip()
    units: list[str] = []
    at = 0
    for match in _WORD.finditer(text):
        if match.start() - at > MAX_GAP:
            units += text[at : match.start()]
        word, at = match.group(), match.end()
        if len(word) > MAX_WORD:
            units += word
        else:
            units.append(word)
    if len(text) - at > MAX_GAP:
        units += text[at:]
    return units


def repeats(units: list[str], n: int) -> tuple[int, int, int]:
    """`(repeated, total, run)`: n-grams that occurred before, all n-grams, and the longest run of repeated ones."""
    numbers: dict[str, int] = {}
    ids = [numbers.setdefault(unit, len(numbers)) for unit in units]
    base = len(numbers) + 1
    top = base ** (n - 1)
    seen: set[int] = set()
    key = repeated = run = longest = 0
    for index, number in enumerate(ids):
        key = key % top * base + number
        if index < n - 1:
            continue
        if key in seen:
            repeated, run = repeated + 1, run + 1
            longest = max(longest, run)
        else:
            seen.add(key)
            run = 0
    return repeated, max(0, len(ids) - n + 1), longest
