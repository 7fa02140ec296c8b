"""DAPO's soft punishment, in [0, 1]."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morl.registry import ValidationError, check_options
from morl.rewards.checks import check_examples
from morl.rewards.pool.runner import Runner
from morl.rewards.verifiers.overlong import overlong
from morl.types import Sample


def sample_of(count: int, tools: int = 0) -> Sample:
    """A response of `count` tokens of the policy, with `tools` tokens of a tool among them."""
    total = count + tools
    return Sample("p", 0, (1,) * total, (1,) * count + (0,) * tools, (0.0,) * total, 0, "stop", "x" * total)


def test_examples_hold(runner: Runner) -> None:
    assert check_examples("overlong", runner) == []


def punishment(length: int, maximum: int, cache: int) -> float:
    """Equation 13 of arXiv 2503.14476, as it is printed."""
    if length <= maximum - cache:
        return 0.0
    if length <= maximum:
        return ((maximum - cache) - length) / cache
    return -1.0


@given(st.integers(0, 300), st.integers(1, 100), st.integers(1, 100))
def test_it_is_one_plus_the_punishment_of_the_paper(length: int, cache: int, room: int) -> None:
    maximum = cache + room
    value = overlong("x" * length, sample_of(length), maximum=maximum, buffer=cache).value
    assert value == pytest.approx(1 + punishment(length, maximum, cache))
    assert overlong("x" * length, None, maximum=maximum, buffer=cache, unit="characters").value == value


@pytest.mark.parametrize(("count", "value"), [(0, 1.0), (5, 1.0), (6, 0.0), (10**6, 0.0)])
def test_without_a_buffer_the_limit_is_sharp(count: int, value: float) -> None:
    assert overlong("x" * count, sample_of(count), maximum=5, buffer=0).value == value


def test_only_tokens_that_the_policy_wrote_count() -> None:
    assert overlong("x", sample_of(5, tools=100), maximum=5, buffer=0).value == 1.0


def test_a_buffer_beyond_the_maximum_stays_in_range() -> None:
    assert overlong("", sample_of(0), maximum=10, buffer=20).value == 0.5
    assert overlong("", None, maximum=10, buffer=20, unit="words").value == 0.5


def test_unknown_tokens_are_no_score() -> None:
    empty = Sample("p", 0, (), (), (), 0, "stop", "text")
    assert overlong("text", None, maximum=5, buffer=2).status == "error"
    assert overlong("text", empty, maximum=5, buffer=2).status == "error"
    assert overlong("", Sample("p", 0, (), (), (), 0, "stop", ""), maximum=5, buffer=2).value == 1.0


def test_wrong_options_fail_at_load() -> None:
    for options in ({}, {"maximum": 5}, {"maximum": 0, "buffer": 0}, {"maximum": 5, "buffer": -1}):
        with pytest.raises(ValidationError):
            check_options(overlong, options)
