"""The structure of a response: what each option asks for, and what does not get by."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from morl.registry import ValidationError, check_options
from morl.rewards.checks import check_examples
from morl.rewards.pool.runner import Runner
from morl.rewards.verifiers.format import format  # noqa: A004

PIECES = [
    "<think>",
    "</think>",
    "<answer>",
    "</answer>",
    r"\boxed{",
    "}",
    "x",
    " ",
    "```json\n",
    "\n```",
    "{}",
    "\u200b",
]


def test_examples_hold(runner: Runner) -> None:
    assert check_examples("format", runner) == []


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
@given(st.lists(st.sampled_from(PIECES), max_size=14).map("".join), options)
def test_all_is_1_when_each_part_is_and_partial_is_never_less(response: str, chosen: dict[str, Any]) -> None:
    whole = format(response, **chosen).value
    part = format(response, **chosen, partial=True).value
    assert whole in (0.0, 1.0)
    assert 0.0 <= whole <= part <= 1.0
    assert (part == 1.0) == (whole == 1.0)
    assert format(f"\n{response} ", **chosen).value == whole


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=10).map("".join))
def test_opened_is_the_same_as_a_response_with_the_tag_before_it(response: str) -> None:
    assume(not response.lstrip().startswith("<think>"))
    for thinking in ("required", "optional"):
        assert (
            format(response, opened=True, thinking=thinking).value
            == format("<think>" + response, thinking=thinking).value
        )


@pytest.mark.parametrize(
    ("response", "required", "optional", "forbidden"),
    [
        ("<think>a</think>b", 1, 1, 0),
        ("\n <think>\na\n</think>\n\nb\n", 1, 1, 0),
        ("b", 0, 1, 1),
        ("<think></think>b", 0, 1, 0),
        ("<think> \u200b</think>b", 0, 1, 0),
        ("<think>a</think>", 0, 0, 0),
        ("<think>a</think> \u200b\n", 0, 0, 0),
        ("<think>a", 0, 0, 0),
        ("", 0, 0, 0),
        ("a</think>b", 0, 0, 0),
        ("b <think>a</think> c", 0, 0, 0),
        ("<think>a</think>b</think>c", 0, 0, 0),
        ("<think>a<think>b</think>c", 0, 0, 0),
        ("<think>a</think>b<think>c</think>d", 0, 0, 0),
        ("</think>a<think>b", 0, 0, 0),
        ("</think><think>b", 0, 0, 0),
        ("<THINK>a</THINK>b", 0, 1, 1),
        ("<think>a</think>b<think>", 0, 0, 0),
    ],
)
def test_thinking(response: str, required: int, optional: int, forbidden: int) -> None:
    assert format(response, thinking="required").value == required
    assert format(response, thinking="optional").value == optional
    assert format(response, thinking="forbidden").value == forbidden


@pytest.mark.parametrize(
    ("response", "required", "forbidden"),
    [
        ("a</think>b", 1, 0),
        ("</think>b", 0, 1),
        ("\n\n</think>\n\nb", 0, 1),
        ("b", 0, 0),
        ("<think>a</think>b", 1, 0),
        ("<think></think>b", 0, 1),
        ("<think><think>a</think>b", 0, 0),
        ("a</think>", 0, 0),
    ],
)
def test_thinking_that_the_prompt_opened(response: str, required: int, forbidden: int) -> None:
    assert format(response, opened=True).value == required
    assert format(response, opened=True, thinking="forbidden").value == forbidden


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ("<answer>b</answer>", 1),
        ("\n<answer>\nb\n</answer>\n", 1),
        ("b", 0),
        ("<answer></answer>", 0),
        ("<answer> \u200b</answer>", 0),
        ("<answer>b", 0),
        ("b</answer>", 0),
        ("</answer>b<answer>", 0),
        ("<answer>b</answer>c", 0),
        ("c<answer>b</answer>", 0),
        ("<answer>b</answer><answer>b</answer>", 0),
        ("<answer><answer>b</answer></answer>", 0),
        ("<answer>b</answer>.", 0),
    ],
)
def test_answer_tags(answer: str, value: int) -> None:
    assert format(f"<think>a <answer>x</answer></think>{answer}", answer_tags=True).value == value


@pytest.mark.parametrize(
    ("answer", "count"),
    [
        ("b", 0),
        (r"\boxed{1}", 1),
        (r"\fbox{1}", 1),
        (r"\boxed{\frac{1}{2}}", 1),
        (r"\boxed{1} and \boxed{2}", 2),
        (r"\boxed{} b", None),
        (r"\boxed{ } b", None),
        (r"\boxed{1", None),
        (r"\boxed{1} \boxed{2", None),
        (r"\boxed{\boxed{1}}", None),
        (r"\boxed 1", None),
    ],
)
def test_boxes(answer: str, count: int | None) -> None:
    for wanted in range(4):
        assert format(rf"<think>\boxed{{0}}</think>{answer}", boxed=wanted).value == float(wanted == count)


@pytest.mark.parametrize(
    ("answer", "value"),
    [
        ('```json\n{"a": 1}\n```', 1),
        ("Here:\n```\n[1]\n```\nDone.", 1),
        ("  ```JSON  \n5\n  ```", 1),
        ('{"a": 1}', 0),
        ("```python\n5\n```", 0),
        ("```json\n{a}\n```", 0),
        ("```json\nNaN\n```", 0),
        ("```json\n```", 0),
        ("```json\n5", 0),
        ("```json\n5\n```\n```json\n5\n```", 0),
        ("```json\n" + "[" * 100_000 + "\n```", 0),
        ("```json\n" + "9" * 10_000 + "\n```", 0),
    ],
    ids=range(12),
)
def test_fenced_json(answer: str, value: int) -> None:
    assert format(f"<think>a</think>{answer}", fenced_json=True).value == value


def test_partial_is_the_share_of_what_holds() -> None:
    asked: dict[str, Any] = {"answer_tags": True, "boxed": 1, "partial": True}
    assert format(r"<think>a</think><answer>\boxed{1}</answer>", **asked).value == 1.0
    assert format(r"<think>a</think>\boxed{1}", **asked).value == pytest.approx(2 / 3)
    assert format(r"\boxed{1}", **asked).value == pytest.approx(1 / 3)
    assert format(r"<think>a</think>", **asked).value == 0.0
    assert format("<think>a</think><answer></answer>", **asked).status == "no_answer"
    assert format(r"<think>a</think>\boxed{1}", **asked).detail == "wrong: answer tags"


def test_wrong_options_fail_at_load() -> None:
    for wrong in ({"thinking": "maybe"}, {"boxed": -1}, {"tags": True}):
        with pytest.raises(ValidationError):
            check_options(format, wrong)


PUMPS = ["9", "[", "{", r"\boxed{", "```", "```\n", "<think>", "</think>", "<answer>", "\u200b", " \n", "```json\n{}\n"]


@pytest.mark.parametrize("pump", PUMPS, ids=range(len(PUMPS)))
@pytest.mark.timeout(30)
def test_a_megabyte_gets_a_verdict(pump: str) -> None:
    text = pump * ((1 << 20) // len(pump))
    for response in (text, f"<think>a</think>{text}", f"<think>a</think>```json\n{text}\n```"):
        assert format(response, answer_tags=True, boxed=1, fenced_json=True).value == 0.0
