"""One GUI step: twelve types of action, with the names and arguments that models and data sets use."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from morl.rewards.parsing.gui_names import OPPOSITE, STATUSES, ActionType, Direction, action_type, key_set, plain_name
from morl.rewards.parsing.locations import Box, Point
from morl.rewards.parsing.stated_values import finite

Convention = Literal["finger", "content"]
"""The meaning of "scroll up": the finger moves up and shows what is below, or the view moves up to what is above."""


@dataclass(frozen=True, slots=True)
class Action:
    """One step. Arguments that were not written are None.

    >>> to_action("click", {"start_point": [10, 20]}).point
    (10.0, 20.0)
    """

    type: ActionType
    point: Point | None = None
    """Where it happens or begins, in the writer's frame; the middle of `box` if a box was written."""
    box: Box | None = None
    end_point: Point | None = None
    """Where a drag ends."""
    end_box: Box | None = None
    text: str | None = None
    direction: Direction | None = None
    """Where the finger moves, in either convention."""
    distance: float | None = None
    """How far a scroll goes, in the writer's unit."""
    keys: frozenset[str] | None = None
    """Canonical names; their order is not kept."""
    app: str | None = None
    status: str | None = None
    """`success`, `failure`, or the text as written."""
    button: Literal["left", "right", "middle"] = "left"
    clicks: int = 1


@dataclass(frozen=True, slots=True)
class Unread:
    """A step that could not be read as an action."""

    reason: str


Step = Action | Unread


_TEXT = ("text", "content", "value", "option", "input_text", "message")
_APP = ("app", "app_name", "application", "text", "name", "input_text", "value")


def to_action(name: str, fields: Mapping[str, Any], scroll: Convention = "finger") -> Step:
    """An action from its name and its named arguments; arguments that its type does not need are ignored."""
    kind, implied = action_type(name)
    try:
        match kind:
            case None:
                return Unread(f"unknown action {name[:40]!r}")
            case "click":
                return Action(kind, *_place(fields, xy=True), **_mouse({**fields, **implied}))
            case "longpress" | "hover":
                return Action(kind, *_place(fields, xy=True))
            case "input" | "select":
                return Action(kind, *_place(fields, xy=True), text=_text(fields, _TEXT))
            case "scroll":
                return _scroll({**fields, **implied}, scroll)
            case "drag":
                return _drag(fields)
            case "press":
                names = ("keys", "key", "button", "text", "content", "value")
                return Action(kind, keys=key_set(_first(implied or fields, names)))
            case "open" | "appswitch":
                return Action(kind, app=_text(fields, _APP))
            case "finished":
                status = _text(implied or fields, ("status", "goal_status"))
                return Action(kind, status=status and STATUSES.get(plain_name(status), status))
            case "wait":
                return Action(kind)
    except ValueError as error:
        return Unread(f"{kind}: {error}")


