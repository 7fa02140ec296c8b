"""The answer is the gold, word for word."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any, Literal

from morl.rewards.parsing.answer import boxes, different, final_text, last_together, stated
from morl.rewards.parsing.stated_values import answer_text
from morl.rewards.reward import Example, Verdict, reward


@reward(
    "exact",
    examples=[
        Example("<think>Rome?</think>Paris.", "Paris", 1.0),
        Example("The answer is: the  Eiffel tower", "The Eiffel Tower", 1.0),
        Example(r"\boxed{Paris}", ["Paris", "City of Paris"], 1.0),
        Example("Paris or Rome", "Paris", 0.0),
        Example("", "Paris", 0.0),
        Example("paris", "Paris", 0.0, {"ignore_case": False}),
        Example("Well, Paris", "Paris", 0.0),
        Example("Paris", "", None),
    ],
    answer=lambda gold: str(gold[0] if isinstance(gold, list | tuple) else gold),
)
def exact(
    response: str,
    gold: Any,
    *,
    part: Literal["answer", "text"] = "answer",
    ignore_case: bool = True,
    ignore_punctuation: bool = True,
) -> Verdict:
    r"""1 when the answer equals the gold, or one of the golds in a list, else 0.

    The answer is the last `\boxed{}` after the thinking; without a box, what follows "answer is"; without
    that, the whole text. `part: text` always takes the whole text after the thinking. With an `<answer>`, all
    of this is about what the last one holds. Unicode forms, spaces
    and invisible characters are made one; `ignore_punctuation` leaves out marks at the ends.
    """

    def normal(text: str) -> str:
        return _normal(text, ignore_case, ignore_punctuation)

    golds = gold if isinstance(gold, Sequence) and not isinstance(gold, str) else [gold]
    known = {normal(answer_text(str(item))) for item in golds if isinstance(item, str | int | float)}
    if len(golds) == 0 or "" in known or any(not isinstance(item, str | int | float) for item in golds):
        return Verdict(None, "bad_gold", "the gold must be text that is not empty, or a list of such")
    text = answer_text(final_text(response))
    given = {normal(text)}
    if part == "answer":
        boxed = different(last_together(text, boxes(text)))
        # A full stop may end a sentence or stand in a name, and a gold may itself be a sentence with "answer".
        readings = [text, stated(text, whole_line=True), stated(text)]
        if boxed:
            given = {normal(_TEXT.sub(r"\1", box)) for box in boxed}
        elif readings[-1] is not None:
            said = [normal(reading) for reading in readings if reading is not None]
            given = {next((reading for reading in said if reading in known), said[-1])}
    if given == {""}:
        return Verdict(0.0, "no_answer", "no answer after the thinking")
    return Verdict(float(given <= known and len(given) == 1), "ok", " ; ".join(sorted(item[:100] for item in given)))


_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")


def _normal(text: str, ignore_case: bool, ignore_punctuation: bool) -> str:
    text = " ".join(unicodedata.normalize("NFKC", text).split())
    if ignore_case:
        text = text.casefold()
    if not ignore_punctuation:
        return text
    start, end = 0, len(text)
    while start < end and not _counts(text[start]):
        start += 1
    while end > start and not _counts(text[end - 1]):
        end -= 1
    return text[start:end]


_MEANINGFUL = "-+<>=$€£%°#@"


def _counts(character: str) -> bool:
    return character.isalnum() or character in _MEANINGFUL or unicodedata.category(character) in ("Mn", "Mc", "So")
