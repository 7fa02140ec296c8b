"""The answer is JSON of the form that was asked for."""

from __future__ import annotations

import functools
import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Annotated, Any, Literal

import jsonschema
from jsonschema import validators
from jsonschema.validators import validator_for
from jsonschema_specifications import REGISTRY
from pydantic import AfterValidator
from referencing.exceptions import Unresolvable

from morl.rewards.parsing.answer import final_text
from morl.rewards.reward import Example, Verdict, reward

MAX_LENGTH = 200_000
"""Characters of JSON that are checked."""
MAX_DEPTH = 100
"""Brackets within brackets; what is nested deeper is not read."""
MAX_VALUES = 20
"""Places after the first JSON in a text at which another one is looked for."""


def _checked(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema itself. Raises: ValueError when it is none, or refers to what it does not hold."""
    try:
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"no JSON schema: it holds what JSON cannot ({str(error)[:100]})") from error
    _validator(text)
    return schema


@functools.lru_cache(maxsize=256)
def _validator(text: str) -> Any:
    """The validator of a schema. Raises: ValueError."""
    schema = json.loads(text)
    try:
        kind = validator_for(schema, default=jsonschema.Draft202012Validator)
        kind.check_schema(schema)
        kind = validators.extend(kind, {"uniqueItems": _unique})
        # A registry that is given is all there is: without one, references would be fetched from the network.
        validator = kind(schema, registry=REGISTRY)
        next(validator.iter_errors(None), None)
    except jsonschema.SchemaError as error:
        where = "/".join(map(str, error.absolute_path))
        raise ValueError(f"no JSON schema: {where + ': ' if where else ''}{error.message[:200]}") from error
    except Unresolvable as error:
        raise ValueError(_unresolved(error)) from error
    except (RecursionError, TypeError, AttributeError, re.error) as error:
        raise ValueError("no JSON schema: it refers to itself without end, or names no known standard") from error
    return validator


def _unique(validator: Any, wanted: Any, items: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
    """The keyword `uniqueItems`, in linear time; jsonschema compares each item with each."""
    if wanted is True and isinstance(items, list) and len(set(map(_canonical, items))) < len(items):
        yield jsonschema.ValidationError("items that are the same")


def _canonical(value: Any) -> str:
    """A text that two JSON values share if they are equal: 1 and 1.0, or objects in another order."""
    return json.dumps(_without_point_zero(value), sort_keys=True)


def _without_point_zero(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_point_zero(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_point_zero(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _unresolved(error: Unresolvable) -> str:
    return f"the schema refers to {str(error.ref)[:80]!r}, which it does not hold; nothing is fetched"


_PERSON = {"type": "object", "properties": {"age": {"type": "integer"}}, "required": ["age"]}


@reward(
    "json_schema",
    examples=[
        Example('<think>{"age": "x"}</think>{"age": 7}', _PERSON, 1.0),
        Example('Here you are:\n```json\n{"age": 7}\n```', None, 1.0, {"schema": _PERSON}),
        Example('{"age": "seven"}', _PERSON, 0.0),
        Example('{"age": 7, "age": 8}', _PERSON, 0.0),
        Example('{"age": 7,}', _PERSON, 0.0),
        Example("seven", _PERSON, 0.0),
        Example('{"age": NaN}', {"type": "object"}, 0.0),
        Example('{"b": [1, 2.0], "a": null}', {"a": None, "b": [1, 2]}, 1.0, {"match": "equal"}),
        Example('{"a": null, "b": [2, 1]}', '{"a": null, "b": [1, 2]}', 0.0, {"match": "equal"}),
        Example('{"age": 7}', {"type": "strin"}, None),
        Example('{"age": 7}', {"$ref": "https://example.org/person.json"}, None),
    ],
)
def json_schema(
    response: str,
    gold: Any = None,
    *,
    schema: Annotated[dict[str, Any], AfterValidator(_checked)] | None = None,
    match: Literal["schema", "equal"] = "schema",
) -> Verdict:
    """1 when the answer's JSON is valid under a JSON schema, else 0.

    The schema is the option, or else the gold of each prompt: a mapping, or JSON text. With `match: equal` the
    gold is the JSON that is expected: the answer's must equal it, whatever the order of its keys (1 equals 1.0,
    but not true), and be valid under the option's schema if there is one.

    Reads, after the thinking, the first fenced block that is marked as JSON or not marked; without one, the
    whole text; or else the first object or array in it. Different JSON values offered in one answer are wrong.
    JSON is taken by the standard: no comments, no commas at an end, no NaN, no key twice in one object.

    The schema's draft is the one that its `$schema` names, else 2020-12. `format` is a remark there, and is not
    checked. A `$ref` must lead into the schema itself: nothing is ever fetched. A schema that requires little
    is met by `{}`, and one without `type` by `[]`, too: say `type`, `required`, and `additionalProperties: false`.
    """
    expected: Any = None
    if match == "equal" or schema is None:
        if gold is None:
            return Verdict(None, "bad_gold", "there is no gold" if match == "equal" else "there is no schema")
        try:
            expected = parse(gold) if isinstance(gold, str) else parse(json.dumps(gold, allow_nan=False))
            if match == "schema" and not (isinstance(expected, dict) and expected):
                raise ValueError("a JSON schema is a mapping that is not empty")
            if match == "schema":
                schema = dict(_checked(expected))
        except (TypeError, ValueError, RecursionError) as error:
            return Verdict(None, "bad_gold", f"the gold cannot be read: {str(error)[:200]}")
    text = final_text(response)
    if not text:
        return Verdict(0.0, "no_answer", "no answer after the thinking")
    try:
        found = find(text)
    except ValueError as error:
        return Verdict(0.0, "no_answer", f"no JSON: {str(error)[:200]}")
    if schema is not None:
        try:
            wrong = next(_validator(json.dumps(schema)).iter_errors(found), None)
        except Unresolvable as error:
            return Verdict(None, "bad_gold", _unresolved(error))
        except RecursionError:
            if _depth(found) < 20:
                return Verdict(None, "bad_gold", "the schema refers to itself without end")
            return Verdict(0.0, "ok", "nested too deeply")
        if wrong is not None:
            return Verdict(0.0, "ok", f"{wrong.json_path[:100]}: {wrong.message[:200]}")
    if match == "equal" and not equal(found, expected):
        return Verdict(0.0, "ok", "not the JSON that is expected")
    return Verdict(1.0, "ok", "valid" if match == "schema" else "equal")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a key stands twice in one object")
    return made


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)


def parse(text: str) -> Any:
    """The JSON value that a text is, by the standard. Raises: ValueError."""
    text = text.strip(" \t\r\n\ufeff")
    value, end = _decode(text, 0)
    if end < len(text):
        raise ValueError(f"something follows the JSON: {text[end : end + 30]!r}")
    return value


def _decode(text: str, start: int) -> tuple[Any, int]:
    if len(text) - start > MAX_LENGTH:
        text = text[: start + MAX_LENGTH]
    try:
        value, end = _DECODER.raw_decode(text, start)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if _depth(value) > MAX_DEPTH:
        raise ValueError("nested too deeply")
    return value, end


def _depth(value: Any) -> int:
    depth, level = 0, [value]
    while level := [item for item in level if isinstance(item, dict | list)]:
        depth += 1
        level = [inner for item in level for inner in (item.values() if isinstance(item, dict) else item)]
    return depth


def equal(one: Any, other: Any) -> bool:
    """Whether two JSON values are the same: 1 is 1.0 but not true, and keys have no order."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(isinstance(one, bool) == isinstance(other, bool) and one == other)


