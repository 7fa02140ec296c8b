"""Responses that come near the length limit: DAPO's soft punishment."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from morl.rewards.reward import Example, Verdict, reward
from morl.types import Sample


@reward(
    "overlong",
    examples=[
        Example("one two three", None, 1.0, {"unit": "words", "maximum": 5, "buffer": 2}),
        Example("one two three four", None, 0.5, {"unit": "words", "maximum": 5, "buffer": 2}),
        Example("one two three four five", None, 0.0, {"unit": "words", "maximum": 5, "buffer": 2}),
        Example("<think>1 2 3 4</think> 5 6", None, 0.0, {"unit": "words", "maximum": 5, "buffer": 2}),
        Example("12345", None, 1.0, {"unit": "characters", "maximum": 5, "buffer": 0}),
        Example("of unknown tokens", None, None, {"maximum": 5, "buffer": 2}),
    ],
    runs="inline",
)
def overlong(
    response: str,
    sample: Sample | None,
    *,
    maximum: Annotated[int, Field(ge=1)],
    buffer: Annotated[int, Field(ge=0)],
    unit: Literal["tokens", "words", "characters"] = "tokens",
) -> Verdict:
    """1 up to `maximum - buffer`, from there down to 0 at `maximum` in a straight line, and 0 beyond it.

    It is 1 plus the punishment of DAPO (arXiv 2503.14476, equation 13), with `maximum` for L_max and `buffer`
    for L_cache; the paper has 20480 and 4096. A buffer of 0 is a sharp limit: 1 up to the maximum.

    It counts the whole response, its thinking included: the tokens that the policy wrote, or words (what stands
    between spaces) or characters. Tokens are known in a run; for responses from a file, count the others. A text
    that nobody asked to have spaces may do without them, and is one word.
    To train as the paper does, weigh it like the other terms: a response of 0 here loses its weight at most.
    """
    if unit == "tokens":
        if sample is None or (response and not sample.token_ids_T):
            return Verdict(None, "error", "the tokens of this response are not known; count words or characters")
        count = sample.length
    else:
        count = len(response.split()) if unit == "words" else len(response)
    value = (maximum - count) / buffer if buffer else float(count <= maximum)
    return Verdict(min(1.0, max(0.0, value)), "ok", f"{count} {unit}")
