"""The answer equals the gold, word for word."""

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
    r"""1 when the answer equals the gold, or one of a list of golds, else 0.

    The answer is the last `\boxed{}` after the thinking; without a box, what follows "answer is"; without
    that, the whole text. `part: text` always takes the whole text after the thinking. If there is an `<answer>`,
    only the content of the last one is read.

    Unicode is normalised (NFKC), white space collapsed and invisible characters removed. `ignore_punctuation` drops
    punctuation at the ends.
    """

    def normal(text: str) -> str:
        return _normal(text, ignore_case, ignore_punctuation)

    golds = gold if isinstance(gold, Sequence) and not isinstance(gold, str) else [gold]
    accepted = {normal(answer_text(str(item))) for item in golds if isinstance(item, str | int | float)}
    if len(golds) == 0 or "" in accepted or any(not isinstance(item, str | int | float) for item in golds):
        return Verdict(None, "bad_gold", "the gold must be non-empty text, or a list of such texts")
    text = answer_text(final_text(response))
    answers = {normal(text)}
    if part == "answer":
        boxed = different(last_together(text, boxes(text)))
        # A full stop may end the sentence or be part of a name, and a gold may itself be a sentence with "answer".
        readings = [text, stated(text, whole_line=True), stated(text)]
        if boxed:
            answers = {normal(_TEXT.sub(r"\1", box)) for box in boxed}
        elif readings[-1] is not None:
            normalised = [normal(reading) for reading in readings if reading is not None]
            answers = {next((reading for reading in normalised if reading in accepted), normalised[-1])}
    if answers == {""}:
        return Verdict(0.0, "no_answer", "no answer after the thinking")
    shown = " ; ".join(sorted(item[:100] for item in answers))
    return Verdict(float(answers <= accepted and len(answers) == 1), "ok", shown)


_TEXT = re.compile(r"\\(?:text|textbf|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")


def _normal(text: str, ignore_case: bool, ignore_punctuation: bool) -> str:
    text = " ".join(unicodedata.normalize("NFKC", text).split())
    if ignore_case:
        text = text.casefold()
    if not ignore_punctuation:
        return text
    start, end = 0, len(text)
    while start < end and not _is_significant(text[start]):
        start += 1
    while end > start and not _is_significant(text[end - 1]):
        end -= 1
    return text[start:end]


_MEANINGFUL = "-+<>=$€£%°#@"


def _is_significant(character: str) -> bool:
    return character.isalnum() or character in _MEANINGFUL or unicodedata.category(character) in ("Mn", "Mc", "So")
