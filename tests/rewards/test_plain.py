r"""What is compared without computer algebra gets the verdict that computer algebra gives."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import morl.rewards.algebra as by_algebra
from morl.rewards.plain import compared, plain_value


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


def asked(gold: str, answer: str) -> bool:
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
def pairs(draw: st.DrawFn) -> tuple[str, str]:
    """Two numbers, often equal or nearly so."""
    one = draw(NUMBERS)
    value = plain_value(one)
    assert isinstance(value, Fraction)
    near = value + draw(st.sampled_from([0, 0, 0, Fraction(1, 10**5), Fraction(3, 10**6), Fraction(-1, 10**6), 1]))
    forms = [f"{float(near):.6f}", f"{float(near):.2f}", f"{round(near):,}"]
    if abs(near.numerator) < 10**9 and near.denominator < 10**9:
        forms += [rf"\frac{{{near.numerator}}}{{{near.denominator}}}", f"{near.numerator}/{near.denominator}"]
    return one, draw(st.sampled_from(forms) | NUMBERS)


@given(pairs())
@settings(max_examples=200, deadline=None)
def test_numbers_are_compared_as_math_verify_does(pair: tuple[str, str]) -> None:
    for gold, answer in (pair, pair[::-1]):
        said = compared(gold, answer)
        if said is not None:
            assert said == asked(gold, answer)


SETS = st.lists(st.integers(-20, 20) | st.integers(-2000, 2000), min_size=1, max_size=4)


@given(SETS, SETS, st.sampled_from([", ", ","]), st.booleans())
@settings(max_examples=40, deadline=None)
def test_sets_are_compared_as_math_verify_does(one: list[int], other: list[int], comma: str, same: bool) -> None:
    gold = rf"\{{{', '.join(map(str, one))}\}}"
    answer = rf"\left\{{{comma.join(map(str, reversed(one) if same else other))}\right\}}"
    assert compared(gold, answer) == asked(gold, answer) == (set(one) == set(one if same else other))


ROOTS = st.builds(
    r"{}\sqrt{{{}}}{}".format,
    st.sampled_from(["", "2", "-3", r"\frac{1}{2}", r"\pi "]),
    st.integers(2, 20),
    st.sampled_from(["", "+1", "-0.5", r"+\sqrt{2}", r"+\frac{2}{3}"]),
)


@given(ROOTS, ROOTS)
@settings(max_examples=60, deadline=None)
def test_roots_are_compared_as_math_verify_does(gold: str, answer: str) -> None:
    assert by_algebra.equal(gold, answer) == asked(gold, answer)
