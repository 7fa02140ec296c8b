"""JSON is found where it stands, read by the standard, and checked without a network."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morl.registry import ValidationError, check_options
from morl.rewards.checks import check_examples
from morl.rewards.pool.runner import Runner
from morl.rewards.verifiers.json_schema import equal, json_schema

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def test_examples_hold(runner: Runner) -> None:
    assert check_examples("json_schema", runner) == []


@settings(max_examples=200, deadline=None)
@given(
    st.text(max_size=60)
    | st.lists(st.sampled_from(["{", "}", "[", "]", '"a"', ":", "1", ",", "```", "json", "\n", "NaN"])).map("".join),
    st.none() | values,
)
def test_any_response_and_any_gold_get_a_verdict(response: str, gold: Any) -> None:
    for match in ("schema", "equal"):
        verdict = json_schema(response, gold, match=match)
        assert verdict.value in (0.0, 1.0) or verdict.status == "bad_gold"


@settings(max_examples=200, deadline=None)
@given(values.filter(lambda value: value is not None), values)
def test_a_value_equals_itself_however_it_is_written(value: Any, other: Any) -> None:
    gold = json.dumps(value)
    for written in (
        json.dumps(value, indent=1),
        f"```json\n{gold}\n```",
        f"```\n{gold}\n```",
        f"<think>0</think>\n{gold}",
    ):
        assert json_schema(written, gold, match="equal").value == 1.0
    assert json_schema(json.dumps(other), gold, match="equal").value == float(equal(value, other))


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (1, 1.0, True),
        (1, True, False),
        (0, False, False),
        ([1], [True], False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ([1, 2], [2, 1], False),
        ("1", 1, False),
        (None, 0, False),
        ({}, [], False),
        ({"a": 1}, {"a": 1, "b": 1}, False),
        ([1], [1, 1], False),
    ],
)
def test_equality_is_that_of_json(one: Any, other: Any, same: bool) -> None:
    assert equal(one, other) == equal(other, one) == same


@pytest.mark.parametrize(
    "response",
    [
        '{"a":1}',
        '\ufeff{"a": 1}\n',
        '{"a":1.0}',
        '```\n{"a":1}\n```',
        '```JSON {"a":1}```',
        'Here:\n```json\n{"a":1}\n```\nDone.',
        'First\n```python\nx = {"a": "b"}\n```\nthen\n```json\n{"a":1}\n```',
        '```json\n{"a":1}\n```\n```json\n{"a":1.0}\n```',
        '```json\n{"a":1, "b":"```x"}\n```',
        'Sure! {"a":1} I hope it helps [see the notes].',
        'Answer: {"a":1}',
        'So {"a":1} and {not this} nor [1 that',
        '<answer>{"a":1}</answer>',
        '<think>{"a":"x"}</think>{"a":1}',
        '```json\n{"a":1}',
        '{"a":1,"b":' + "[" * 90 + "]" * 90 + "}",
        '{"a":1, "b":"\\ud800"}',
    ],
)  # fmt: skip
def test_json_is_found(response: str) -> None:
    assert json_schema(response, SCHEMA).value == 1.0


@pytest.mark.parametrize(
    "response",
    [
        "",
        "null",
        "{}",
        '<think>{"a":1}',
        '<think>{"a":1}</think>',
        '{"a":"1"}',
        '{"a":true}',
        '{"a":1,}',
        "{'a':1}",
        "{a: 1}",
        '{a: {"a":1}}',
        '{"a":1, "a":1}',
        '{"a":1, "b":{"c":1,"c":2}}',
        '{"a":1, "b":NaN}',
        '{"a":1, "b":-Infinity}',
        '{"a":1, "b":1e999}',
        '{"a":' + "9" * 5000 + "}",
        '{"a":1 // one\n}',
        '{"a":1} or {"a":2}',
        '{"a":1}{"a":2}',
        '[1] {"a":1}',
        '```json\n{"a":1}\n```\n```json\n{"a":2}\n```',
        '```json\n{"a":1,}\n```\n```json\n{"a":1}\n```',
        '{"a":1,"b":' + "[" * 5000 + "]" * 5000 + "}",
        '{"a":1,"b":' + "[" * 101 + "]" * 101 + "}",
        '{"a":1, "b":"' + "x" * 300_000 + '"}',
        "<|image_pad|>",
    ],
    ids=range(27),
)
def test_what_is_no_valid_json_or_several_is_wrong(response: str) -> None:
    assert json_schema(response, SCHEMA).value == 0.0


NO_SCHEMAS = [
    *(None, "", "{}", {}, [], 5, True, "no JSON", float("nan")),
    *({"a": {1, 2}}, {"type": "strin"}, {"pattern": "("}, {"$schema": 5}, {"$schema": []}, {"minimum": float("inf")}),
    *({"$ref": "#"}, {"$ref": "#/$defs/none"}, {"$ref": "http://127.0.0.1:9/x.json"}, {"$ref": "file:///etc/passwd"}),
    {"properties": {"a": {"$ref": "#/properties/a"}}},
    {"properties": {"a": {"$ref": "https://example.org/a"}}},
]


@pytest.mark.parametrize("gold", NO_SCHEMAS, ids=range(len(NO_SCHEMAS)))
def test_a_gold_that_is_no_schema_is_bad(gold: Any) -> None:
    assert json_schema('{"a":1}', gold).status == "bad_gold"


@pytest.mark.parametrize("gold", [None, "no JSON", float("nan"), {1, 2}])
def test_a_gold_that_is_no_json_is_bad(gold: Any) -> None:
    assert json_schema('{"a":1}', gold, match="equal").status == "bad_gold"


def test_a_reference_is_never_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    for gold in ({"$ref": "http://127.0.0.1:9/a.json"}, {"properties": {"a": {"$ref": "http://127.0.0.1:9/b.json"}}}):
        assert "nothing is fetched" in json_schema('{"a":1}', gold).detail


def test_references_within_the_schema_and_to_the_standard_are_followed() -> None:
    inner = {"$defs": {"n": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/n"}}}
    assert json_schema('{"a":1}', inner).value == 1.0
    assert json_schema('{"a":"x"}', inner).value == 0.0
    standard = {"$ref": "https://json-schema.org/draft/2020-12/schema"}
    assert json_schema('{"type":"string"}', standard).value == 1.0
    assert json_schema('{"type":5}', standard).value == 0.0


@pytest.mark.timeout(10)  # comparing each with each takes minutes
def test_thousands_of_items_are_told_to_be_unique() -> None:
    unique = {"type": "array", "uniqueItems": True}
    assert json_schema(json.dumps([{"a": i} for i in range(6000)]), unique).value == 1.0
    assert json_schema("[1, true, [1], [1, 1]]", unique).value == 1.0
    for same in ("[1, 1.0]", '[{"a": 1, "b": 2}, {"b": 2, "a": 1}]'):
        assert json_schema(same, unique).value == 0.0
    assert json_schema("[1, 1]", unique | {"uniqueItems": False}).value == 1.0


def test_the_draft_is_the_one_that_is_named() -> None:
    tuples = {"items": [{"type": "integer"}], "$schema": "http://json-schema.org/draft-07/schema#"}
    assert json_schema("[1]", tuples).value == 1.0
    assert json_schema('["x"]', tuples).value == 0.0
    assert json_schema("[1]", {"items": [{"type": "integer"}]}).status == "bad_gold"


def test_the_option_goes_before_the_gold_and_holds_beside_it() -> None:
    assert json_schema('{"a":1}', "whatever", schema=SCHEMA).value == 1.0
    assert json_schema('{"a":1}', {"a": 1}, schema=SCHEMA, match="equal").value == 1.0
    assert json_schema('{"a":2}', {"a": 1}, schema=SCHEMA, match="equal").value == 0.0
    assert json_schema('{"a":"x"}', {"a": "x"}, schema=SCHEMA, match="equal").value == 0.0
    assert json_schema("5", None, schema={}).value == 1.0


def test_json_too_deep_for_a_schema_that_looks_into_it_is_wrong() -> None:
    inner: dict[str, Any] = {"properties": {"a": {"$ref": "#/$defs/n"}}}
    nested = {"$defs": {"n": {"allOf": [{"allOf": [{"allOf": [{"allOf": [inner]}]}]}]}}, "$ref": "#/$defs/n"}
    assert json_schema('{"a":' * 5 + "1" + "}" * 5, nested).value == 1.0
    verdict = json_schema('{"a":' * 99 + "1" + "}" * 99, nested)
    assert (verdict.value, verdict.detail) == (0.0, "nested too deeply")


def test_the_reason_names_the_place() -> None:
    assert "$.a" in json_schema('{"a":"x"}', SCHEMA).detail
    assert "strin" in json_schema("", {"properties": {"a": {"type": "strin"}}}).detail


def test_a_wrong_schema_fails_at_load() -> None:
    for schema in ({"type": "strin"}, {"$ref": "http://127.0.0.1:9/x"}, {"pattern": "("}, {"a": {1}}, "text", [1]):
        with pytest.raises(ValidationError):
            check_options(json_schema, {"schema": schema})
    assert check_options(json_schema, {"schema": SCHEMA})["schema"] == SCHEMA


def test_a_pattern_that_backtracks_without_end_is_stopped(runner: Runner) -> None:
    arguments = {"response": json.dumps("a" * 50 + "!"), "gold": {"type": "string", "pattern": "^(a+)+$"}}
    score = asyncio.run(runner.run("morl.rewards.verifiers.json_schema:json_schema", arguments, {}, 0.5))
    assert (score.value, score.status) == (None, "timeout")


PUMPS = ["9", "[", '{"a":', "{", "[1,", "```", "```json\n", "{}", '{"a":"x"} ', "[ ", '"', "[[]] ", "\u200b"]


@pytest.mark.parametrize("pump", PUMPS, ids=range(len(PUMPS)))
@pytest.mark.timeout(30)
def test_a_megabyte_gets_a_verdict(pump: str) -> None:
    text = pump * ((1 << 20) // len(pump))
    for response in (text, f"```json\n{text}\n```", f'{{"a": {text}}}'):
        assert json_schema(response, SCHEMA).value == 0.0
