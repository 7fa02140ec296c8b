r"""Boxes and points in the text of an answer, in every style they are written in, in linear time.

Read are JSON objects with `bbox_2d`, `point_2d`, `coordinate`, `x1` … `y2` and the like; `[x1, y1, x2, y2]`,
`(x1, y1), (x2, y2)`, `[[x, y]]`, `(x, y)`, `x=…, y=…`; the tags `<|box_start|>…<|box_end|>`, `<box>…</box>`,
`<point>x y</point>` and `<points x1="…" y1="…">`; and bare numbers where they are all there is. What stands
where a box was expected and is none is told with the reason, never raised.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Generic, TypeVar

from morl.rewards.answer import Span, boxes, last_together, offered_together, stated

Point = tuple[float, float]
Box = tuple[float, float, float, float]
"""Left, top, right, bottom: `x1 < x2`, `y1 < y2`."""

MAX_PLACES = 10_000
"""Boxes or points of one answer that are read; those after them are not."""
MAX_LITERAL = 400
"""Characters of one number, at most; more is no number that anybody means."""
MAX_VALUE = 1e9
"""Greatest coordinate, so that areas stay finite."""


@dataclass(frozen=True, slots=True)
class LabelledBox:
    """A box of an answer, or what stands where one was expected."""

    box: Box | None
    """None when it is no box: see `problem`."""
    label: str | None = None
    problem: str = ""
    """Why it is no box: not four numbers, not finite, swapped corners, no area."""


@dataclass(frozen=True, slots=True)
class LabelledPoint:
    """A point of an answer, or what stands where one was expected."""

    point: Point | None
    label: str | None = None
    problem: str = ""
    from_box: bool = False
    """Whether it is the centre of a box."""


class Missing:
    """The type of `MISSING`."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing()
"""There is no JSON value in the text; None would be JSON's null."""

_LITERAL = r"[-+]?(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++|nan\b|inf(?:inity)?+\b)(?:e[-+]?[0-9]++)?+"
_ONE_LITERAL = re.compile(_LITERAL, re.IGNORECASE)


def finite(value: Any) -> float | None:
    """The value as a number; None for what is none, is infinite or too large, and for true and false."""
    if type(value) is int or type(value) is float:
        try:
            number = float(value)
        except OverflowError:
            return None
        return number if math.isfinite(number) else None
    if isinstance(value, str):
        value = value.strip()
        if len(value) > MAX_LITERAL or not _ONE_LITERAL.fullmatch(value):
            return None
        number = float(value)
        return number if math.isfinite(number) else None
    return None


def _integer(literal: str) -> int | float:
    return int(literal) if len(literal) <= MAX_LITERAL else math.inf


_DECODER = json.JSONDecoder(parse_int=_integer, strict=False)
_MAX_JSON, _MAX_TRIES = 100_000, 50
_BRACKET = re.compile(r"[\[{]")


def _decoded(text: str) -> Any | Missing:
    """The JSON value that the text is."""
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        return MISSING


def _anything(value: Any) -> bool:
    return True


def find_json(text: str, accept: Callable[[Any], bool] = _anything) -> Any | Missing:
    """The first fenced block that is JSON; else the first array or object in the text that is.

    NaN and Infinity are decoded as such and are for `finite` to refuse; so are numbers too long to be meant.
    Values longer than 100,000 characters outside a fence, and brackets after the 50th that begin none, are
    not looked at.

    Args:
        text: what follows the thinking.
        accept: refuses a value, and the next one is looked for.
    """
    for fence in _fences(text):
        value = _decoded(fence.text)
        if not isinstance(value, Missing) and accept(value):
            return value
    at, tries = 0, 0
    while tries < _MAX_TRIES and (bracket := _BRACKET.search(text, at)):
        start = bracket.start()
        try:
            value, length = _DECODER.raw_decode(text[start : start + _MAX_JSON])
        except ValueError:
            at, tries = start + 1, tries + 1
            continue
        except RecursionError:
            break
        if accept(value):
            return value
        at = start + length
        tries += 1
    return MISSING


