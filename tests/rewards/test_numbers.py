"""Mathematics, numbers and counts: two answers are none, and what is compared without algebra is as algebra says."""

from __future__ import annotations

import asyncio
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import morl.rewards.parsing.algebra as by_algebra
from morl.registry import REWARDS
from morl.rewards.parsing.plain_numbers import compared, plain_value
from morl.rewards.pool.worker_pool import WorkerPool
from morl.rewards.verifiers.count import count
from morl.rewards.verifiers.math import math
from morl.rewards.verifiers.number import number
from morl.traits import traits_of

# Whatever a policy may write: the pieces that verifiers look for, in any order.
MARKS = [r"\boxed{", "}", "{", "$", "<think>", "</think>", "answer is ", "Answer: ", "####", " or ", ", ", "\n", "x="]
TOKENS = ["A", "(B)", "3", "4.5", "-", "/", "9^{", r"\frac{1}{2}", "\ud800", "\x00", "é"]
pieces = st.sampled_from([*MARKS, *TOKENS])
responses = st.lists(pieces, max_size=12).map("".join) | st.text(max_size=60)


@settings(max_examples=40, deadline=None)
@given(responses, st.sampled_from(["4", "\\frac{1}{2}", "3, 4", "x=1", 7, 0.5, [1, 2], "", "\\frac{", None, True, "A"]))
def test_any_response_gets_a_verdict_from_math(response: str, gold: Any) -> None:
    verdict = math(response, gold)
    assert verdict.value in (0.0, 1.0) or (verdict.status == "bad_gold" and verdict.detail)
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


@pytest.mark.parametrize("gold", ["5", "x^2+1"])
def test_a_calculation_that_takes_for_ever_is_wrong(gold: str, runner: WorkerPool) -> None:
    # In a worker: here, hypothesis listens to the garbage collector and may swallow the timeout.
    arguments = {"response": r"\boxed{(x+y+z+1)^{60}}", "gold": gold, "messages": ()}
    score = asyncio.run(runner.run(REWARDS.entry("math").target, arguments, {}, 60.0))
    assert (score.value, score.status) == (0.0, "ok")


@pytest.mark.timeout(30)
@pytest.mark.parametrize("part", [r"x^{50}+x+1<0", r"x<x^{50}+x+1", r"(1,\sum_{k=1}^{10000000}\frac{1}{k})"])
def test_no_inequality_is_solved_and_no_sum_is_valued_for_a_range(part: str, runner: WorkerPool) -> None:
    arguments = {"response": rf"\boxed{{{part} \text{{ or }} x>2}}", "gold": "x<1 or x>2", "messages": ()}
    score = asyncio.run(runner.run(REWARDS.entry("math").target, arguments, {}, 20.0))
    assert (score.value, score.status) == (0.0, "ok")


UNITS = [*"zero one two three four five six seven eight nine ten eleven twelve".split()]  # noqa: SIM905
UNITS += [*"thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()]  # noqa: SIM905
TENS = ["", "", *"twenty thirty forty fifty sixty seventy eighty ninety".split()]  # noqa: SIM905


def in_words(number: int, hyphen: str = "-") -> str:
    if number < 20:
        return UNITS[number]
    if number < 100:
        return TENS[number // 10] + (hyphen + UNITS[number % 10] if number % 10 else "")
    rest = f" and {in_words(number % 100, hyphen)}" if number % 100 else ""
    return f"{UNITS[number // 100]} hundred{rest}"


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_only_the_exact_count_scores(gold: int, found: int) -> None:
    right = float(gold == found)
    for response in (f"{found}", f"There are {found} of them.", f"{found}.0", f"\\boxed{{{found}}}", f"{found:,}"):
        assert count(response, gold).value == right
        assert count(response, str(gold)).value == right
    assert count(f"{found}.5", gold).value == 0.0
    write = traits_of(count).answer
    assert write is not None
    assert count(write(gold), gold).value == 1.0


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 999), st.integers(0, 999), st.sampled_from(["-", " "]))
def test_number_words_are_numbers(gold: int, found: int, hyphen: str) -> None:
    word = in_words(found, hyphen)
    for response in (
        word,
        f"There are {word}.",
        f"\\boxed{{\\text{{{word}}}}}",
        word.capitalize(),
        f"**{word.upper()}**",
    ):
        assert count(response, gold).value == float(gold == found), response


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 99), st.integers(0, 99))
def test_two_counts_are_wrong_for_either(one: int, other: int) -> None:
    for first in (str(one), in_words(one)):
        for second in (str(other), in_words(other)):
            for form in (
                "{} or {}",
                "{} or maybe {}",
                "The answer is {} or {}.",
                r"\boxed{{{}}} or \boxed{{{}}}",
                "{}, {}",
            ):
                for gold in (one, other):
                    assert count(form.format(first, second), gold).value == float(one == other)


