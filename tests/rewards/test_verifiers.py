"""Each verifier on right answers, wrong answers, hedges, broken golds and whatever else a policy may write."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morl.registry import ValidationError, check_options
from morl.rewards.exact import exact
from morl.rewards.length import length
from morl.rewards.math import math
from morl.rewards.number import number
from morl.rewards.runner import Runner
from morl.types import Sample

# Whatever a policy may write: the pieces that verifiers look for, in any order.
MARKS = [r"\boxed{", "}", "{", "$", "<think>", "</think>", "answer is ", "Answer: ", "####", " or ", ", ", "\n", "x="]
TOKENS = ["A", "(B)", "3", "4.5", "-", "/", "9^{", r"\frac{1}{2}", "\ud800", "\x00", "é"]
pieces = st.sampled_from([*MARKS, *TOKENS])
responses = st.lists(pieces, max_size=12).map("".join) | st.text(max_size=60)


@settings(max_examples=40, deadline=None)
@given(responses, st.sampled_from(["4", "\\frac{1}{2}", "3, 4", "x=1", 7, 0.5, [1, 2], "", "\\frac{", None, True, "A"]))
def test_any_response_gets_a_verdict_from_math(response: str, gold: Any) -> None:
    verdict = math(response, gold)
    assert verdict_holds(verdict)
    assert (verdict.status == "bad_gold") == (gold in ("", "\\frac{", None) or gold is True)


@settings(max_examples=40, deadline=None)
@given(st.integers(-999, 999), st.integers(-999, 999))
def test_two_different_answers_are_wrong_for_either(one: int, other: int) -> None:
    for form in (r"\boxed{{{}}} or \boxed{{{}}}", r"\boxed{{{}, {}}}", "The answer is {} or {}.", "{} or {}"):
        response = form.format(one, other)
        assert math(response, str(one)).value == number(response, one).value == float(one == other)
        assert math(response, str(other)).value == number(response, other).value == float(one == other)


@given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
def test_a_number_is_right_within_its_tolerance(gold: int, answer: int) -> None:
    distance = abs(gold - answer)
    assert number(f"It is {answer}.", gold).value == float(distance == 0)
    assert number(f"It is {answer}.", gold, tolerance=distance).value == 1.0
    if distance:
        assert number(f"It is {answer}.", gold, tolerance=distance - 0.5).value == 0.0


@given(st.text(min_size=1, max_size=20))
def test_exact_is_exact(text: str) -> None:
    verdict = exact(text, text, part="text")
    assert verdict.value == 1.0 or verdict.status in ("bad_gold", "no_answer") or "think>" in text
    assert exact("", text).value in (0.0, None)
    assert exact(text + "zzz", text, part="text").value in (0.0, None)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 20), st.integers(0, 100))
def test_length_falls_in_a_straight_line(minimum: int, room: int, margin: int, count: int) -> None:
    sample = Sample("p", 0, (1,) * count, (1,) * count, (0.0,) * count, 0, "stop", "x" * count)
    maximum = minimum + room
    value = length(sample.text, sample, minimum=minimum, maximum=maximum, margin=margin).value
    beyond = max(minimum - count, count - maximum, 0)
    expected = 1.0 if beyond == 0 else max(0.0, 1 - beyond / margin) if margin else 0.0
    assert value == pytest.approx(expected)
    assert length(sample.text, None, unit="characters", minimum=minimum, maximum=maximum, margin=margin).value == value


def test_length_says_what_it_cannot_count() -> None:
    assert length("a", None, maximum=3).status == "error"
    assert length("a", None, unit="words", minimum=4, maximum=3).status == "error"
    with pytest.raises(ValidationError, match="maximum"):
        check_options(length, {})


@pytest.mark.parametrize("gold", ["5", "x^2+1"])
def test_a_calculation_that_takes_for_ever_is_wrong(gold: str, runner: Runner) -> None:
    # In a worker: here, hypothesis listens to the garbage collector and may swallow the timeout.
    arguments = {"response": r"\boxed{(x+y+z+1)^{60}}", "gold": gold, "messages": ()}
    score = asyncio.run(runner.run("morl.rewards.math:math", arguments, {}, 60.0))
    assert (score.value, score.status) == (0.0, "ok")


@pytest.mark.timeout(30)
@pytest.mark.parametrize("part", [r"x^{50}+x+1<0", r"x<x^{50}+x+1", r"(1,\sum_{k=1}^{10000000}\frac{1}{k})"])
def test_no_inequality_is_solved_and_no_sum_is_valued_for_a_range(part: str, runner: Runner) -> None:
    arguments = {"response": rf"\boxed{{{part} \text{{ or }} x>2}}", "gold": "x<1 or x>2", "messages": ()}
    score = asyncio.run(runner.run("morl.rewards.math:math", arguments, {}, 20.0))
    assert (score.value, score.status) == (0.0, "ok")
