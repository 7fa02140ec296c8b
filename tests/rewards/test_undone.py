from __future__ import annotations

import pytest

from morl.rewards.math import math
from morl.rewards.undone import left_undone

UNDONE = [
    ("34*2", "68"), ("34 * 2", "68"), ("34 × 2", "68"), (r"34 \times 2", "68"), ("40+28", "68"), ("100-32", "68"),
    ("136/2", "68"), (r"\frac{136}{2}", "68"), ("(30+4)*2", "68"), ("|34*2|", "68"), ("68 = 34*2", "68"),
    ("1.5*12", "18"), ("136 ÷ 2", "68"), ("2*-34", "-68"), ("0.5+0.25", "3/4"), ("34*2 = 34*2", "68"), ("68*1", "68"),
]  # fmt: skip
DONE = [
    ("68", "68"), ("68.0", "68"), ("-68", "-68"), ("1,234", "1234"), ("3/2", "1.5"), (r"\frac{3}{2}", "1.5"),
    ("34*2 = 68", "68"), (r"6.8 \times 10^{1}", "68"), ("x=68", "68"), (r"\sqrt{4624}", "68"), ("50%", "0.5"),
    ("-1/2", "-0.5"), ("2*x", "2x"), ("3-4", "3-4"), (r"2\sqrt{3}", r"2\sqrt{3}"), (r"10^3", "1000"),
]  # fmt: skip


@pytest.mark.parametrize(("answer", "gold"), UNDONE)
def test_a_calculation_is_not_its_result(answer: str, gold: str) -> None:
    assert left_undone(answer, gold)


@pytest.mark.parametrize(("answer", "gold"), DONE)
def test_a_result_is_not_a_calculation(answer: str, gold: str) -> None:
    assert not left_undone(answer, gold)


def test_a_fraction_that_quotes_the_question_is_left_undone() -> None:
    assert left_undone("5/4", "1.25", "5/4 \nPut the final answer in a box.")
    assert not left_undone("5/4", "1.25", "What is 15/12 in lowest terms?")


def test_echoing_the_question_earns_nothing() -> None:
    asked = [{"role": "user", "content": "1200/1000\nPut the final answer in \\boxed{}."}]
    assert math("1200/1000", "1.2", asked).value == 0
    assert math("\\boxed{1200/1000}", "1.2", asked).value == 0
    assert math("\\boxed{1.2}", "1.2", asked).value == 1
    assert math("\\boxed{6/5}", "1.2", asked).value == 1


@pytest.mark.parametrize(
    "answer",
    [
        "81 - 31 ≈ 40.8.", r"81 - 31 \approx 40", "81 - 31 ~ 40", "81 - 31 → 40", r"81 - 31 \Rightarrow 40",
        "81 - 31: 40", "81 - 31 ≅ 40", r"81 - 31 \simeq 40", "81 - 31, 40", "81 - 31; 40", "81 - 31 (40)",
        "81 - 31 and 40", r"$81 - 31$", r"\boxed{81 - 31 ≈ 40}", r"81 - 31 \neq 40", "81 - 31 ≥ 40", "81 - 31 = 40",
        "81 - 31 == 40", "81 - 31 is 40", "81 - 31 + x", r"81 - 31 \text{ is } 40", "+81-31", "81 -31", "(81) - (31)",
        r"81 \!-\! 31", "81−31 ≠ 40", "50 = 81 - 31", "81 - 31 = 81 - 31", r"\sqrt{2500} ≈ 40", "50 ≈ 40",
        "81 - 31 % 40", "|81 - 31|", "[81 - 31, 40]",
    ],
)  # fmt: skip
def test_a_wrong_result_behind_a_quoted_calculation_is_wrong(answer: str) -> None:
    asked = [{"role": "user", "content": "81 - 31"}]
    assert math(answer, "50", asked).value == 0


@pytest.mark.parametrize("answer", ["50/3 ≈ 16.67", r"\boxed{16.67}", r"\frac{50}{3} \approx 16.67", "16.67"])
def test_an_approximation_says_what_follows_it(answer: str) -> None:
    assert math(answer, "16.67").value == 1


@pytest.mark.parametrize(
    ("asked", "gold"),
    [
        ("4!", "24"),
        (r"\sqrt{144}", "12"),
        ("2^{10}", "1024"),
        (r"\binom{5}{2}", "10"),
        (r"\log_2 8", "3"),
    ],
)
def test_a_function_that_quotes_the_question_is_left_undone(asked: str, gold: str) -> None:
    question = [{"role": "user", "content": f"What is ${asked}$?"}]
    assert math(rf"\boxed{{{asked}}}", gold, question).value == 0
    assert math(rf"\boxed{{{gold}}}", gold, question).value == 1
    assert math(rf"\boxed{{{asked}}}", gold).value == 1


def test_degrees_that_stand_in_the_question_are_a_result() -> None:
    question = [{"role": "user", "content": r"Which is larger, $40^\circ$ or $50^\circ$?"}]
    assert math(r"\boxed{50^\circ}", "50", question).value == 1
