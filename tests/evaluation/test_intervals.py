"""Intervals agree with published numbers and cover as often as they promise."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morl.evaluation.intervals import clustered_interval, mean_interval, paired_difference, pass_at_k


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [
        # Newcombe 1998, Statistics in Medicine 17:857, table I, Wilson without continuity correction.
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_agrees_with_published_numbers(hits, n, low, high) -> None:
    interval = mean_interval([1] * hits + [0] * (n - hits))
    assert (interval.mean, interval.n) == (hits / n, n)
    assert (interval.low, interval.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


@settings(deadline=None)  # the first call imports scipy
@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_an_interval_holds_its_mean_and_is_the_same_each_time(values) -> None:
    interval = mean_interval(values)
    assert interval.low <= interval.mean <= interval.high
    assert interval.mean == pytest.approx(math.fsum(values) / len(values))
    assert mean_interval(values) == interval


def test_pairs_that_are_all_right_are_no_certainty() -> None:
    found = clustered_interval([1.0] * 14, [f"question {i // 2}" for i in range(14)])
    assert (found.mean, found.high, found.n) == (1.0, 1.0, 14)
    assert found.low == mean_interval([1.0] * 7).low < 0.7
    assert clustered_interval([0.0] * 3, ["a", "b", "c"]).high == mean_interval([0.0] * 3).high


def test_the_bootstrap_covers_the_true_mean() -> None:
    rng = random.Random(0)
    covered = 0
    for _ in range(200):
        interval = mean_interval([rng.betavariate(2, 1) for _ in range(30)])
        covered += interval.low <= 2 / 3 <= interval.high
    # 0.95 of 200 within four standard errors.
    assert covered >= 178


@pytest.mark.parametrize("values", [[0.5], [0.25] * 7])
def test_values_without_spread_give_a_point(values) -> None:
    interval = mean_interval(values)
    assert (interval.mean, interval.low, interval.high) == (values[0],) * 3


def test_many_values_stay_cheap_and_near_the_normal_interval() -> None:
    rng = random.Random(0)
    interval = mean_interval([rng.random() for _ in range(5000)])
    half = 1.96 * math.sqrt(1 / 12 / 5000)
    assert interval.high - interval.mean == pytest.approx(half, rel=0.1)
    assert interval.mean - interval.low == pytest.approx(half, rel=0.1)


def test_pairing_removes_what_the_questions_share() -> None:
    rng = random.Random(0)
    before = [rng.random() * 0.8 for _ in range(50)]
    after = [value + 0.1 + rng.uniform(-0.01, 0.01) for value in before]
    gain = paired_difference(before, after)
    assert gain.low > 0.09
    assert gain.high < 0.11
    assert mean_interval(after).low < mean_interval(before).high, "unpaired, the gain drowns"


def test_paired_proportions_agree_with_a_published_number() -> None:
    # The example of ci.prop.ps in the R package statpsych, by the author of the interval.
    gain = paired_difference([0] * 12 + [1] * 4 + [0] * 26 + [1] * 6, [0] * 12 + [0] * 4 + [1] * 26 + [1] * 6)
    assert gain.mean == pytest.approx(22 / 48)
    assert (gain.low, gain.high) == pytest.approx((0.2548067, 0.6251933), abs=1e-6)


def test_a_difference_turns_its_sign_when_before_and_after_are_swapped() -> None:
    a, b = [1, 0, 1, 1, 0, 0, 1, 0], [1, 1, 1, 1, 0, 1, 0, 0]
    there, back = paired_difference(a, b), paired_difference(b, a)
    assert (there.low, there.mean, there.high) == pytest.approx((-back.high, -back.mean, -back.low))


def test_nothing_changed_is_not_certainty_that_nothing_would() -> None:
    interval = paired_difference([0, 1, 1], [0, 1, 1])
    assert interval.mean == 0
    assert interval.low < -0.2
    assert interval.high > 0.2


@pytest.mark.parametrize(("n", "c", "k"), [(6, 2, 1), (6, 2, 3), (6, 0, 2), (6, 6, 4), (5, 3, 3)])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_one(n, c, k) -> None:
    subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_stands_large_numbers() -> None:
    assert pass_at_k(10_000, 1, 5000) == pytest.approx(0.5)


@pytest.mark.parametrize(
    "call",
    [
        lambda: mean_interval([]),
        lambda: mean_interval([0.5, math.nan]),
        lambda: paired_difference([1], [1, 0]),
        lambda: paired_difference([], []),
        lambda: pass_at_k(4, 5, 1),
        lambda: pass_at_k(4, 2, 5),
        lambda: pass_at_k(4, 2, 0),
    ],
)
def test_what_has_no_answer_is_refused(call) -> None:
    with pytest.raises(ValueError):
        call()
