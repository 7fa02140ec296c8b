"""Reads the boxes, points or time spans that an answer states, in JSON or in text.

All kinds are searched for in the same places, in the same order. Reading takes linear time, and no text raises.
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
"""The most values that are read from one answer."""
MAX_LITERAL = 400
"""The most characters of one number; a longer one counts as infinite or as none."""
LITERAL = r"[-+]?(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++|nan\b|inf(?:inity)?+\b)(?:e[-+]?[0-9]++)?+"
"""Pattern of a number as `finite` reads it, in either case."""


class NotJson:
    """The type of `NOT_JSON`."""


NOT_JSON: Final = NotJson()
"""The text is not JSON; None would be JSON's null."""

_ONE_LITERAL = re.compile(LITERAL, re.IGNORECASE)


def finite(value: Any) -> float | None:
    """The value as a number; None for a boolean, anything not a number, or one that is not finite."""
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


def decoded(text: str) -> Any | NotJson:
    """The value of a text that is JSON, or `NOT_JSON`; NaN, Infinity and overlong integers become floats."""
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        return NOT_JSON


def _fences(text: str) -> list[Span]:
    """The contents of ``` blocks, without the language after the opening marks; the last may be unclosed."""
    if "```" not in text:
        return []
    blocks, end = [], 0
    while (start := text.find("```", end)) >= 0:
        close = text.find("```", start + 3)
        close = len(text) if close < 0 else close
        end = min(close + 3, len(text))
        language = _LANGUAGE.match(text, start + 3, close)
        inner = language.end() if language else start + 3
        blocks.append(Span(text[inner:close].strip(), start, end))
        if len(blocks) >= MAX_FOUND:
            break
    return blocks


_LANGUAGE = re.compile(r"[A-Za-z0-9_+-]*+(?=\s)")

# Full-width forms, typographic minus signs and spaces become plain ones; characters without width are dropped.
_PLAIN = (
    {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)}
    | dict.fromkeys([0xA0, 0x2007, 0x2009, 0x200A, 0x202F, 0x3000], " ")
    | dict.fromkeys([0x2212, 0x2010, 0x2011], "-")
    | dict.fromkeys([0x200B, 0x200C, 0x200D, 0x200E, 0x200F, 0x2060, 0xFEFF, *range(0x202A, 0x202F)])
    | {0x3001: ","}
)


def answer_text(text: str) -> str:
    """The content of the last `<answer>…</answer>`, else the whole text; in plain characters and stripped."""
    if not text.isascii():
        text = text.translate(_PLAIN)
    return within_tags(text).strip()


T = TypeVar("T")


class Match(NamedTuple):
    """A value in a text: its parts as written, its position and its label."""

    parts: Sequence[str]
    start: int
    end: int
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Notation(Generic[T]):
    """How one kind of value, such as a box, is written in JSON and in text."""

    keys: tuple[frozenset[str], ...]
    """Keys of JSON objects that hold a value; a later set counts only in objects without a key of an earlier one."""
    named: Callable[[Mapping[str, Any]], Sequence[Any] | None]
    """The parts of a JSON object that is itself a value, such as `{"x": 1, "y": 2}`."""
    in_text: Callable[[str], Iterable[Match]]
    """The values in a text, in order; takes linear time."""
    bare: re.Pattern[str]
    """A value without brackets or tags, accepted if it is the whole text."""
    part: re.Pattern[str]
    """One part of a value."""
    make: Callable[[Sequence[Any], str | None], T]
    """Builds a value from its parts and its label; the value says what is wrong with them."""
    corners: bool = False
    """Whether two pairs of numbers are one value."""


@dataclass(frozen=True, slots=True)
class _Statement(Span, Generic[T]):
    """A piece of text and the values that it states."""

    values: list[T]


def read(text: str, notation: Notation[T], one: bool) -> list[T]:
    r"""The values of one notation that an answer states, in order.

    Only the last `<answer>` is read, if there is one: the last `\boxed{}` in it; else the first fenced block with
    values; else what follows "answer is"; else all of it. Denied values ("not at [30, 40]") are left out.

    Args:
        text: the text after the thinking.
        notation: how the values are written.
        one: whether one value is expected. If so, values that are taken back ("no, wait") are left out; values
            that are offered together all remain.
    """
    text = answer_text(text)
    if "boxed" in text or "fbox" in text:
        boxed = [_all(_statements(box.text, notation)) for box in last_together(text, boxes(text))]
        if any(boxed):
            return [value for values in boxed for value in values][:MAX_FOUND]
    if "```" in text:
        fenced = [_Statement(f.text, f.start, f.end, _all(_statements(f.text, notation))) for f in _fences(text)]
        statements = _first_together(text, [statement for statement in fenced if statement.values])
        if statements:
            return _all(statements)
    if "nswer" in text or "NSWER" in text or "答案" in text:
        sentence = stated(text) or ""
        # One value stands in the sentence itself; a list may continue in the next ones.
        for rest in (sentence, text[text.rfind(sentence) :]) if one else (text[text.rfind(sentence) :],):
            statements = _statements(rest, notation) if sentence else []
            if statements:
                return _all(_first_together(rest, statements) if one else statements)
    statements = _statements(text, notation)
    if one and len(statements) > 1:
        kept = {span.start for span in last_together(text, statements)}
        statements = [statement for statement in statements if statement.start in kept]
    return _all(statements)


def _all(statements: Sequence[_Statement[T]]) -> list[T]:
    if len(statements) == 1:
        return statements[0].values[:MAX_FOUND]
    return [value for statement in statements for value in statement.values][:MAX_FOUND]


