"""Counts: one whole number, in digits or in words."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from morl.rewards.count import count
from morl.rewards.decorator import traits_of

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
