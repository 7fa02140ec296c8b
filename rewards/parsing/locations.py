r"""Boxes and points in the text of an answer, in all common notations.

These are: JSON objects with `bbox_2d`, `point_2d`, `coordinate`, `x1` … `y2` and the like; `[x1, y1, x2, y2]`,
`(x1, y1), (x2, y2)`, "top-left (x1, y1), bottom-right (x2, y2)", `[[x, y]]`, `(x, y)`, `x=…, y=…`; the tags
`<|box_start|>…<|box_end|>`, `<box>…</box>`, `<point>x y</point>` and `<points x1="…" y1="…">`; and bare numbers
if they are the whole text. An invalid box or point is returned with the reason; nothing is raised.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from morl.rewards.parsing.stated_values import LITERAL, MAX_FOUND, Match, Notation, answer_text, finite, in_json, read

Point = tuple[float, float]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom: `x1 < x2`, `y1 < y2`."""

MAX_VALUE = 1e9
"""The greatest coordinate; it keeps areas finite."""


@dataclass(frozen=True, slots=True)
class LabelledBox:
    """A box of an answer, or the reason why it is invalid."""

    box: Box | None
    """None when it is invalid: see `problem`."""
    label: str | None = None
    problem: str = ""
    """Why it is invalid: not four numbers, not finite, swapped corners, no area."""


@dataclass(frozen=True, slots=True)
class LabelledPoint:
    """A point of an answer, or the reason why it is invalid."""

    point: Point | None
    label: str | None = None
    problem: str = ""
    from_box: bool = False
    """Whether it is the centre of a box."""


_IS = r"""["']?\s*+(?:[=:]|is\b)\s*+"""
_COORDINATE = "[-_ ]?coord(?:inate)?"
_NAME = rf"""(?:["']?(?:[xy](?:[12]|_?(?:min|max)|{_COORDINATE})?+|left|top|right|bottom|width|height){_IS})?+"""
_NUMBER = rf"{_NAME}{LITERAL}(?:\s*+px\b)?+"
_GAP = r"[\s,;\\]++"
_PAIR = rf"{_NUMBER}{_GAP}{_NUMBER}"
_CLOSE = r"[\s,\\]*+(?:\\?right)?+"
_ROUND = rf"[\[(]\s*+{_PAIR}{_CLOSE}[\])]"
_JOIN = r"\s*+(?:(?:,|;|to|and|->|→|-|–)\s*+)?+"
_TAG = r"<(?:\|box_start\||box|bbox|bounding_box|\|point_start\||point|coordinate|click)>"
_END_TAG = r"<(?:\|box_end\||/box|/bbox|/bounding_box|\|point_end\||/point|/coordinate|/click)>"