def find(text: str) -> Any:
    """The one JSON value that a text offers. Raises: ValueError when there is none, or there are different ones."""
    blocks = _fenced(text)
    values = [parse(blocks[0]), *_readable(blocks[1:])] if blocks else _values(text)
    if any(not equal(values[0], other) for other in values[1:]):
        raise ValueError("several different values")
    return values[0]


def _readable(texts: list[str]) -> Iterator[Any]:
    for text in texts[:MAX_VALUES]:
        with suppress(ValueError):
            yield parse(text)


def _fenced(text: str) -> list[str]:
    """Fenced blocks that are marked as JSON; if none is, those that have no mark."""
    blocks: dict[str, list[str]] = {"json": [], "": []}
    mark, lines = None, []
    for line in text.split("\n") if "```" in text else []:
        bare = line.strip()
        if mark is not None:
            lines.append(bare.removesuffix("```"))
            if bare.endswith("```"):
                blocks.setdefault(mark, []).append("\n".join(lines))
                mark = None
        elif "```" in bare:
            head, closed, _ = bare.partition("```")[2].partition("```")
            word = _MARK.match(head)[0]  # type: ignore[index]  # it matches anything
            if closed:
                blocks.setdefault(word.lower(), []).append(head[len(word) :])
            else:
                mark, lines = word.lower(), [head[len(word) :]]
    return blocks["json"] or blocks[""]


_MARK = re.compile(r"[A-Za-z]*")
# A bracket that opens JSON, rather than a formula, a set or a remark.
_START = re.compile(r'(?<![\w\\])\{|(?<!\w)\[(?=\s*+(?:["{\[\]\d-]|true|false|null))')


def _values(text: str) -> list[Any]:
    """The whole text as JSON, or the objects and arrays in it, the first of which must be readable."""
    try:
        return [parse(text)]
    except ValueError:
        start = _START.search(text)
        if start is None:
            raise
    value, end = _decode(text, start.start())
    values = [value]
    for _ in range(MAX_VALUES):
        start = _START.search(text, end)
        if start is None:
            break
        try:
            value, end = _decode(text, start.start())
            values.append(value)
        except ValueError:
            end = start.end()
    return values
