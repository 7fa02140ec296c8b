r"""A short text against the texts that are accepted: questions about documents and charts, transcripts, names."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from morl.rewards.parsing import text_metrics
from morl.rewards.parsing.answer import boxes, final_text, last_together, stated, within_tags
from morl.rewards.parsing.question import question
from morl.rewards.reward import Example, Verdict, reward

MAX_QUESTION = 20_000
"""Characters of the question that are looked at, the last ones."""


@reward(
    "text",
    examples=[
        Example("<think>Rome?</think>The answer is the **Eiffel tower**.", "Eiffel Tower", 1.0),
        Example("43.0", "43", 0.0),
        Example(r"\boxed{Paris} or \boxed{Rome}", ["Paris", "Rome"], 0.0),
        Example("", "Paris", 0.0),
        Example("Paris", "", None),
        Example("big red dog", "red dog", 0.8, {"metric": "f1"}),
        Example("Answer: Invoize", "Invoice", 6 / 7, {"metric": "anls"}),
        Example("Answer: bill", "Invoice", 0.0, {"metric": "anls"}),
        Example("It is in Paris.", ["Paris", "Paris, France"], 1.0, {"metric": "contains"}),
        Example("Paris Rome Oslo Bern", "Paris", 0.25, {"metric": "contains"}),
        Example("the cat sat on mat", "the cat sat on the mat", 5 / 6, {"metric": "wer"}),
        Example("42", "40.5%", 1.0, {"metric": "relaxed"}),
        Example("44", "40.5%", 0.0, {"metric": "relaxed"}),
    ],
    answer=lambda gold: str(gold[0] if isinstance(gold, list | tuple) else gold),
)
def text(
    response: str,
    gold: Any,
    messages: Sequence[Any] = (),
    *,
    metric: Literal["exact", "f1", "anls", "contains", "wer", "relaxed"] = "exact",
    part: Literal["answer", "text"] = "answer",
    ignore_case: bool = True,
    ignore_punctuation: bool = True,
    ignore_articles: bool | None = None,
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.5,
    maximum_ratio: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 1.0,
    tolerance: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.05,
) -> Verdict:
    r"""How near the answer is to the gold, or to the nearest of a list of accepted golds: a value from 0 to 1.

    `metric`:
    exact     1 when they are the same. Numbers are text: 43.0 is not 43.
    f1        the words they share, as in SQuAD and DROP: harmonic mean of precision and recall.
    anls      1 - edits / length of the longer, in characters, as in DocVQA; 0 below `threshold`.
    contains  1 when the gold's words stand together in the answer. What else it says costs: a gold of 2 words
              beside 6 others gives 2/8, times `maximum_ratio`, at most 1. Little words and the question's own
              are free. "or" and "not" give 0. With the ratio above 1, listing guesses begins to pay.
    wer       1 - word error rate, never below 0, as for transcripts.
    relaxed   a gold that is a number ("1.5 million" too): 1 within `tolerance` (5 %) of it; any other gold: exact.
              As in ChartQA.

    The answer is the last `\boxed{}` after the thinking; without a box, what follows "answer is"; without that,
    the whole text. `part: text` always takes the whole text after the thinking. Different boxes side by side are
    no answer. With an `<answer>`, all of this is about what the last one holds.

    Unicode forms, spaces and invisible characters are made one. `ignore_punctuation` leaves out marks, but not
    those of numbers (3.5, -5, 5 %). `ignore_articles` leaves out "a", "an", "the"; unless said, exact, f1 and
    contains do.
    """
    ignores = metric in ("exact", "f1", "contains") if ignore_articles is None else ignore_articles

    def normal(words: str) -> str:
        return text_metrics.normalised(words, case=ignore_case, punctuation=ignore_punctuation, articles=ignores)

    golds = [_as_text(item) for item in (gold if isinstance(gold, list | tuple) else [gold])]
    known = [normal(within_tags(item)) for item in golds]
    if not known or "" in known:
        return Verdict(None, "bad_gold", "the gold must be text that is not empty, or a list of such")
    given, rivals = _readings(within_tags(final_text(response)), part, golds)
    given = [reading for reading in dict.fromkeys(map(normal, given)) if reading]
    if not given:
        return Verdict(0.0, "no_answer", "no answer after the thinking")
    if rivals and len(given) > 1:
        return Verdict(0.0, "ok", "several answers: " + " ; ".join(item[:60] for item in given[:4]))
    asked = normal(question(messages)[-MAX_QUESTION:]) if metric == "contains" else ""

    def value(answer: str, accepted: str) -> float:
        match metric:
            case "exact":
                return text_metrics.exact(answer, accepted)
            case "f1":
                return text_metrics.f1(answer, accepted)
            case "anls":
                return text_metrics.anls(answer, accepted, threshold=threshold)
            case "contains":
                return text_metrics.contains(answer, accepted, question=asked, maximum_ratio=maximum_ratio)
            case "wer":
                return text_metrics.wer(answer, accepted)
            case "relaxed":
                return text_metrics.relaxed(answer, accepted, tolerance=tolerance)

    best, answer = max(
        ((value(answer, accepted), answer) for answer in given for accepted in known), key=lambda x: x[0]
    )
    return Verdict(best, "ok", answer[:200])


def _as_text(item: Any) -> str:
    """A text or a number as text; empty for anything else."""
    if isinstance(item, bool) or not isinstance(item, str | int | float):
        return ""
    try:
        return str(item) if isinstance(item, str) or math.isfinite(item) else ""
    except (OverflowError, ValueError):  # an integer of too many digits
        return ""


def _readings(words: str, part: str, golds: Sequence[str]) -> tuple[list[str], bool]:
    """What the answer may be; and whether each is an answer of its own, or they are readings of one."""
    if part == "text":
        return [words], False
    boxed = last_together(words, boxes(words))
    if boxed:
        return [box.text for box in boxed], True
    sentence = stated(words)
    if sentence is None:
        return [words], False
    # A full stop may end a sentence or stand in a name, and a gold may itself be a sentence with "answer".
    whole = [words] if any(stated(item) is not None for item in golds) else []
    return [sentence, stated(words, whole_line=True) or sentence, *whole], False
