"""The gold of GUI actions, and the comparison of an answer's step with it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from morl.rewards.parsing.answer import final_text
from morl.rewards.parsing.coordinates import BoxFormat
from morl.rewards.parsing.gui_formats import decoded, named_action, read_actions
from morl.rewards.parsing.gui_names import ActionType
from morl.rewards.parsing.gui_steps import BOX_NAMES, Action, Convention, Step, Unread, to_action
from morl.rewards.parsing.locations import Box, Point
from morl.rewards.parsing.stated_values import finite
from morl.rewards.parsing.text_metrics import anls, f1, normalised

EDGE = 1e-9
"""The relative rounding error that converting a coordinate may introduce."""


@dataclass(frozen=True, slots=True)
class Target:
    """A step of the gold: the action and where it may happen."""

    action: Action
    boxes: tuple[Box, ...] = ()
    """A point in any of them is right; without boxes, it must be near the action's point."""
    end_boxes: tuple[Box, ...] = ()
    radius: float | None = None
    """The gold's own radius; None for that of the rules."""


@dataclass(frozen=True, slots=True)
class Rules:
    """How steps are compared; distances are in the gold's frame."""

    radius: float = 0.0
    text_metric: Literal["exact", "f1", "anls"] = "exact"
    text_threshold: float = 0.5
    ignore_case: bool = True
    any_click: bool = False
    check_input_point: bool = False
    distance_within: float | None = None
    scale: tuple[float, float] = (1.0, 1.0)
    """The factors (x, y) from the answer's coordinates to the gold's frame."""

    def compares_places(self, kind: ActionType) -> bool:
        """Whether coordinates count for a type of action."""
        if kind in ("input", "select"):
            return self.check_input_point
        return kind in ("click", "longpress", "hover", "drag") or (
            kind == "scroll" and self.distance_within is not None
        )


def read_gold(gold: Any, *, box_format: BoxFormat = "xyxy", scroll: Convention = "finger") -> list[Target]:
    """The gold's steps, from an object, a list of objects, or text in any format of answers.

    Raises: ValueError when there is no step, or a step lacks what it is compared by.
    """
    if isinstance(gold, str):
        value = decoded(gold)
        gold = value if isinstance(value, Mapping | list) else read_actions(final_text(gold), scroll)
    items = gold if isinstance(gold, list | tuple) else [gold]
    targets = [_target(item, box_format, scroll) for item in items]
    if not targets:
        raise ValueError("the gold has no action")
    return targets


def _target(item: Any, box_format: BoxFormat, scroll: Convention) -> Target:
    if isinstance(item, str):
        steps = read_actions(item, scroll)
        item = steps[0] if len(steps) == 1 else Unread("several actions in one")
    fields: Mapping[str, Any] = {}
    if isinstance(item, Mapping):
        name_and_fields = named_action(item)
        if name_and_fields is None:
            raise ValueError("the gold names no action")
        name, fields = name_and_fields
        item = to_action(name, {key: value for key, value in fields.items() if key not in BOX_NAMES}, scroll)
    if not isinstance(item, Action):
        raise ValueError(
            f"the gold is not an action: {item.reason if isinstance(item, Unread) else type(item).__name__}"
        )
    boxes = _boxes(fields, BOX_NAMES, box_format)
    end_boxes = _boxes(fields, ("end_bbox",), box_format)
    radius = finite(fields.get("radius"))
    if (radius is None and fields.get("radius") is not None) or (radius is not None and radius < 0):
        raise ValueError("the gold's radius must be a non-negative number")
    target = Target(
        item,
        boxes or ((item.box,) if item.box else ()),
        end_boxes or ((item.end_box,) if item.end_box else ()),
        radius,
    )
    missing = _missing(target)
    if missing:
        raise ValueError(f"the gold's {item.type} has {missing}")
    return target


def _boxes(fields: Mapping[str, Any], names: tuple[str, ...], box_format: BoxFormat) -> tuple[Box, ...]:
    value = next((fields[name] for name in names if fields.get(name) is not None), None)
    if value is None:
        return ()
    value = decoded(value) if isinstance(value, str) else value
    if not isinstance(value, list | tuple):
        raise ValueError("the gold's box must be a list")
    boxes = []
    for item in value if all(isinstance(item, list | tuple) for item in value) else [value]:
        known = [number for number in map(finite, item) if number is not None]
        if len(known) != 4 or len(item) != 4:
            raise ValueError("the gold's box must be four finite numbers")
        x1, y1, x2, y2 = known
        if box_format == "xywh":
            x2, y2 = x1 + x2, y1 + y2
        boxes.append((x1, y1, x2, y2))
    # A list of boxes may contain one without area, such as a line on the page.
    whole = tuple(box for box in boxes if box[0] < box[2] and box[1] < box[3])
    if boxes and not whole:
        raise ValueError("the gold's box has no area")
    return whole