def _first(fields: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((fields[name] for name in names if fields.get(name) is not None), None)


def _text(fields: Mapping[str, Any], names: Sequence[str]) -> str | None:
    value = _first(fields, names)
    if isinstance(value, str) or value is None:
        return value
    if finite(value) is None:
        raise ValueError(f"{names[0]} must be text")
    return str(value)


def _mouse(fields: Mapping[str, Any]) -> dict[str, Any]:
    button, clicks = str(fields.get("button", "left")).lower(), finite(fields.get("clicks", 1))
    if button not in ("left", "right", "middle") or clicks is None or not clicks.is_integer():
        raise ValueError("the button is left, right or middle, and clicks are a whole number")
    return {"button": button, "clicks": int(clicks)}


_START = (
    "start_point",
    "point",
    "start_box",
    "start_coordinate",
    "start",
    "from",
    "position",
    "click_point",
    "point_2d",
    "coordinates",
    "coordinate",
)
BOX_NAMES = ("bbox", "bbox_2d", "box", "boxes", "box_2d")
"""Keys of a gold's target; in an answer without a point, a box under one of them stands for its middle."""
_END = ("end_point", "end_box", "end_coordinate", "end", "to", "coordinate2")
_ENDS = (("x1", "y1", "x2", "y2"), ("start_x", "start_y", "end_x", "end_y"))


def _place(
    fields: Mapping[str, Any], names: Sequence[str] = _START, *, xy: bool = False
) -> tuple[Point | None, Box | None]:
    for name in (*names, *BOX_NAMES) if xy else names:
        if fields.get(name) is not None:
            return place(fields[name], box=name.endswith("_box") or name in BOX_NAMES)
    return place([fields["x"], fields.get("y")]) if xy and "x" in fields else (None, None)


def _with_ends(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    """The arguments, with the two places that four coordinates name."""
    for names in _ENDS:
        if all(name in fields for name in names):
            x1, y1, x2, y2 = (fields[name] for name in names)
            return {**fields, "start_point": [x1, y1], "end_point": [x2, y2]}
    return fields


def _drag(fields: Mapping[str, Any]) -> Action:
    fields = _with_ends(fields)
    if _first(fields, _END) is not None:
        return Action("drag", *_place(fields), *_place(fields, _END))
    # Without another end, the `coordinate` of a drag is its end; it may begin at the pointer.
    end = _place(fields, _START[-1:])
    if end[0] is None and "x" in fields:
        end = place([fields["x"], fields.get("y")])
    return Action("drag", *_place(fields, _START[:-1]), *end)


def pointed(steps: Sequence[Step]) -> list[Step]:
    """The steps; one without a place, right after the pointer was moved, happens at the pointer."""
    result: list[Step] = []
    for step in steps:
        before = result[-1] if result else None
        if (
            isinstance(step, Action)
            and step.type in ("click", "longpress", "drag")
            and step.point is None
            and isinstance(before, Action)
            and before.type == "hover"
            and before.point is not None
        ):
            result[-1] = replace(step, point=before.point, box=before.box)
        else:
            result.append(step)
    return result


def _scroll(fields: Mapping[str, Any], scroll: Convention) -> Action:
    fields = _with_ends(fields)
    distance = finite(_first(fields, ("scroll_distance", "distance", "scroll_amount", "step")))
    direction, wheel = (
        _text(fields, ("direction", "scroll_direction", "input_text", "value")),
        finite(fields.get("pixels")),
    )
    start, end = _place(fields)[0], _place(fields, _END)[0]
    if direction is not None:
        opposite = OPPOSITE.get(direction.strip().lower())
        if opposite is None:
            raise ValueError(f"{direction[:40]!r} is not a direction")
        return Action("scroll", direction=opposite if scroll == "content" else OPPOSITE[opposite], distance=distance)
    if start is not None and end is not None:
        across, down = end[0] - start[0], end[1] - start[1]
        if abs(across) == abs(down):
            raise ValueError("its direction is not clear")
        if abs(across) > abs(down):
            return Action("scroll", direction="right" if across > 0 else "left", distance=abs(across))
        return Action("scroll", direction="down" if down > 0 else "up", distance=abs(down))
    if wheel:
        # Turning the wheel up shows what is above, as moving a finger down does; to the right likewise.
        ways: tuple[Direction, Direction] = ("left", "right") if fields.get("wheel") == "across" else ("down", "up")
        return Action("scroll", direction=ways[0 if wheel > 0 else 1], distance=abs(wheel))
    raise ValueError("its direction is missing")


_NUMBER = r"[-+]?(?:[0-9]{1,15}(?:\.[0-9]{0,20})?|\.[0-9]{1,20})(?:[eE][-+]?[0-9]{1,3})?"
_OPEN, _CLOSE = r"(?:<[|\w]{3,15}>|[\[(\s])*+", r"(?:</?[|\w]{3,15}>|[\])\s])*+"
_PLACE = re.compile(rf"{_OPEN}({_NUMBER})[\s,]++({_NUMBER})(?:[\s,()\[\]]++({_NUMBER})[\s,]++({_NUMBER}))?+{_CLOSE}")


def place(value: Any, *, box: bool = False) -> tuple[Point, Box | None]:
    """A point: `[x, y]`, `{"x": …, "y": …}` or its text. If `box`, also `[x1, y1, x2, y2]`: its middle, and the box.

    Raises: ValueError when it is neither.
    """
    if isinstance(value, str):
        match = _PLACE.fullmatch(value) if len(value) <= 200 else None
        box = box or "<box" in value or "<|box" in value
        value = [number for number in match.groups() if number is not None] if match else ()
    elif isinstance(value, Mapping):
        value = [value.get("x"), value.get("y")]
    while isinstance(value, list | tuple) and len(value) == 1:
        value = value[0]
    if not isinstance(value, list | tuple) or len(value) not in ((2, 4) if box else (2,)):
        raise ValueError("a place is two numbers" + (", or four for a box" if box else ""))
    known = [number for number in map(finite, value) if number is not None]
    if len(known) < len(value):
        raise ValueError("the numbers of a place must be finite")
    if len(known) == 2:
        return (known[0], known[1]), None
    x1, y1, x2, y2 = known
    if x2 < x1 or y2 < y1:
        raise ValueError("the corners of a box are swapped")
    return ((x1 + x2) / 2, (y1 + y2) / 2), (x1, y1, x2, y2) if x1 < x2 and y1 < y2 else None
