"""The answer matches a regular expression."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator

from morl.rewards.parsing.answer import boxes, final_text, last_together, stated
from morl.rewards.reward import Example, Verdict, reward


def _checked(pattern: str) -> str:
    """The pattern itself. Raises: ValueError when it is invalid or matches empty text."""
    try:
        matches_nothing = re.compile(pattern).search("") is not None
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"the pattern {pattern[:80]!r} is invalid: {error}") from error
    if matches_nothing:
        raise ValueError(f"the pattern {pattern[:80]!r} matches empty text, so it would reward anything")
    return pattern


@reward(
    "regex",
    examples=[
        Example("<think>no</think>It is 2024-05-01.", r"\d{4}-\d\d-\d\d", 1.0),
        Example("It is in May.", r"\d{4}-\d\d-\d\d", 0.0),
        Example("yes", None, 1.0, {"pattern": "yes|no", "mode": "fullmatch"}),
        Example("yes and no", None, 0.0, {"pattern": "yes|no", "mode": "fullmatch"}),
        Example("YES", "yes", 1.0, {"ignore_case": True}),
        Example("", "yes", 0.0),
        Example("anything", "a*", None),
        Example("anything", "(", None),
        Example("anything", None, None),
    ],
)
def regex(
    response: str,
    gold: Any = None,
    *,
    pattern: Annotated[str, AfterValidator(_checked)] | None = None,
    mode: Literal["search", "fullmatch"] = "search",
    part: Literal["text", "answer", "response"] = "text",
    ignore_case: bool = False,
    multiline: bool = False,
) -> Verdict:
    r"""1 when the pattern matches, else 0. The pattern is the option, or else the gold of each prompt.

    `part` is what is searched: `text`, everything after the thinking; `answer`, the last `\boxed{}` in it, or what
    follows "answer is"; or the whole `response`. `mode: fullmatch` requires a match of all of it, outer white space
    aside. `multiline` lets `^` and `$` match at line breaks, and `.` match line breaks.

    The syntax is that of Python's `re`. A pattern that matches empty text would reward anything and is an error.
    The deadline stops a pattern that backtracks without end.
    """
    source = pattern if pattern is not None else gold
    if not isinstance(source, str):
        return Verdict(
            None, "bad_gold", "no pattern: set the option 'pattern', or give each prompt a pattern as its gold"
        )
    try:
        _checked(source)
    except ValueError as error:
        return Verdict(None, "bad_gold", str(error))
    flags = (re.IGNORECASE if ignore_case else 0) | (re.MULTILINE | re.DOTALL if multiline else 0)
    compiled = re.compile(source, flags)
    text = _part(response, part)
    if not text:
        return Verdict(0.0, "no_answer", "no answer after the thinking")
    match = compiled.search(text) if mode == "search" else compiled.fullmatch(text)
    return Verdict(float(match is not None), "ok", match.group()[:200] if match else "no match")


def _part(response: str, part: str) -> str:
    if part == "response":
        return response.strip()
    text = final_text(response)
    if part == "answer":
        boxed = last_together(text, boxes(text))
        return boxed[-1].text if boxed else stated(text) or text
    return text