def _fences(text: str) -> list[Span]:
    """The contents of ``` blocks, the word after the opening marks aside; the last may be open."""
    if "```" not in text:
        return []
    found, end = [], 0
    while (start := text.find("```", end)) >= 0:
        close = text.find("```", start + 3)
        close = len(text) if close < 0 else close
        end = min(close + 3, len(text))
        language = _LANGUAGE.match(text, start + 3, close)
        inner = language.end() if language else start + 3
        found.append(Span(text[inner:close].strip(), start, end))
        if len(found) >= MAX_PLACES:
            break
    return found


_LANGUAGE = re.compile(r"[A-Za-z0-9_+-]*+(?=\s)")

# Full-width forms, typographic minus signs and spaces are written for plain ones; marks without width for nothing.
_PLAIN = (
    {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
    | dict.fromkeys([0xA0, 0x2007, 0x2009, 0x200A, 0x202F, 0x3000], " ")
    | dict.fromkeys([0x2212, 0x2010, 0x2011], "-")
    | dict.fromkeys([0x200B, 0x200C, 0x200D, 0x200E, 0x200F, 0x2060, 0xFEFF, *range(0x202A, 0x202F)])
    | {0x3001: ","}
)


def _plain(text: str) -> str:
    return text if text.isascii() else text.translate(_PLAIN)


_NAME = r"""(?:["']?(?:[xy](?:[12]|_?(?:min|max))?+|left|top|right|bottom|width|height)["']?\s*+[=:]\s*+)?+"""
_NUMBER = rf"{_NAME}{_LITERAL}(?:\s*+px\b)?+"
_GAP = r"[\s,;\\]++"
_PAIR = rf"{_NUMBER}{_GAP}{_NUMBER}"
_CLOSE = r"[\s,\\]*+(?:\\?right)?+"
_ROUND = rf"[\[(]\s*+{_PAIR}{_CLOSE}[\])]"
_JOIN = r"\s*+(?:(?:,|;|to|and|->|→|-|–)\s*+)?+"
_TAG = r"<(?:\|box_start\||box|bbox|\|point_start\||point|coordinate|click)>"
_END_TAG = r"<(?:\|box_end\||/box|/bbox|\|point_end\||/point|/coordinate|/click)>"

_LIST_OF_FOUR = rf"[\[(]\s*+{_PAIR}{_GAP}{_PAIR}{_CLOSE}[\])]"
_TAGGED_FOUR = rf"{_TAG}\s*+{_PAIR}{_GAP}{_PAIR}\s*+{_END_TAG}"
_TAGGED_CORNERS = rf"<(?:\|box_start\||box|bbox)>\s*+[\[(]?\s*+{_ROUND}{_JOIN}{_ROUND}\s*+[\])]?\s*+{_END_TAG}"
_BOX_TEXT = re.compile(
    rf"{_LIST_OF_FOUR}|{_TAGGED_FOUR}|{_ROUND}{_JOIN}{_ROUND}"
    rf"|\bx_?(?:1|min)\s*+[=:]\s*+{_LITERAL}{_GAP}{_NUMBER}{_GAP}{_PAIR}",
    re.IGNORECASE,
)
_POINT_TEXT = re.compile(
    rf"(?P<four>{_LIST_OF_FOUR}|{_TAGGED_FOUR}|{_TAGGED_CORNERS})"
    rf"|{_ROUND}|{_TAG}\s*+{_PAIR}\s*+{_END_TAG}|\bx\s*+[=:]\s*+{_LITERAL}{_GAP}{_NUMBER}"
    r"|<points?\s(?P<molmo>[^<>]*+)>",
    re.IGNORECASE,
)
_MOLMO = re.compile(
    rf"""\bx[0-9]*+\s*+=\s*+["']({_LITERAL})["']\s+y[0-9]*+\s*+=\s*+["']({_LITERAL})["']""", re.IGNORECASE
)
_MOLMO_LABEL = re.compile(r"""\balt\s*=\s*["']([^"'<>]*+)["']""")
_BARE_BOX = re.compile(rf"\s*+{_PAIR}{_GAP}{_PAIR}\s*+\.?+", re.IGNORECASE)
_BARE_POINT = re.compile(rf"\s*+{_PAIR}\s*+\.?+", re.IGNORECASE)
_NUMBERS = re.compile(rf"(?<![\w.]){_LITERAL}", re.IGNORECASE)
_NAMED = re.compile(r"(?:<\|object_ref_start\|>|<ref>)([^<>]*+)<(?:\|object_ref_end\||/ref)>")

_BOX_KEYS = frozenset(("bbox_2d", "bbox", "bboxes", "box_2d", "box", "boxes", "bounding_box", "bounding_boxes"))
_POINT_KEYS = frozenset(("point_2d", "point", "points", "start_point", "coordinate", "coordinates"))
_LABEL_KEYS = ("label", "text", "name")
_CORNERS = (
    ("x1", "y1", "x2", "y2"),
    ("xmin", "ymin", "xmax", "ymax"),
    ("x_min", "y_min", "x_max", "y_max"),
    ("left", "top", "right", "bottom"),
)
_EXTENTS = (("x", "y", "width", "height"), ("x", "y", "w", "h"))
_EMPTY = re.compile(r"\[\s*+\]")


def _labelled_box(numbers: Sequence[Any], label: str | None) -> LabelledBox:
    values = [finite(number) for number in numbers]
    if len(values) != 4:
        return LabelledBox(None, label, f"{len(values)} numbers instead of four")
    x1, y1, x2, y2 = values
    if x1 is None or y1 is None or x2 is None or y2 is None:
        return LabelledBox(None, label, "not four finite numbers")
    if max(abs(x1), abs(y1), abs(x2), abs(y2)) > MAX_VALUE:
        return LabelledBox(None, label, "beyond any picture")
    if x1 < x2 and y1 < y2:
        return LabelledBox((x1, y1, x2, y2), label)
    return LabelledBox(None, label, "swapped corners" if x1 > x2 or y1 > y2 else "no area")


def _labelled_point(numbers: Sequence[Any], label: str | None) -> LabelledPoint:
    if len(numbers) == 4:
        found = _labelled_box(numbers, label)
        if found.box is None:
            return LabelledPoint(None, label, f"a box: {found.problem}", from_box=True)
        x1, y1, x2, y2 = found.box
        return LabelledPoint(((x1 + x2) / 2, (y1 + y2) / 2), label, from_box=True)
    values = [finite(number) for number in numbers]
    if len(values) != 2:
        return LabelledPoint(None, label, f"{len(values)} numbers instead of two")
    x, y = values
    if x is None or y is None:
        return LabelledPoint(None, label, "not two finite numbers")
    if max(abs(x), abs(y)) > MAX_VALUE:
        return LabelledPoint(None, label, "beyond any picture")
    return LabelledPoint((x, y), label)


def _points_in_text(text: str) -> Iterator[tuple[re.Match[str], list[str]]]:
    """Points; without any, the boxes that stand for them."""
    fours, found = [], False
    for match in _POINT_TEXT.finditer(text):
        if match["four"]:
            fours.append(match)
        elif match["molmo"] is None:
            found = True
            yield match, _NUMBERS.findall(match.group())
        else:
            for pair in _MOLMO.finditer(match["molmo"]):
                found = True
                yield match, [pair[1], pair[2]]
    if not found:
        yield from ((match, _NUMBERS.findall(match.group())) for match in fours)


def _boxes_in_text(text: str) -> Iterator[tuple[re.Match[str], list[str]]]:
    return ((match, _NUMBERS.findall(match.group())) for match in _BOX_TEXT.finditer(text))


P = TypeVar("P", LabelledBox, LabelledPoint)


@dataclass(frozen=True, slots=True)
class _Kind(Generic[P]):
    """What is looked for."""

    width: int
    keys: tuple[frozenset[str], ...]
    """Keys whose values are what is looked for; later sets count for objects without the earlier ones."""
    make: Callable[[Sequence[Any], str | None], P]
    in_text: Callable[[str], Iterator[tuple[re.Match[str], list[str]]]]
    bare: re.Pattern[str]


_BOXES = _Kind(4, (_BOX_KEYS, _POINT_KEYS), _labelled_box, _boxes_in_text, _BARE_BOX)
_POINTS = _Kind(2, (_POINT_KEYS, _BOX_KEYS), _labelled_point, _points_in_text, _BARE_POINT)


def read_boxes(text: str, *, one: bool = False) -> list[LabelledBox]:
    """The boxes of an answer, in its order; those that are none come with their problem.

    Looked for in the last `<answer>` or `\\boxed{}`; else in the first fenced block that has any; else in what
    follows "answer is"; else everywhere.

    Args:
        text: what follows the thinking.
        one: one box was asked for, so that a box which is taken back ("no, wait") is left out. Several
            that are offered together remain several.
    """
    return _read(text, _BOXES, one)


def read_points(text: str, *, one: bool = False) -> list[LabelledPoint]:
    """The points of an answer, as `read_boxes`; where it has boxes and no points, the boxes' centres."""
    return _read(text, _POINTS, one)


def box_from(value: Any) -> Box | None:
    """The one box that a value is: four numbers, two corners, named sides, or the text of one."""
    found = read_boxes(value, one=True) if isinstance(value, str) else _in_json({"box": value}, _BOXES)
    return found[0].box if len(found) == 1 else None


def point_from(value: Any) -> Point | None:
    """The one point that a value is: two numbers, named ones, or the text of one; of a box, its centre."""
    found = read_points(value, one=True) if isinstance(value, str) else _in_json({"point": value}, _POINTS)
    return found[0].point if len(found) == 1 else None


def explicitly_empty(text: str) -> bool:
    """Whether an answer in which nothing was found says so by an empty list."""
    return _EMPTY.search(_answer(_plain(text))) is not None


@dataclass(frozen=True, slots=True)
class _Statement(Span, Generic[P]):
    """A piece of text with the places that it states."""

    places: list[P]


def _read(text: str, kind: _Kind[P], one: bool) -> list[P]:
    text = _answer(_plain(text))
    if "boxed" in text or "fbox" in text:
        held = [_places(_statements(box.text, kind)) for box in last_together(text, boxes(text))]
        if any(held):
            return [place for places in held for place in places][:MAX_PLACES]
    if "```" in text:
        fenced = [_Statement(f.text, f.start, f.end, _places(_statements(f.text, kind))) for f in _fences(text)]
        found = _first_together(text, [statement for statement in fenced if statement.places])
        if found:
            return _places(found)
    if "nswer" in text or "答案" in text or "NSWER" in text:
        said = stated(text)
        tail = text[text.rfind(said) :] if said else ""
        found = _statements(tail, kind) if tail else []
        if found:
            return _places(_first_together(tail, found) if one else found)
    found = _statements(text, kind)
    if one and len(found) > 1:
        kept = {id(span) for span in last_together(text, found)}
        found = [statement for statement in found if id(statement) in kept]
    return _places(found)


def _answer(text: str) -> str:
    """What stands in the last `<answer>…</answer>`; all of it without one."""
    start = text.rfind("<answer>")
    return text if start < 0 else text[start + len("<answer>") :].partition("</answer>")[0]


def _places(statements: Sequence[_Statement[P]]) -> list[P]:
    if len(statements) == 1:
        return statements[0].places[:MAX_PLACES]
    return [place for statement in statements for place in statement.places][:MAX_PLACES]


def _first_together(text: str, found: list[_Statement[P]]) -> list[_Statement[P]]:
    last = 0
    while last + 1 < len(found) and offered_together(text[found[last].end : found[last + 1].start]):
        last += 1
    return found[: last + 1]


_OBJECT = re.compile(r"\{[^{}]*+(?:\{[^{}]*+\}[^{}]*+)*+\}")
_QUOTED = re.compile(r"""'(?:label|text|name)'\s*+:\s*+'([^']*+)'""")


def _statements(text: str, kind: _Kind[P]) -> list[_Statement[P]]:
    """What the text states: as one JSON value, else in JSON objects, else in words, else as bare numbers."""
    text = text.strip()
    if text[:1] in ("[", "{"):
        value = _decoded(text)
        places = [] if isinstance(value, Missing) else _in_json(value, kind)
        if places:
            return [_Statement(text, 0, len(text), places)]
    found = list(_from_objects(text, kind)) or list(_from_words(text, kind))
    if not found and len(text) < MAX_LITERAL and kind.bare.fullmatch(text):
        return [_Statement(text, 0, len(text), [kind.make(_NUMBERS.findall(text), None)])]
    return found


def _from_objects(text: str, kind: _Kind[P]) -> Iterator[_Statement[P]]:
    for match in islice(_OBJECT.finditer(text), MAX_PLACES):
        inner = match.group().replace("\\{", "{").replace("\\}", "}")
        value = _decoded(inner)
        if not isinstance(value, Missing):
            places = _in_json(value, kind)
        elif any(key in inner for keys in kind.keys for key in keys):
            # Not quite JSON: single quotes, a comma too many.
            label = _QUOTED.search(inner)
            places = [kind.make(numbers, label[1] if label else None) for _, numbers in kind.in_text(inner)]
        else:
            continue
        if places:
            yield _Statement(inner, match.start(), match.end(), places)


def _from_words(text: str, kind: _Kind[P]) -> Iterator[_Statement[P]]:
    names = list(_NAMED.finditer(text)) if "ref" in text else []
    at = -1
    for match, numbers in islice(kind.in_text(text), MAX_PLACES):
        while at + 1 < len(names) and names[at + 1].end() <= match.start():
            at += 1
        label = names[at][1].strip() if at >= 0 else None
        if label is None and match.groupdict().get("molmo"):
            named = _MOLMO_LABEL.search(match.group())
            label = named[1] if named else None
        yield _Statement(match.group(), match.start(), match.end(), [kind.make(numbers, label)])


def _in_json(value: Any, kind: _Kind[P]) -> list[P]:
    """The places anywhere in a JSON value, in its order."""
    found: list[P] = []
    waiting = [value]
    while waiting and len(found) < MAX_PLACES:
        item = waiting.pop()
        if isinstance(item, Mapping):
            label = _label(item)
            held = next((held for keys in kind.keys if (held := [key for key in item if key in keys])), None)
            if held:
                found += [kind.make(numbers, label) for key in held for numbers in _number_lists(item[key], kind)]
                continue
            named = _named_numbers(item, kind.width)
            if named is not None:
                found.append(kind.make(named, label))
            else:
                waiting.extend(reversed(list(item.values())))
        elif isinstance(item, list | tuple):
            waiting.extend(reversed(item))
    return found[:MAX_PLACES]


def _label(item: Mapping[str, Any]) -> str | None:
    for key in _LABEL_KEYS:
        if isinstance(item.get(key), str):
            return str(item[key])
    return None


def _named_numbers(item: Mapping[str, Any], width: int) -> list[Any] | None:
    """The numbers of an object that is a place itself."""
    for names in _CORNERS:
        if all(name in item for name in names):
            return [item[name] for name in names]
    for names in _EXTENTS:
        if all(name in item for name in names):
            x, y, across, down = (finite(item[name]) for name in names)
            return [x, y, *(None if a is None or b is None else a + b for a, b in ((x, across), (y, down)))]
    return [item["x"], item["y"]] if width == 2 and "x" in item and "y" in item else None


def _number_lists(value: Any, kind: _Kind[P], depth: int = 3) -> Iterator[Sequence[Any]]:
    """The numbers of each place that the value of a key says."""
    if isinstance(value, str):
        value = value[:MAX_LITERAL]
        texts = [numbers for _, numbers in kind.in_text(value)]
        yield from texts or [_NUMBERS.findall(value)]
    elif isinstance(value, Mapping):
        yield _named_numbers(value, kind.width) or ()
    elif not isinstance(value, list | tuple):
        if value is not None:
            yield ()
    elif value and isinstance(value[0], list | tuple | Mapping) and depth:
        if kind.width == 4 and len(value) == 2 and all(isinstance(c, list | tuple) and len(c) == 2 for c in value):
            yield [*value[0], *value[1]]
        else:
            for item in value:
                yield from _number_lists(item, kind, depth - 1)
    elif value:
        yield value
