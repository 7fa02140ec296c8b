"""DAPO's soft punishment, in [0, 1]."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morl.rewards.overlong import overlong
from morl.types import Sample


def sample_of(count: int, tools: int = 0) -> Sample:
    """A response of `count` tokens of the policy, with `tools` tokens of a tool among them."""
    total = count + tools
    return Sample("p", 0, (1,) * total, (1,) * count + (0,) * tools, (0.0,) * total, 0, "stop", "x" * total)


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
