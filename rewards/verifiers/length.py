"""The length of a response, for mixtures that should not reward verbosity."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from morl.rewards.parsing.answer import final_text
from morl.rewards.reward import Example, Verdict, reward
from morl.types import Sample


@reward(
    "length",
    examples=[
        Example("one two three", None, 1.0, {"unit": "words", "maximum": 3}),
        Example("one two three four", None, 0.0, {"unit": "words", "maximum": 3}),
        Example("one two three four", None, 0.5, {"unit": "words", "maximum": 3, "margin": 2}),
        Example("one", None, 0.0, {"unit": "words", "minimum": 2, "maximum": 3}),
        Example("<think>a b c d</think>one", None, 1.0, {"unit": "words", "maximum": 1, "part": "answer"}),
        Example("<think>a b c d", None, 0.0, {"unit": "words", "maximum": 1, "part": "answer"}),
        Example("four", None, 1.0, {"unit": "characters", "minimum": 4, "maximum": None}),
    ],
    runs="inline",
)
def length(
    response: str,
    sample: Sample | None,
    *,
    unit: Literal["tokens", "words", "characters"] = "tokens",
    maximum: Annotated[int, Field(ge=0)] | None,
    minimum: Annotated[int, Field(ge=0)] = 0,
    margin: Annotated[int, Field(ge=0)] = 0,
    part: Literal["response", "answer"] = "response",
) -> Verdict:
    """1 for lengths from `minimum` to `maximum`, falling linearly to 0 over `margin` units outside them.

    `maximum: null` sets no upper limit. Tokens are all those that the policy wrote, thinking included. Words and
    characters are those of the whole response, or, with `part: answer`, of the text after the thinking.
    """
    if maximum is not None and minimum > maximum:
        return Verdict(None, "error", f"the minimum, {minimum}, is above the maximum, {maximum}")
    if unit == "tokens":
        if part == "answer":
            return Verdict(
                None, "error", "tokens are counted for the whole response only; set unit to words or characters"
            )
        if sample is None or (response and not sample.token_ids_T):
            return Verdict(None, "error", "the tokens of this response are unknown; set unit to words or characters")
        count = sample.length
    else:
        text = response if part == "response" else final_text(response)
        if part == "answer" and not text:
            return Verdict(0.0, "no_answer", "no answer after the thinking")
        count = len(text.split()) if unit == "words" else len(text)
    excess = max(minimum - count, count - maximum if maximum is not None else 0, 0)
    return Verdict(max(0.0, 1.0 - excess / max(margin, 1)), "ok", f"{count} {unit}")