_LIST_OF_FOUR = rf"[\[(]\s*+{_PAIR}{_GAP}{_PAIR}{_CLOSE}[\])]"
_TAGGED_FOUR = rf"{_TAG}\s*+{_PAIR}{_GAP}{_PAIR}\s*+{_END_TAG}"
_TAGGED_CORNERS = rf"<(?:\|box_start\||box|bbox)>\s*+[\[(]?\s*+{_ROUND}{_JOIN}{_ROUND}\s*+[\])]?\s*+{_END_TAG}"
_CORNER_OF = r"\b{side}[-\s]*+{end}\b[^0-9()\[\]{{}}\n]{{0,30}}?"
_UPPER, _LOWER = (
    _CORNER_OF.format(side="(?:top|upper)", end="left"),
    _CORNER_OF.format(side="(?:bottom|lower)", end="right"),
)
_CORNERS_SAID = (
    rf"{_UPPER}{_ROUND}[^0-9()\[\]{{}}\n]{{0,30}}?{_LOWER}{_ROUND}"
    rf"|{_UPPER}{LITERAL}[\s,;]++{_UPPER}{LITERAL}[\s,;]++{_LOWER}{LITERAL}[\s,;]++{_LOWER}{LITERAL}"
)
_BOX_TEXT = re.compile(
    rf"{_LIST_OF_FOUR}|{_TAGGED_FOUR}|{_ROUND}{_JOIN}{_ROUND}"
    rf"|\bx_?(?:1|min)\s*+[=:]\s*+{LITERAL}{_GAP}{_NUMBER}{_GAP}{_PAIR}|{_CORNERS_SAID}",
    re.IGNORECASE,
)
_POINT_TEXT = re.compile(
    rf"(?P<four>{_LIST_OF_FOUR}|{_TAGGED_FOUR}|{_TAGGED_CORNERS}|{_CORNERS_SAID})"
    rf"|{_ROUND}|{_TAG}\s*+{_PAIR}\s*+{_END_TAG}|\bx(?:{_COORDINATE})?+{_IS}{LITERAL}(?:{_GAP}|,?\s++and\s++(?:the\s++)?+){_NUMBER}"
    r"|<points?\s(?P<molmo>[^<>]*+)>",
    re.IGNORECASE,
)
_MOLMO = re.compile(
    rf"""\bx[0-9]*+\s*+=\s*+["']?({LITERAL})["']?\s+y[0-9]*+\s*+=\s*+["']?({LITERAL})\b["']?""", re.IGNORECASE
)
_MOLMO_LABEL = re.compile(r"""\balt\s*=\s*["']([^"'<>]*+)["']""")
_BARE_BOX = re.compile(rf"\s*+{_PAIR}{_GAP}{_PAIR}\s*+\.?+", re.IGNORECASE)
_BARE_POINT = re.compile(rf"\s*+{_PAIR}(?:{_GAP}{_PAIR})?+\s*+\.?+", re.IGNORECASE)
_NUMBERS = re.compile(rf"(?<![\w.]){LITERAL}", re.IGNORECASE)
_NAMED = re.compile(r"(?:<\|object_ref_start\|>|<ref>)([^<>]*+)<(?:\|object_ref_end\||/ref)>")

BOX_KEYS = frozenset(
    ("bbox_2d", "bbox", "bbox_xyxy", "bboxes", "box_2d", "box", "boxes", "bounding_box", "bounding_boxes")
)
POINT_KEYS = frozenset(("point_2d", "point", "points", "start_point", "coordinate", "coordinates"))
_CORNERS = (
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("left", "top", "right", "bottom"),
)
_EXTENTS = (("x", "y", "width", "height"), ("x", "y", "w", "h"), ("left", "top", "width", "height"))
_EMPTY = re.compile(r"\[\s*+\]")


def labelled_box(numbers: Sequence[Any], label: str | None) -> LabelledBox:
    """The box of four numbers, or the reason why they are none."""
    if len(numbers) != 4:
        return LabelledBox(None, label, f"{len(numbers)} numbers instead of four")
    x1, y1, x2, y2 = map(finite, numbers)
    if x1 is None or y1 is None or x2 is None or y2 is None:
        return LabelledBox(None, label, "not four finite numbers")
    if -MAX_VALUE <= x1 < x2 <= MAX_VALUE and -MAX_VALUE <= y1 < y2 <= MAX_VALUE:
        return LabelledBox((x1, y1, x2, y2), label)
    if max(abs(x1), abs(y1), abs(x2), abs(y2)) > MAX_VALUE:
        return LabelledBox(None, label, "beyond any image")
    return LabelledBox(None, label, "swapped corners" if x1 > x2 or y1 > y2 else "no area")


