"""The wording of errors that several rooms share: "did you mean" for a mistyped name, and what pydantic found wrong."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the nearest known name, or the list of known names when none is near."""
    names = sorted(set(known))
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; known: {', '.join(names)}" if names else ""


def explain(error: Any, known: Iterable[str]) -> str:
    """The text of one item of `ValidationError.errors()`: the rule and the remedy."""
    if error["type"] == "extra_forbidden":
        return f"unknown key{did_you_mean(str(error['loc'][-1]), known)}"
    if error["type"] == "missing":
        return "required, and missing"
    text = error["msg"].removeprefix("Value error, ")
    message = text[:1].lower() + text[1:]
    value = error.get("input")
    shown = repr(value) if isinstance(value, str | int | float | bool | None) else type(value).__name__
    return f"{message}, not {shown[:80]}"
