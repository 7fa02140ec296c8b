"""Where the answer is looked for, and that looking takes linear time."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morl.rewards.parsing.answer import boxes, different, final_text, formulas, last_together, numbers, stated

braced = st.recursive(
    st.text(alphabet=r"ab1 ,+", max_size=5),
    lambda inner: inner.map(lambda s: "{" + s + "}") | st.tuples(inner, inner).map("".join),
)


@given(st.text(), st.text().filter(lambda text: "<think>" not in text and "</think>" not in text))
def test_only_what_follows_the_last_thinking_counts(thought: str, answer: str) -> None:
    assert final_text(f"{thought}</think>{answer}") == answer.strip()


@given(st.text(alphabet="ab\n") | st.just("</think>done"), st.text(alphabet=r"ab\boxed{}12"))
def test_a_thinking_that_was_cut_off_has_no_answer(before: str, thought: str) -> None:
    assert final_text(f"{before}<think>{thought}") == ""


@given(braced, braced, st.text(alphabet="xyz .\n"))
def test_the_last_box_is_read_whole(first: str, last: str, between: str) -> None:
    found = boxes(rf"\boxed{{{first}}}{between}\boxed{{{last}}} end")
    assert [box.text for box in found] == [first.strip(), last.strip()]


@given(
    st.integers(-(10**12), 10**12),
    st.sampled_from(["{}", "{} km", "about {}.", "({})", "x = {}", "{:,}", "{}.0", "${}$"]),
)
def test_integers_are_read_as_they_are_written(value: int, form: str) -> None:
    assert [number.value for number in numbers(form.format(value))] == [value]


@given(st.decimals(min_value=-1000, max_value=1000, places=4), st.integers(-30, 30))
def test_decimals_and_powers_of_ten_are_read_exactly(value: object, power: int) -> None:
    exact = Fraction(str(value)) * Fraction(10) ** power
    for text in (f"{value}e{power}", rf"{value} \times 10^{{{power}}}", f"{value}*10^{power}"):
        assert [number.value for number in numbers(text)] == [exact]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("10-4=6", [10, 4, 6]),
        ("H2O, x2, x_1, m^2 and the 3rd", []),
        (r"3/4 \frac{3}{4} -\frac{1}{2}", [Fraction(3, 4), Fraction(3, 4), Fraction(-1, 2)]),
        ("It is 2/3. Not 3/4.", [Fraction(2, 3), Fraction(3, 4)]),
        (r"\frac12 \tfrac34", [Fraction(1, 2), Fraction(3, 4)]),
        ("2 1/4 and -1 1/2", [Fraction(9, 4), Fraction(-3, 2)]),
        (r"5\frac{1}{2}, 7 \dfrac12", [Fraction(11, 2), Fraction(15, 2)]),
        ("2 5/4, 1.5 1/2", [2, Fraction(5, 4), Fraction(3, 2), Fraction(1, 2)]),
        ("10^3, 10**2, 10^{-1}", [1000, 100, Fraction(1, 10)]),
        (r"2^3, 1.5^2, 5^\circ, **7**", [5, 7]),
        ("1,234,567.5 and 1,23", [Fraction(2469135, 2), 1, 23]),
        ("−5, $-5$, -$5", [-5, -5, -5]),
        ("1/0", [None]),
        ("9" * 1000 + " 1e9999", [None, None]),
        ("from 3-5", [3, 5]),
        ("所以一共有5个苹果。", [5]),
        ("一共5只，第3题", [5]),
        ("结果等于-5", [-5]),
        ("정답은5입니다", [5]),
        ("一共5万", []),
    ],
)
def test_numbers(text: str, values: list[object]) -> None:
    assert [number.value for number in numbers(text)] == values


@given(st.text(alphabet=r"\boxed{}$()[] answer is:#1234567890.,/-e\n<think>/", max_size=200))
def test_any_text_can_be_read(text: str) -> None:
    for spans in (boxes(text), formulas(text), numbers(text)):
        assert all(0 <= span.start < span.end <= len(text) for span in spans)
        last_together(text, spans)
    assert stated(text) != ""


PUMPS = (
    "\\", "{", "}", "$", "$a", "\\(", "\\[", "$$a", "$ a", "$ a ", "<answer>", "1 2/3", "10^", "9", "1.", "1e", "-",
    ".", "answer ", "answer is: ", "answer*", "a ", "\n", "\\boxed{", "\\boxed{1}", "\\boxed ", "####\n", "<think>",
    "\\text{", "\u0301", "answer" + " a" * 20, "1 or ",
)  # fmt: skip


@pytest.mark.parametrize("pump", PUMPS, ids=range(len(PUMPS)))
@pytest.mark.timeout(20)  # quadratic time would take hours
def test_a_megabyte_is_read(pump: str) -> None:
    text = pump * ((1 << 20) // len(pump))
    for answer in (text, rf"\boxed{{{text}}}"):
        different(last_together(answer, boxes(answer)))
        formulas(answer)
        stated(answer)
        numbers(answer[-2000:])


@settings(max_examples=20)
@given(st.integers(1, 3000))
def test_nested_boxes_are_one(depth: int) -> None:
    (box,) = boxes(r"\boxed{" * depth + "x" + "}" * depth)
    assert box.text.startswith("x" if depth == 1 else r"\boxed{")
    assert box.end == 8 * depth + 1
