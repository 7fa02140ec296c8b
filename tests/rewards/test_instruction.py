"""The families of IFEval: what follows each, what does not, and how golds are read."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morl.registry import check_options
from morl.rewards.instruction import instruction
from morl.rewards.instruction_families import FAMILIES, count_sentences

AT_LEAST, LESS = "at least", "less than"

EXAMPLE = {name: arguments for name, arguments, _, _ in CASES}


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


PUMPS = [
    "9",
    "a ",
    "[",
    '{"a":',
    "* ",
    "*",
    "******",
    "<<",
    "<< >>\n",
    "1. ",
    ". ",
    "..",
    "P.S. ",
    "\n-",
    "中。",
    "p. p. ",
    "'\"",
    '".',
]


@pytest.mark.parametrize("pump", PUMPS, ids=range(len(PUMPS)))
@pytest.mark.timeout(60)
def test_a_megabyte_gets_a_verdict(pump: str) -> None:
    gold = [{"id": name, **arguments} for name, arguments in EXAMPLE.items()]
    value = instruction(pump * ((1 << 20) // len(pump)), gold, partial=True).value
    assert value is not None
    assert 0.0 <= value < 0.7