def labelled_point(numbers: Sequence[Any], label: str | None) -> LabelledPoint:
    """The point of two numbers, the centre of a box of four, or the reason why they are neither."""
    if len(numbers) == 4 and list(numbers[:2]) == list(numbers[2:]):  # a point written as a box
        return replace(labelled_point(numbers[:2], label), from_box=True)
    if len(numbers) == 4:
        whole = labelled_box(numbers, label)
        if whole.box is None:
            return LabelledPoint(None, label, f"a box: {whole.problem}", from_box=True)
        x1, y1, x2, y2 = whole.box
        return LabelledPoint(((x1 + x2) / 2, (y1 + y2) / 2), label, from_box=True)
    if len(numbers) != 2:
        return LabelledPoint(None, label, f"{len(numbers)} numbers instead of two")
    x, y = map(finite, numbers)
    if x is None or y is None:
        return LabelledPoint(None, label, "not two finite numbers")
    if max(abs(x), abs(y)) > MAX_VALUE:
        return LabelledPoint(None, label, "beyond any image")
    return LabelledPoint((x, y), label)


def _points_in_text(text: str) -> Iterator[Match]:
    """The points; without any, the boxes whose centres are the points."""
    boxes: list[Match] = []
    any_point = False
    for match in _POINT_TEXT.finditer(text):
        if match["four"]:
            if len(boxes) < MAX_FOUND:
                boxes.append(Match(_NUMBERS.findall(match.group()), *match.span()))
            continue
        any_point = True
        if match["molmo"] is None:
            yield Match(_NUMBERS.findall(match.group()), *match.span())
            continue
        label = _MOLMO_LABEL.search(match["molmo"])
        for pair in _MOLMO.finditer(match["molmo"]):
            at = match.start("molmo")
            yield Match(pair.groups(), at + pair.start(), at + pair.end(), label[1] if label else None)
    if not any_point:
        yield from boxes


def _boxes_in_text(text: str) -> Iterator[Match]:
    """The boxes, each labelled with the last name before it."""
    names = list(_NAMED.finditer(text)) if "ref" in text else []
    at = -1
    for match in _BOX_TEXT.finditer(text):
        while at + 1 < len(names) and names[at + 1].end() <= match.start():
            at += 1
        yield Match(_NUMBERS.findall(match.group()), *match.span(), names[at][1].strip() if at >= 0 else None)


def _named_box(item: Mapping[str, Any]) -> list[Any] | None:
    for names in _CORNERS:
        if all(name in item for name in names):
            return [item[name] for name in names]
    for names in _EXTENTS:
        if all(name in item for name in names):
            x, y, across, down = (finite(item[name]) for name in names)
            return [x, y, *(None if a is None or b is None else a + b for a, b in ((x, across), (y, down)))]
    if "top_left" in item and "bottom_right" in item:
        ends = [point_from(item[name]) for name in ("top_left", "bottom_right")]
        return [number for end in ends for number in end or (None, None)]
    return None


def _named_point(item: Mapping[str, Any]) -> list[Any] | None:
    return _named_box(item) or ([item["x"], item["y"]] if "x" in item and "y" in item else None)


BOXES = Notation((BOX_KEYS, POINT_KEYS), _named_box, _boxes_in_text, _BARE_BOX, _NUMBERS, labelled_box, corners=True)
POINTS = Notation((POINT_KEYS, BOX_KEYS), _named_point, _points_in_text, _BARE_POINT, _NUMBERS, labelled_point)


def read_boxes(text: str, *, one: bool = False) -> list[LabelledBox]:
    """The boxes of an answer, in order; invalid ones have a `problem`.

    Args:
        text: the text after the thinking.
        one: whether one box is expected: see `stated_values.read`.
    """
    return read(text, BOXES, one)


def read_points(text: str, *, one: bool = False) -> list[LabelledPoint]:
    """The points of an answer, as `read_boxes`; if it has boxes and no points, their centres."""
    return read(text, POINTS, one)


def point_from(value: Any) -> Point | None:
    """The point of a value that is two numbers, `x` and `y`, or the text of one; the centre of a value that is a box.

    None for anything else.
    """
    points = read_points(value, one=True) if isinstance(value, str) else in_json({"point": value}, POINTS)
    return points[0].point if len(points) == 1 else None


def explicitly_empty(text: str) -> bool:
    """Whether an answer without boxes has an empty list."""
    return _EMPTY.search(answer_text(text)) is not None
