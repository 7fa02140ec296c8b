"""Reads what an answer states: JSON wherever it stands, or text in the styles of one kind of thing.

A box, a point and a time span are looked for in the same places and in the same order. All of it takes linear
time, and nothing that a text holds raises.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final, Generic, NamedTuple, TypeVar

from morl.rewards.parsing.answer import Span, boxes, denied, last_together, offered_together, stated, within_tags

MAX_FOUND = 10_000
"""Things of one answer that are read; those after them are not."""
MAX_LITERAL = 400
"""Characters of one number, at most; more is no number that anybody means."""
LITERAL = r"[-+]?(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++|nan\b|inf(?:inity)?+\b)(?:e[-+]?[0-9]++)?+"
"""Pattern of a number as `finite` reads it, letters in either case."""


class Missing:
    """The type of `MISSING`."""

    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final = Missing()
"""There is no JSON value in the text; None would be JSON's null."""

_ONE_LITERAL = re.compile(LITERAL, re.IGNORECASE)


def finite(value: Any) -> float | None:
    """The value as a number; None for what is none, is infinite or too large, and for true and false."""
    if isinstance(value, str):
        value = value.strip()
        if len(value) > MAX_LITERAL or not _ONE_LITERAL.fullmatch(value):
            return None
    elif type(value) is not int and type(value) is not float:
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _integer(literal: str) -> int | float:
    return int(literal) if len(literal) <= MAX_LITERAL else math.inf


_DECODER = json.JSONDecoder(parse_int=_integer, strict=False)
_MAX_JSON, _MAX_TRIES = 100_000, 50
_BRACKET = re.compile(r"[\[{]")


def decoded(text: str) -> Any | Missing:
    """The JSON value that the text is, or `MISSING`; NaN, Infinity and numbers too long to be meant as floats."""
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
        value = decoded(fence.text)
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
        if len(found) >= MAX_FOUND:
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


def answer_text(text: str) -> str:
    """What stands in the last `<answer>…</answer>`, else all of the text; in plain characters, without outer spaces."""
    if not text.isascii():
        text = text.translate(_PLAIN)
    return within_tags(text).strip()


T = TypeVar("T")


class Found(NamedTuple):
    """Something in a text: its parts as they are written, and where it stands."""

    parts: Sequence[str]
    start: int
    end: int
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Kind(Generic[T]):
    """What is looked for, and how it is written."""

    keys: tuple[frozenset[str], ...]
    """Keys of JSON objects that hold it; later sets count in objects without a key of the earlier ones."""
    named: Callable[[Mapping[str, Any]], Sequence[Any] | None]
    """The parts of a JSON object that is one itself, such as `{"x": 1, "y": 2}`."""
    in_text: Callable[[str], Iterable[Found]]
    """Those in a text, in order; in linear time."""
    bare: re.Pattern[str]
    """How it is written where it is all there is."""
    part: re.Pattern[str]
    """One of its parts."""
    make: Callable[[Sequence[Any], str | None], T]
    """Makes it of its parts and its label; what is wrong with them is told in what it makes."""
    corners: bool = False
    """Whether two pairs are one of it."""


@dataclass(frozen=True, slots=True)
class _Statement(Span, Generic[T]):
    """A piece of text with the things that it states."""

    things: list[T]


def read(text: str, kind: Kind[T], one: bool) -> list[T]:
    r"""The things of a kind that an answer states, in its order.

    Looked for in the last `<answer>`, in it in the last `\boxed{}`; else in the first fenced block that has any;
    else in what follows "answer is"; else everywhere. What the text denies ("not at [30, 40]") is left out.

    Args:
        text: what follows the thinking.
        kind: what is looked for.
        one: one thing was asked for, so that what is taken back ("no, wait") is left out. Things that
            are offered together remain several.
    """
    text = answer_text(text)
    if "boxed" in text or "fbox" in text:
        held = [_all(_statements(box.text, kind)) for box in last_together(text, boxes(text))]
        if any(held):
            return [thing for things in held for thing in things][:MAX_FOUND]
    if "```" in text:
        fenced = [_Statement(f.text, f.start, f.end, _all(_statements(f.text, kind))) for f in _fences(text)]
        found = _first_together(text, [statement for statement in fenced if statement.things])
        if found:
            return _all(found)
    if "nswer" in text or "NSWER" in text or "答案" in text:
        said = stated(text) or ""
        # One thing stands in the sentence itself; a list may go on in the next ones.
        for rest in (said, text[text.rfind(said) :]) if one else (text[text.rfind(said) :],):
            found = _statements(rest, kind) if said else []
            if found:
                return _all(_first_together(rest, found) if one else found)
    found = _statements(text, kind)
    if one and len(found) > 1:
        kept = {span.start for span in last_together(text, found)}
        found = [statement for statement in found if statement.start in kept]
    return _all(found)


def _all(statements: Sequence[_Statement[T]]) -> list[T]:
    if len(statements) == 1:
        return statements[0].things[:MAX_FOUND]
    return [place for statement in statements for place in statement.things][:MAX_FOUND]


def _first_together(text: str, found: list[_Statement[T]]) -> list[_Statement[T]]:
    last = 0
    while last + 1 < len(found) and offered_together(text[found[last].end : found[last + 1].start]):
        last += 1
    return found[: last + 1]


