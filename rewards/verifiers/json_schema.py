"""The answer is JSON that conforms to a schema, or equals the gold."""

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
"""Characters of JSON that are read."""
MAX_DEPTH = 100
"""The greatest depth of nesting that is read."""
MAX_VALUES = 20
"""Further JSON values that are read after the first one, at most."""


def _checked(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema itself. Raises: ValueError when it is invalid, or refers outside itself."""
    try:
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"not a JSON schema: it holds what JSON cannot ({str(error)[:100]})") from error
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
        # Without an explicit registry, jsonschema would fetch references from the network.
        validator = kind(schema, registry=REGISTRY)
        next(validator.iter_errors(None), None)
    except jsonschema.SchemaError as error:
        path = "/".join(map(str, error.absolute_path))
        raise ValueError(f"not a JSON schema: {path + ': ' if path else ''}{error.message[:200]}") from error
    except Unresolvable as error:
        raise ValueError(_unresolved(error)) from error
    except (RecursionError, TypeError, AttributeError, re.error) as error:
        raise ValueError("not a JSON schema: it refers to itself endlessly, or names an unknown standard") from error
    return validator


def _unique(validator: Any, wanted: Any, items: Any, schema: Any) -> Iterator[jsonschema.ValidationError]:
    """The keyword `uniqueItems` in linear time; jsonschema compares every pair of items."""
    if wanted is True and isinstance(items, list) and len(set(map(_canonical, items))) < len(items):
        yield jsonschema.ValidationError("equal items")


def _canonical(value: Any) -> str:
    """One text for equal JSON values, such as 1 and 1.0, or objects with their keys in another order."""
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
    gold is the expected JSON: the answer must equal it, in any order of keys (1 equals 1.0, but not true), and be
    valid under the option's schema if there is one.

    Reads, after the thinking, the first fenced block that is marked as JSON or not marked; without one, the
    whole text, or else the first object or array in it. Different JSON values in one answer are wrong.
    JSON must be strict: no comments, no trailing commas, no NaN, no duplicate keys.

    The schema's draft is the one that its `$schema` names, else 2020-12. `format` is an annotation and is not
    checked. A `$ref` must lead into the schema itself: nothing is ever fetched. A loose schema is met by `{}`, and
    one without `type` also by `[]`: set `type`, `required` and `additionalProperties: false`.
    """
    expected: Any = None
    if match == "equal" or schema is None:
        if gold is None:
            return Verdict(None, "bad_gold", "there is no gold" if match == "equal" else "there is no schema")
        try:
            expected = parse(gold) if isinstance(gold, str) else parse(json.dumps(gold, allow_nan=False))
            if match == "schema" and not (isinstance(expected, dict) and expected):
                raise ValueError("a JSON schema is a non-empty mapping")
            if match == "schema":
                schema = dict(_checked(expected))
        except (TypeError, ValueError, RecursionError) as error:
            return Verdict(None, "bad_gold", f"the gold cannot be read: {str(error)[:200]}")
    text = final_text(response)
    if not text:
        return Verdict(0.0, "no_answer", "no answer after the thinking")
    try:
        value = find(text)
    except ValueError as error:
        return Verdict(0.0, "no_answer", f"no valid JSON: {str(error)[:200]}")
    if schema is not None:
        try:
            violation = next(_validator(json.dumps(schema)).iter_errors(value), None)
        except Unresolvable as error:
            return Verdict(None, "bad_gold", _unresolved(error))
        except RecursionError:
            if _depth(value) < 20:
                return Verdict(None, "bad_gold", "the schema refers to itself endlessly")
            return Verdict(0.0, "ok", "nested too deeply")
        if violation is not None:
            return Verdict(0.0, "ok", f"{violation.json_path[:100]}: {violation.message[:200]}")
    if match == "equal" and not equal(value, expected):
        return Verdict(0.0, "ok", "not the expected JSON")
    return Verdict(1.0, "ok", "valid" if match == "schema" else "equal")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        raise ValueError("a duplicate key in an object")
    return mapping


def _constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError("a number is too large")
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant, parse_float=_float)


def parse(text: str) -> Any:
    """The value of a text that is strict JSON. Raises: ValueError."""
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
    """Whether two JSON values are equal: 1 is 1.0 but not true, and keys have no order."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return bool(isinstance(one, bool) == isinstance(other, bool) and one == other)


def find(text: str) -> Any:
    """The one JSON value in a text. Raises: ValueError when there is none, or several that differ."""
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
    """Fenced blocks marked as JSON; without any, the unmarked ones."""
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
# A bracket that opens JSON rather than a formula, a set or an aside.
_START = re.compile(r'(?<![\w\\])\{|(?<!\w)\[(?=\s*+(?:["{\[\]\d-]|true|false|null))')


def _values(text: str) -> list[Any]:
    """The whole text as JSON, or the objects and arrays in it, of which the first must be valid."""
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
