"""The structure of a response: parts in tags and boxes, instructions, and JSON."""

from __future__ import annotations

import inspect
import json
import socket
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from morl.registry import check_options
from morl.rewards.parsing.instruction_families import FAMILIES, count_sentences
from morl.rewards.verifiers.format import format  # noqa: A004
from morl.rewards.verifiers.instruction import instruction
from morl.rewards.verifiers.json_schema import equal, json_schema

PARTS = (
    "<think>", "</think>", "<answer>", "</answer>", r"\boxed{", "}", "x", " ", "```json\n", "\n```", "{}", "\u200b",
)  # fmt: skip


options = st.fixed_dictionaries(
    {},
    optional={
        "thinking": st.sampled_from(["required", "optional", "forbidden"]),
        "opened": st.booleans(),
        "answer_tags": st.booleans(),
        "boxed": st.integers(0, 3),
        "fenced_json": st.booleans(),
    },
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=14).map("".join), options)
def test_all_is_1_when_each_part_is_and_partial_is_never_less(response: str, chosen: dict[str, Any]) -> None:
    whole = format(response, **chosen).value
    part = format(response, **chosen, partial=True).value
    assert whole in (0.0, 1.0)
    assert 0.0 <= whole <= part <= 1.0
    assert (part == 1.0) == (whole == 1.0)
    assert format(f"\n{response} ", **chosen).value == whole


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=10).map("".join))
def test_opened_is_the_same_as_a_response_with_the_tag_before_it(response: str) -> None:
    assume(not response.lstrip().startswith("<think>"))
    for thinking in ("required", "optional"):
        assert (
            format(response, opened=True, thinking=thinking).value
            == format("<think>" + response, thinking=thinking).value
        )


LESS = "less than"
FAMILY_OPTIONS: dict[str, dict[str, Any]] = {
    "keywords:existence": {"keywords": ["cat", "New York"]},
    "keywords:frequency": {"keyword": "hop", "frequency": 2, "relation": LESS},
    "keywords:forbidden_words": {"forbidden_words": ["cat", "c++"]},
    "keywords:letter_frequency": {"letter": "#", "let_frequency": 1, "let_relation": LESS},
    "language:response_language": {"language": "hi"},
    "length_constraints:number_sentences": {"num_sentences": 2, "relation": LESS},
    "length_constraints:number_paragraphs": {"num_paragraphs": 3},
    "length_constraints:number_words": {"num_words": 3, "relation": LESS},
    "length_constraints:nth_paragraph_first_word": {"num_paragraphs": 2, "nth_paragraph": 1, "first_word": "then"},
    "detectable_content:number_placeholders": {"num_placeholders": 2},
    "detectable_content:postscript": {"postscript_marker": "NB"},
    "detectable_format:number_bullet_lists": {"num_bullets": 2},
    "detectable_format:number_highlighted_sections": {"num_highlights": 2},
    "detectable_format:multiple_sections": {"section_spliter": "Day", "num_sections": 2},
    "combination:repeat_prompt": {"prompt_to_repeat": "Say it. "},
    "startend:end_checker": {"end_phrase": "Any questions?"},
    "change_case:capital_word_frequency": {"capital_frequency": 2, "capital_relation": LESS},
}
WITHOUT_OPTIONS = (
    "detectable_format:constrained_response", "detectable_format:json_format", "detectable_format:title",
    "combination:two_responses", "startend:quotation", "change_case:english_capital", "change_case:english_lowercase",
    "punctuation:no_comma",
)  # fmt: skip
EXAMPLE = FAMILY_OPTIONS | {name: {} for name in WITHOUT_OPTIONS}


def test_every_family_is_told_and_takes_no_other_arguments() -> None:
    assert set(EXAMPLE) == set(FAMILIES)
    assert len(FAMILIES) == 25
    for name, family in FAMILIES.items():
        keys = {
            key
            for key, parameter in inspect.signature(family).parameters.items()
            if parameter.kind is parameter.KEYWORD_ONLY
        }
        assert keys == set(EXAMPLE[name])
        assert check_options(family, EXAMPLE[name]).keys() == keys


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    "response", ["", " \n", "\u200b", "<think>My answer is yes.", "<think>a</think>"], ids=range(5)
)
def test_an_empty_answer_follows_nothing(name: str, response: str) -> None:
    for options in ({}, {"loose": True}, {"partial": True}):
        verdict = instruction(response, [{"id": name, **EXAMPLE[name]}], **options)
        assert (verdict.value, verdict.status) == (0.0, "no_answer")


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from(sorted(FAMILIES)), min_size=1, max_size=3),
    st.text(max_size=60)
    | st.lists(st.sampled_from(["*", "\n", '"', "a", "<<", ">>", "[", "]", ". ", "-", "{", "}", "A"])).map("".join),
)
def test_loose_is_never_stricter_and_partial_counts(names: list[str], response: str) -> None:
    gold = {"instruction_id_list": names, "kwargs": [EXAMPLE[name] for name in names]}
    strict, loose = instruction(response, gold).value, instruction(response, gold, loose=True).value
    part = instruction(response, gold, partial=True).value
    assert 0.0 <= strict <= loose <= 1.0
    assert (part == 1.0) == (strict == 1.0)
    alone = [instruction(response, [{"id": name, **EXAMPLE[name]}]).value for name in names]
    assert part == pytest.approx(sum(alone) / len(alone))


@given(
    st.lists(
        st.sampled_from(["It rains", "We saw Dr. Who", "Is 3.5 more", "They came at 5 p.m. today"]),
        min_size=1,
        max_size=9,
    )
)
def test_sentences_add_up(sentences: list[str]) -> None:
    for end in (". ", "! ", "? ", ".\n\n"):
        assert count_sentences(end.join([*sentences, ""])) == len(sentences)


PUMPS = (
    "9", "a ", "[", '{"a":', "* ", "*", "******", "<<", "<< >>\n", "1. ", ". ", "..", "P.S. ", "\n-", "中。", "p. p. ",
    "'\"", '".',
)  # fmt: skip


@pytest.mark.parametrize("pump", PUMPS, ids=range(len(PUMPS)))
@pytest.mark.timeout(60)
def test_a_megabyte_gets_a_verdict(pump: str) -> None:
    gold = [{"id": name, **arguments} for name, arguments in EXAMPLE.items()]
    value = instruction(pump * ((1 << 20) // len(pump)), gold, partial=True).value
    assert value is not None
    assert 0.0 <= value < 0.7


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