_OBJECT = re.compile(r"\{[^{}]*+(?:\{[^{}]*+\}[^{}]*+)*+\}")
_LABELS = ("label", "text", "name", "category", "class")
# What may stand before bare parts.
_LEAD_IN = re.compile(r"(?:(?<![0-9])[:=]|\b(?:is|at))[\s*`]++(?=[-+.0-9])")
_QUOTED = re.compile(r"""'(?:label|text|name)'\s*+:\s*+'([^']*+)'""")


def _statements(text: str, kind: Kind[T]) -> list[_Statement[T]]:
    """What a text states: as one JSON value, else in JSON objects, else in words, else as bare parts."""
    if text[:1] in ("[", "{"):
        value = decoded(text)
        things = [] if isinstance(value, Missing) else in_json(value, kind)
        if things:
            return [_Statement(text, 0, len(text), things)]
    found = list(_from_objects(text, kind)) if "{" in text else []
    if not found:
        words = islice(kind.in_text(text), MAX_FOUND)
        found = [
            _Statement(text[start:end], start, end, [kind.make(parts, label)]) for parts, start, end, label in words
        ]
    if not found and len(text) < MAX_LITERAL:
        starts = [0, *(lead.end() for lead in _LEAD_IN.finditer(text))]
        bare = [Span(text[start:], start, len(text)) for start in starts if kind.bare.fullmatch(text, start)]
        if bare and not denied(text, bare[0]):
            return [_Statement(text, 0, len(text), [kind.make(kind.part.findall(bare[0].text), None)])]
    return [statement for statement in found if not denied(text, statement)]


def _from_objects(text: str, kind: Kind[T]) -> Iterator[_Statement[T]]:
    for match in islice(_OBJECT.finditer(text), MAX_FOUND):
        inner = match.group().replace("\\{", "{").replace("\\}", "}")
        value = decoded(inner)
        if isinstance(value, Missing):
            value = decoded(inner.replace("'", '"'))
        if not isinstance(value, Missing):
            things = in_json(value, kind)
        elif any(key in inner for keys in kind.keys for key in keys):
            # Not quite JSON: a comma too many, a quote within a text.
            label = _QUOTED.search(inner)
            things = [kind.make(found.parts, label[1] if label else None) for found in kind.in_text(inner)]
        else:
            continue
        if things:
            yield _Statement(inner, match.start(), match.end(), things)


def in_json(value: Any, kind: Kind[T]) -> list[T]:
    """The things anywhere in a JSON value, in its order."""
    found: list[T] = []
    waiting = [value]
    while waiting and len(found) < MAX_FOUND:
        item = waiting.pop()
        if isinstance(item, Mapping):
            item = _small(item)
            values = _held(item, kind)
            if values is not None:
                label = _label(item)
                found += [kind.make(parts, label) for value in values for parts in _parts(value, kind)]
            elif (named := kind.named(item)) is not None:
                found.append(kind.make(named, _label(item)))
            else:
                waiting.extend(reversed(list(item.values())))
        elif isinstance(item, list | tuple):
            waiting.extend(reversed(item))
    return found[:MAX_FOUND]


def _small(item: Mapping[Any, Any]) -> dict[str, Any]:
    """The object with its keys in small letters."""
    return {key.lower(): value for key, value in item.items() if isinstance(key, str)}


def _held(item: Mapping[str, Any], kind: Kind[T]) -> list[Any] | None:
    for keys in kind.keys:
        values = [value for key, value in item.items() if key in keys]
        if values:
            return values
    return None


def _label(item: Mapping[str, Any]) -> str | None:
    for key in _LABELS:
        if isinstance(label := item.get(key), str):
            return label
    return None


def _parts(value: Any, kind: Kind[T], depth: int = 3) -> Iterator[Sequence[Any]]:
    """The parts of each thing that the value of a key says."""
    if isinstance(value, str):
        value = value[:MAX_LITERAL]
        texts = [found.parts for found in kind.in_text(value)]
        yield from texts or [kind.part.findall(value)]
    elif isinstance(value, Mapping):
        yield kind.named(_small(value)) or ()
    elif not isinstance(value, list | tuple):
        if value is not None:
            yield ()
    elif value and isinstance(value[0], list | tuple | Mapping) and depth:
        if kind.corners and len(value) == 2 and all(isinstance(c, list | tuple) and len(c) == 2 for c in value):
            yield [*value[0], *value[1]]
        else:
            for item in value:
                yield from _parts(item, kind, depth - 1)
    elif value:
        yield value


def gold_value(gold: Any, kind: Kind[T]) -> Any:
    """A gold as numbers, texts, lists and mappings: JSON text decoded, other text read, arrays made lists.

    Raises: ValueError when it is a text in which nothing of the kind stands.
    """
    if isinstance(gold, str):
        value = decoded(gold.strip())
        if isinstance(value, Missing):
            value = [list(found.parts) for found in kind.in_text(gold)]
            if not value and kind.bare.fullmatch(gold):
                value = [kind.part.findall(gold)]
            if not value:
                raise ValueError(f"the gold {gold[:50]!r} cannot be read")
            value = value[0] if len(value) == 1 else value
        gold = value
    tolist = getattr(gold, "tolist", None)
    gold = tolist() if callable(tolist) else gold
    return list(gold) if isinstance(gold, tuple) else gold