def _missing(target: Target) -> str:
    action = target.action
    match action.type:
        case "click" | "longpress":
            return "" if target.boxes or action.point else "neither a point nor a box"
        case "drag":
            return "" if target.end_boxes or action.end_point else "no end"
        case "input" | "select":
            return "" if plain_text(action.text or "", True) else "no text"
        case "open":
            return "" if plain_app(action.app or "") else "no application"
        case _:
            return ""


def plain_text(text: str, ignore_case: bool) -> str:
    """A typed text in NFKC, with white space collapsed and without invisible characters."""
    return normalised(text, case=ignore_case, punctuation=False, latex=False)


def plain_app(name: str) -> str:
    """An application's name without case, spaces and punctuation."""
    return normalised(name).replace(" ", "") or plain_text(name, True)


def compare(step: Step, target: Target, rules: Rules) -> tuple[float, str]:
    """The value of a step in [0, 1], and what is wrong with it."""
    wanted = target.action
    if isinstance(step, Unread):
        return 0.0, step.reason
    if step.type != wanted.type:
        return 0.0, f"{step.type} instead of {wanted.type}"
    match step.type:
        case "click" | "longpress" | "hover":
            same = rules.any_click or (step.button, step.clicks) == (wanted.button, wanted.clicks)
            return _all_right(step.type, **{"another kind of click": same, "elsewhere": _starts(step, target, rules)})
        case "drag":
            ends = _hit(step.end_point, target.end_boxes, wanted.end_point, target, rules)
            return _all_right("drag", **{"begins elsewhere": _starts(step, target, rules), "ends elsewhere": ends})
        case "input" | "select":
            if rules.check_input_point and not _starts(step, target, rules):
                return 0.0, f"{step.type}: elsewhere"
            value = _text_value(step.text or "", wanted.text or "", rules)
            return value, "" if value == 1.0 else f"{step.type}: another text"
        case "scroll":
            far = rules.distance_within is None or _as_far(step, wanted, rules.distance_within, rules)
            same = step.direction == wanted.direction
            return _all_right("scroll", **{"another direction": same, "another distance": far})
        case "press":
            return _all_right("press", **{"other keys": step.keys == wanted.keys})
        case "open" | "appswitch":
            app = plain_app(wanted.app or "")
            same = not app or plain_app(step.app or "") == app
            return _all_right(step.type, **{"another application": same})
        case "finished":
            same = not wanted.status or plain_text(step.status or "", True) == plain_text(wanted.status, True)
            return _all_right("finished", **{"another status": same})
        case "wait":
            return 1.0, ""


def _all_right(kind: str, **checks: bool) -> tuple[float, str]:
    failed = [name for name, holds in checks.items() if not holds]
    return (0.0, f"{kind}: {', '.join(failed)}") if failed else (1.0, "")


def _starts(step: Action, target: Target, rules: Rules) -> bool:
    return _hit(step.point, target.boxes, target.action.point, target, rules)


def _hit(point: Point | None, boxes: tuple[Box, ...], wanted: Point | None, target: Target, rules: Rules) -> bool:
    """Whether the point is in a box, or without boxes near the wanted point; true if the gold has neither."""
    if not boxes and wanted is None:
        return True
    if point is None:
        return False
    x, y = point[0] * rules.scale[0], point[1] * rules.scale[1]
    if boxes or wanted is None:
        return any(_within(x, x1, x2) and _within(y, y1, y2) for x1, y1, x2, y2 in boxes)
    radius = rules.radius if target.radius is None else target.radius
    return _within(math.hypot(x - wanted[0], y - wanted[1]), 0.0, radius, max(map(abs, wanted)))


def _within(value: float, low: float, high: float, size: float = 0.0) -> bool:
    slack = EDGE * max(1.0, size, abs(low), abs(high))
    return low - slack <= value <= high + slack


def _text_value(written: str, wanted: str, rules: Rules) -> float:
    written, wanted = plain_text(written, rules.ignore_case), plain_text(wanted, rules.ignore_case)
    if not written:
        return 0.0
    match rules.text_metric:
        case "exact":
            return float(written == wanted)
        case "f1":
            value = f1(written, wanted)
        case "anls":
            value = anls(written, wanted, threshold=rules.text_threshold)
    return value if value >= rules.text_threshold else 0.0


def _as_far(step: Action, wanted: Action, within: float, rules: Rules) -> bool:
    if wanted.distance is None:
        return True
    scale = rules.scale[0 if wanted.direction in ("left", "right") else 1]
    return step.distance is not None and _within(step.distance * scale - wanted.distance, -within, within)
