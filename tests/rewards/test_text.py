"""Texts and languages: what counts as the same, and what a policy might try."""

from __future__ import annotations

from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morl.rewards.parsing import language_detection as module
from morl.rewards.parsing import text_metrics
from morl.rewards.parsing.language_detection import LANGUAGES
from morl.rewards.verifiers.exact import exact
from morl.rewards.verifiers.text import text

METRICS = get_args(get_type_hints(text)["metric"])

WORDS = ["red", "blue", "dog", "cat", "one", "2", "3.5", "paris", "rome"]
phrases = st.lists(st.sampled_from(WORDS), min_size=1, max_size=6).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(phrases, phrases, st.sampled_from(METRICS))
def test_the_gold_itself_is_1_and_the_best_of_several_golds_counts(one: str, other: str, metric: Any) -> None:
    assert text(one, one, metric=metric).value == 1.0
    assert text(rf"\boxed{{{one}}}", [other, one], metric=metric).value == 1.0
    both = [text(one, gold, metric=metric).value for gold in (one, other)]
    assert text(one, [one, other], metric=metric).value == max(both)


@settings(max_examples=200, deadline=None)
@given(phrases, phrases)
def test_metrics_are_bounded_and_1_only_for_what_says_the_same(one: str, other: str) -> None:
    for metric in (text_metrics.exact, text_metrics.anls, text_metrics.wer):
        assert (metric(one, other) == 1.0) == (one == other)
        assert 0.0 <= metric(one, other) <= 1.0
    assert text_metrics.f1(one, other) == text_metrics.f1(other, one)
    assert (text_metrics.f1(one, other) == 1.0) == (sorted(one.split()) == sorted(other.split()))


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from(["ant", "bee", "cow", "dog", "elk", "fox", "gnu", "hen"]), min_size=1, max_size=8, unique=True
    )
)
def test_offering_k_guesses_pays_no_more_than_one_of_them_does_on_average(guesses: list[str]) -> None:
    # Each guess is as likely as the others: the sum over golds is what one guess would get.
    offered = " ".join(guesses)
    assert sum(text(offered, gold, metric="contains").value for gold in guesses) == pytest.approx(1.0)
    loose = sum(text(offered, gold, metric="contains", maximum_ratio=2).value for gold in guesses)
    assert loose == pytest.approx(min(2.0, len(guesses)))


# Whatever a policy may write: the pieces that verifiers look for, in any order.


@given(st.text(min_size=1, max_size=20))
def test_exact_is_exact(text: str) -> None:
    verdict = exact(text, text, part="text")
    assert verdict.value == 1.0 or verdict.status in ("bad_gold", "no_answer") or "think>" in text
    assert exact("", text).value in (0.0, None)
    assert exact(text + "zzz", text, part="text").value in (0.0, None)


def test_the_languages_are_those_of_the_detector() -> None:
    assert set(module._detector().labels) - {"zxx"} == set(LANGUAGES)
    assert set(module._SCRIPTS_OF) | set(module._KIN_OF) | set(module._CODES.values()) <= set(LANGUAGES)