def _first_together(text: str, statements: list[_Statement[T]]) -> list[_Statement[T]]:
    last = 0
    while last + 1 < len(statements) and offered_together(text[statements[last].end : statements[last + 1].start]):
        last += 1
    return statements[: last + 1]


_OBJECT = re.compile(r"\{[^{}]*+(?:\{[^{}]*+\}[^{}]*+)*+\}")
_LABELS = ("label", "text", "name", "category", "class")
# What may precede bare parts.
_LEAD_IN = re.compile(r"(?:(?<![0-9])[:=]|\b(?:is|at))[\s*`]++(?=[-+.0-9])")
_QUOTED = re.compile(r"""'(?:label|text|name)'\s*+:\s*+'([^']*+)'""")


def _statements(text: str, notation: Notation[T]) -> list[_Statement[T]]:
    """What a text states: as one JSON value, else in JSON objects, else in words, else as bare parts."""
    if text[:1] in ("[", "{"):
        value = decoded(text)
        values = [] if isinstance(value, NotJson) else in_json(value, notation)
        if values:
            return [_Statement(text, 0, len(text), values)]
    statements = list(_from_objects(text, notation)) if "{" in text else []
    if not statements:
        matches = islice(notation.in_text(text), MAX_FOUND)
        statements = [
            _Statement(text[start:end], start, end, [notation.make(parts, label)])
            for parts, start, end, label in matches
        ]
    if not statements and len(text) < MAX_LITERAL:
        starts = [0, *(lead.end() for lead in _LEAD_IN.finditer(text))]
        bare = [Span(text[start:], start, len(text)) for start in starts if notation.bare.fullmatch(text, start)]
        if bare and not denied(text, bare[0]):
            return [_Statement(text, 0, len(text), [notation.make(notation.part.findall(bare[0].text), None)])]
    return [statement for statement in statements if not denied(text, statement)]


def _from_objects(text: str, notation: Notation[T]) -> Iterator[_Statement[T]]:
    for match in islice(_OBJECT.finditer(text), MAX_FOUND):
        inner = match.group().replace("\\{", "{").replace("\\}", "}")
        value = decoded(inner)
        if isinstance(value, NotJson):
            value = decoded(inner.replace("'", '"'))
        if not isinstance(value, NotJson):
            values = in_json(value, notation)
        elif any(key in inner for keys in notation.keys for key in keys):
            # Almost JSON: a trailing comma, or a quote within a text.
            label = _QUOTED.search(inner)
            values = [notation.make(item.parts, label[1] if label else None) for item in notation.in_text(inner)]
        else:
            continue
        if values:
            yield _Statement(inner, match.start(), match.end(), values)


def in_json(value: Any, notation: Notation[T]) -> list[T]:
    """The values anywhere in a decoded JSON value, in order."""
    results: list[T] = []
    waiting = [value]
    while waiting and len(results) < MAX_FOUND:
        item = waiting.pop()
        if isinstance(item, Mapping):
            item = _lower_keys(item)
            written = _under_keys(item, notation)
            if written is not None:
                label = _label(item)
                results += [notation.make(parts, label) for value in written for parts in _parts(value, notation)]
            elif (named := notation.named(item)) is not None:
                results.append(notation.make(named, _label(item)))
            else:
                waiting.extend(reversed(list(item.values())))
        elif isinstance(item, list | tuple):
            waiting.extend(reversed(item))
    return results[:MAX_FOUND]


def _lower_keys(item: Mapping[Any, Any]) -> dict[str, Any]:
    return {key.lower(): value for key, value in item.items() if isinstance(key, str)}


def _under_keys(item: Mapping[str, Any], notation: Notation[T]) -> list[Any] | None:
    for keys in notation.keys:
        values = [value for key, value in item.items() if key in keys]
        if values:
            return values
    return None


def _label(item: Mapping[str, Any]) -> str | None:
    for key in _LABELS:
        if isinstance(label := item.get(key), str):
            return label
    return None


def _parts(value: Any, notation: Notation[T], depth: int = 3) -> Iterator[Sequence[Any]]:
    """The parts of each value under one key."""
    if isinstance(value, str):
        value = value[:MAX_LITERAL]
        texts = [match.parts for match in notation.in_text(value)]
        yield from texts or [notation.part.findall(value)]
    elif isinstance(value, Mapping):
        yield notation.named(_lower_keys(value)) or ()
    elif not isinstance(value, list | tuple):
        if value is not None:
            yield ()
    elif value and isinstance(value[0], list | tuple | Mapping) and depth:
        if notation.corners and len(value) == 2 and all(isinstance(c, list | tuple) and len(c) == 2 for c in value):
            yield [*value[0], *value[1]]
        else:
            for item in value:
                yield from _parts(item, notation, depth - 1)
    elif value:
        yield value


def gold_value(gold: Any, notation: Notation[T]) -> Any:
    """A gold as numbers, texts, lists and mappings: JSON text is decoded, other text read, arrays become lists.

    Raises: ValueError when the gold is a text without a value of the notation.
    """
    if isinstance(gold, str):
        value = decoded(gold.strip())
        if isinstance(value, NotJson):
            value = [list(match.parts) for match in notation.in_text(gold)]
            if not value and notation.bare.fullmatch(gold):
                value = [notation.part.findall(gold)]
            if not value:
                raise ValueError(f"the gold {gold[:50]!r} cannot be read")
            value = value[0] if len(value) == 1 else value
        gold = value
    tolist = getattr(gold, "tolist", None)
    gold = tolist() if callable(tolist) else gold
    return list(gold) if isinstance(gold, tuple) else gold
