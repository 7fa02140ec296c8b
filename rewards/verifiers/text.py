r"""A short text against the accepted texts: questions about documents and charts, transcripts, names."""

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
"""Only the last characters of the question are read, this many."""


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
    r"""How similar the answer is to the gold, or to the most similar of a list of golds, in [0, 1].

    `metric`:
    exact     1 when they are equal. Numbers are compared as text: 43.0 is not 43.
    f1        harmonic mean of precision and recall over words, as in SQuAD and DROP.
    anls      1 - edits / length of the longer text, in characters, as in DocVQA; 0 below `threshold`.
    contains  1 when the answer contains the gold's words, together and in order. Other words lower the value: a gold
              of 2 words among 6 others gives 2/8, times `maximum_ratio`, at most 1. Function words and words of the
              question are free. "or" and "not" give 0. With a ratio above 1, listing guesses begins to pay.
    wer       1 - word error rate, at least 0; for transcripts.
    relaxed   for a gold that is a number ("1.5 million" too): 1 within `tolerance` (5 %) of it; else as exact.
              As in ChartQA.

    The answer is the last `\boxed{}` after the thinking; without a box, what follows "answer is"; without that,
    the whole text. `part: text` always takes the whole text after the thinking. Different boxes side by side
    score 0. If there is an `<answer>`, only the content of the last one is read.

    Unicode is normalised (NFKC), white space collapsed and invisible characters removed. `ignore_punctuation` drops
    punctuation, but not that of numbers (3.5, -5, 5 %). `ignore_articles` drops "a", "an" and "the"; by default
    exact, f1 and contains do.
    """
    ignores = metric in ("exact", "f1", "contains") if ignore_articles is None else ignore_articles

    def normal(words: str) -> str:
        return text_metrics.normalised(words, case=ignore_case, punctuation=ignore_punctuation, articles=ignores)

    golds = [_as_text(item) for item in (gold if isinstance(gold, list | tuple) else [gold])]
    accepted_texts = [normal(within_tags(item)) for item in golds]
    if not accepted_texts or "" in accepted_texts:
        return Verdict(None, "bad_gold", "the gold must be non-empty text, or a list of such texts")
    readings, rivals = _readings(within_tags(final_text(response)), part, golds)
    readings = [reading for reading in dict.fromkeys(map(normal, readings)) if reading]
    if not readings:
        return Verdict(0.0, "no_answer", "no answer after the thinking")
    if rivals and len(readings) > 1:
        return Verdict(0.0, "ok", "several answers: " + " ; ".join(item[:60] for item in readings[:4]))
    question_text = normal(question(messages)[-MAX_QUESTION:]) if metric == "contains" else ""

    def value(answer: str, accepted: str) -> float:
        match metric:
            case "exact":
                return text_metrics.exact(answer, accepted)
            case "f1":
                return text_metrics.f1(answer, accepted)
            case "anls":
                return text_metrics.anls(answer, accepted, threshold=threshold)
            case "contains":
                return text_metrics.contains(answer, accepted, question=question_text, maximum_ratio=maximum_ratio)
            case "wer":
                return text_metrics.wer(answer, accepted)
            case "relaxed":
                return text_metrics.relaxed(answer, accepted, tolerance=tolerance)

    best, answer = max(
        ((value(answer, accepted), answer) for answer in readings for accepted in accepted_texts), key=lambda x: x[0]
    )
    return Verdict(best, "ok", answer[:200])


def _as_text(item: Any) -> str:
    """A text or number as text; empty for anything else."""
    if isinstance(item, bool) or not isinstance(item, str | int | float):
        return ""
    try:
        return str(item) if isinstance(item, str) or math.isfinite(item) else ""
    except (OverflowError, ValueError):  # an integer of too many digits
        return ""


def _readings(words: str, part: str, golds: Sequence[str]) -> tuple[list[str], bool]:
    """The candidate answers, and whether they are separate answers rather than readings of one answer."""
    if part == "text":
        return [words], False
    boxed = last_together(words, boxes(words))
    if boxed:
        return [box.text for box in boxed], True
    sentence = stated(words)
    if sentence is None:
        return [words], False
    # A full stop may end the sentence or be part of a name, and a gold may itself be a sentence with "answer".
    whole = [words] if any(stated(item) is not None for item in golds) else []
    return [sentence, stated(words, whole_line=True) or sentence, *whole], False