@pytest.mark.parametrize(
    ("latex", "value"),
    [
        ("12", Fraction(12)),
        ("-0.50", Fraction(-1, 2)),
        ("1,234,567.5", Fraction(12345675, 10)),
        (r"\frac{6}{-4}", None),
        (r"-\dfrac{-6}{4}", Fraction(3, 2)),
        ("6/4", Fraction(3, 2)),
        ("6/0", None),
        (r"\frac{1}{0}", None),
        (r"\{1, -2,3\}", frozenset({1, -2, 3})),
        (r"\left\{ 7 \right\}", frozenset({7})),
        (r"\{\}", None),
        (r"\{1, x\}", None),
        ("1, 2", None),
        ("12,34", None),
        ("1234567890", None),
        ("٣", None),
        ("x = 3", None),
        ("50%", None),
        ("", None),
        ("1 2", None),
    ],
)
def test_what_is_plain(latex: str, value: object) -> None:
    assert plain_value(latex) == value


def by_math_verify(gold: str, answer: str) -> bool:
    """What math-verify and the checks on it say."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(by_algebra, "compared", lambda *_: None)
        patch.setattr(by_algebra, "_are_far_apart", lambda *_: False)
        return by_algebra.equal(gold, answer)


DIGITS = st.integers(0, 30) | st.integers(0, 999_999_999)
INTEGERS = st.builds("{}{}".format, st.sampled_from(["", "-"]), DIGITS)
DECIMALS = st.builds("{}.{}".format, INTEGERS, st.from_regex(r"[0-9]{1,6}", fullmatch=True))
GROUPED = st.builds("{:,}".format, st.integers(-999_999_999, 999_999_999))
SLASHED = st.builds("{}/{}".format, INTEGERS, st.integers(1, 40))
FRACTIONS = st.builds(
    "{}{}{{{}}}{{{}}}".format,
    st.sampled_from(["", "-"]),
    st.sampled_from([r"\frac", r"\dfrac"]),
    st.integers(-40, 40),
    st.integers(1, 40),
)
NUMBERS = INTEGERS | DECIMALS | GROUPED | SLASHED | FRACTIONS


@st.composite
def two_numbers(draw: st.DrawFn) -> tuple[str, str]:
    """Two numbers, often equal or nearly so."""
    one = draw(NUMBERS)
    value = plain_value(one)
    assert isinstance(value, Fraction)
    near = value + draw(st.sampled_from([0, 0, 0, Fraction(1, 10**5), Fraction(3, 10**6), Fraction(-1, 10**6), 1]))
    forms = [f"{float(near):.6f}", f"{float(near):.2f}", f"{round(near):,}"]
    if abs(near.numerator) < 10**9 and near.denominator < 10**9:
        forms += [rf"\frac{{{near.numerator}}}{{{near.denominator}}}", f"{near.numerator}/{near.denominator}"]
    return one, draw(st.sampled_from(forms) | NUMBERS)


@given(two_numbers())
@settings(max_examples=200, deadline=None)
def test_numbers_are_compared_as_math_verify_does(pair: tuple[str, str]) -> None:
    for gold, answer in (pair, pair[::-1]):
        said = compared(gold, answer)
        if said is not None:
            assert said == by_math_verify(gold, answer)


SETS = st.lists(st.integers(-20, 20) | st.integers(-2000, 2000), min_size=1, max_size=4)


@given(SETS, SETS, st.sampled_from([", ", ","]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_sets_are_compared_as_math_verify_does(one: list[int], other: list[int], comma: str, same: bool) -> None:
    gold = rf"\{{{', '.join(map(str, one))}\}}"
    answer = rf"\left\{{{comma.join(map(str, reversed(one) if same else other))}\right\}}"
    assert compared(gold, answer) == by_math_verify(gold, answer) == (set(one) == set(one if same else other))


ROOTS = st.builds(
    r"{}\sqrt{{{}}}{}".format,
    st.sampled_from(["", "2", "-3", r"\frac{1}{2}", r"\pi "]),
    st.integers(2, 20),
    st.sampled_from(["", "+1", "-0.5", r"+\sqrt{2}", r"+\frac{2}{3}"]),
)


@given(ROOTS, ROOTS)
@settings(max_examples=60, deadline=None)
def test_roots_are_compared_as_math_verify_does(gold: str, answer: str) -> None:
    assert by_algebra.equal(gold, answer) == by_math_verify(gold, answer)
