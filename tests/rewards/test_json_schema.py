"""JSON is found where it stands, read by the standard, and checked without a network."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morl.rewards.json_schema import equal, json_schema

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


def test_a_reference_is_never_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "create_connection", refuse)
    for gold in ({"$ref": "http://127.0.0.1:9/a.json"}, {"properties": {"a": {"$ref": "http://127.0.0.1:9/b.json"}}}):
        assert "nothing is fetched" in json_schema('{"a":1}', gold).detail
