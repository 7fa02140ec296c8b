"""Responses near the length limit: DAPO's soft overlong punishment."""

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
    """1 up to a length of `maximum - buffer`, then linearly down to 0 at `maximum`, and 0 beyond it.

    This is 1 plus the punishment of DAPO (arXiv 2503.14476, equation 13), with L_max = `maximum` and
    L_cache = `buffer`; the paper uses 20480 and 4096. A buffer of 0 makes a hard limit: 1 up to the maximum.

    The length is that of the whole response, thinking included: the tokens that the policy wrote, words separated by
    white space, or characters. Responses from a file have no tokens: use words or characters. A text without spaces
    counts as one word, so a policy can evade a limit in words.
    To train as in the paper, give this term a weight like the others: a response that scores 0 loses that weight.
    """
    if unit == "tokens":
        if sample is None or (response and not sample.token_ids_T):
            return Verdict(None, "error", "the tokens of this response are unknown; set unit to words or characters")
        count = sample.length
    else:
        count = len(response.split()) if unit == "words" else len(response)
    value = (maximum - count) / buffer if buffer else float(count <= maximum)
    return Verdict(min(1.0, max(0.0, value)), "ok", f"{count} {unit}")
