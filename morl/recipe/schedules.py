"""Values that move with the training step. They depend on the step only, so a resumed run repeats them."""

from __future__ import annotations

import bisect
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import ValidationError

from morl.error_messages import did_you_mean
from morl.recipe.rules import Rule, sentence
from morl.registry import check_options, options_model
from morl.traits import traits_of

Shape = Literal["linear", "steps"]
Points = Sequence[tuple[int, float]]
"""`(step, value)` pairs, steps ascending."""
Number = type[int] | type[float]

TRIED = 1000
"""Most interpolated values that are validated when a recipe is read."""


def value_at(points: Points, step: int, shape: Shape) -> float:
    """The value at a step; constant before the first point and after the last.

    Between two points `linear` interpolates, `v0 + (v1 - v0) (step - s0) / (s1 - s0)`, and `steps`
    keeps the earlier value.
    """
    after = bisect.bisect_right(points, step, key=lambda point: point[0])
    if after in (0, len(points)):
        return points[0 if after == 0 else -1][1]
    (start, low), (end, high) = points[after - 1], points[after]
    if shape == "steps" or step == start:
        return low
    between = low + (high - low) * (step - start) / (end - start)
    return min(max(between, min(low, high)), max(low, high))


def as_number(kind: Number, value: float) -> float:
    """An interpolated value, rounded to the nearest integer where the option takes only integers."""
    return round(value) if kind is int else value


def movable(function: Callable[..., Any], *, gated: bool) -> dict[str, Number]:
    """The keys that a schedule can move in a term of this reward, with their number types."""
    options = {name: _kind(field.annotation) for name, field in options_model(function).model_fields.items()}
    numbers: dict[str, Number] = {name: kind for name, kind in options.items() if kind is not None}
    return {"weight": float, **({"gate": float} if gated else {}), **numbers}


def _kind(annotation: Any) -> Number | None:
    accepted = set(_leaves(annotation))
    return float if float in accepted else int if int in accepted else None


def _leaves(annotation: Any) -> Iterator[Any]:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        yield from _leaves(arguments[0])
    elif origin in (typing.Union, types.UnionType):
        for argument in arguments:
            yield from _leaves(argument)
    elif origin is None:
        yield annotation


def schedule_rules(
    term: Mapping[str, Any], function: Callable[..., Any], schedules: Mapping[str, tuple[Points, Shape]]
) -> list[Rule]:
    """The broken rules of a term's schedules; `term` and `schedules` are as written in the recipe."""
    rules: list[Rule] = []
    gate = term.get("gate")
    numbers = movable(function, gated=isinstance(gate, Mapping))
    for key, (points, shape) in schedules.items():
        broken = _key_rules(function, key, numbers) or _value_rules(function, key, points, shape, numbers)
        rules += broken or _end_rules(term, key, points[-1][1])
    return rules


def _end_rules(term: Mapping[str, Any], key: str, end: float) -> list[Rule]:
    holder, loc = (term["gate"], ("gate", "at_least")) if key == "gate" else (term, (key,))
    if holder.get(loc[-1], end) == end:
        return []
    message = f"its schedule ends at {end:g}: leave this out, or write the same, not {holder[loc[-1]]!r}"
    return [Rule(loc, message, [("schedule", key)])]


def _key_rules(function: Callable[..., Any], key: str, numbers: Mapping[str, Number]) -> list[Rule]:
    if key in numbers:
        if traits_of(function).resource is None or key in ("weight", "gate"):
            return []
        message = "the reward builds its resource from its options once: only weight and gate can move"
    elif key == "gate":
        message = "there is no gate to move: add 'gate'"
    elif key in options_model(function).model_fields:
        message = "only numbers can move, and this option is not a number"
    else:
        message = f"unknown key{did_you_mean(key, numbers)}"
    return [Rule(("schedule", key), message, [("gate",)] if key == "gate" else ())]


def _value_rules(
    function: Callable[..., Any], key: str, points: Points, shape: Shape, numbers: Mapping[str, Number]
) -> list[Rule]:
    whole = numbers[key] is int
    refused = ((s, _refused(function, key, int(v) if whole and v.is_integer() else v)) for s, v in points)
    rules = [Rule(("schedule", key, str(step)), text) for step, text in refused if text]
    if rules or shape == "steps":
        return rules
    first, last = points[0][0], points[-1][0]
    for step in range(first, last, 1 + (last - first) // TRIED):
        text = _refused(function, key, as_number(numbers[key], value_at(points, step, shape)))
        if text:
            return [Rule(("schedule", key), f"in step {step}: {text}; 'shape: steps' uses only the values written")]
    return []


def _refused(function: Callable[..., Any], key: str, value: float) -> str:
    """Why the term cannot take this value; empty when it can."""
    if key == "weight":
        return "" if value > 0 else f"should be greater than 0, not {value:g}"
    if key != "gate":
        try:
            check_options(function, {key: value})
        except ValidationError as error:
            return next((sentence(item, ()) for item in error.errors() if item["loc"][0] == key), "")
    return ""


def with_ends(term: Mapping[str, Any], function: Callable[..., Any], ends: Mapping[str, float]) -> dict[str, Any]:
    """The term as written, with each scheduled key that is missing set to the last value of its schedule."""
    gate = term.get("gate")
    numbers = movable(function, gated=isinstance(gate, Mapping))
    filled = {**{key: as_number(numbers[key], end) for key, end in ends.items()}, **term}
    if isinstance(gate, Mapping) and "gate" in ends:
        filled["gate"] = {"at_least": ends["gate"], **gate}
    return filled
