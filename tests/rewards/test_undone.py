from __future__ import annotations

import pytest

from morl.rewards.parsing.unevaluated import left_undone
from morl.rewards.verifiers.math import math

UNDONE = [
    ("34*2", "68"), ("34 * 2", "68"), ("34 × 2", "68"), (r"34 \times 2", "68"), ("40+28", "68"), ("100-32", "68"),
    ("136/2", "68"), (r"\frac{136}{2}", "68"), ("(30+4)*2", "68"), ("|34*2|", "68"), ("68 = 34*2", "68"),
    ("1.5*12", "18"), ("136 ÷ 2", "68"), ("2*-34", "-68"), ("0.5+0.25", "3/4"), ("34*2 = 34*2", "68"), ("68*1", "68"),
    ("34⋅2", "68"), ("34∗2", "68"), ("136∕2", "68"), (r"34\:\times\:2", "68"), (r"34\ \times\ 2", "68"),
    (r"34\ast 2", "68"), (r"\cfrac{136}{2}", "68"), (r"{136 \over 2}", "68"), (r"\frac{1.36}{0.02}", "68"),
    (r"34\sqrt{4}", "68"),
]  # fmt: skip
DONE = [
    ("68", "68"), ("68.0", "68"), ("-68", "-68"), ("1,234", "1234"), ("3/2", "1.5"), (r"\frac{3}{2}", "1.5"),
    ("34*2 = 68", "68"), (r"6.8 \times 10^{1}", "68"), ("x=68", "68"), (r"\sqrt{4624}", "68"), ("50%", "0.5"),
    ("-1/2", "-0.5"), ("2*x", "2x"), ("3-4", "3-4"), (r"2\sqrt{3}", r"2\sqrt{3}"), (r"10^3", "1000"),
    (r"{3 \over 2}", "1.5"), (r"1\frac{1}{2}", "1.5"), (r"2\sqrt{3}", "3.4641016"), (r"\sum_{i=1}^{10} i", "55"),
    (r"5\tfrac13", "16/3"), (r"\frac{270}{7}^\circ", r"\frac{270}{7}"),
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


@pytest.mark.parametrize(
    ("question", "quoted"),
    [
        ("Simplify 5/4.", True),
        ("Simplify (5/4). 2 decimals.", True),
        ("**5/4**", True),
        (r"Write ${5 \over 4}$ as a decimal.", True),
        ("Simplify 15/4.", False),
        ("Simplify 1.5/4", False),
        ("Simplify 5/4.5", False),
        ("Simplify 5/4+0", False),
    ],
)
def test_a_sentence_ends_where_a_number_goes_on(question: str, quoted: bool) -> None:
    assert left_undone("5/4", "1.25", question) == quoted


@pytest.mark.parametrize(
    ("answer", "gold", "question", "value"),
    [
        ("(x+1)(x-1)", "x^2-1", "Expand $(x+1)(x-1)$.", 0),
        ("-1+x^2", "x^2-1", "Expand $(x+1)(x-1)$.", 1),
        ("(x+1)(x-1)", "x^2-1", "Factor it.", 1),
        ("x^2-1", "(x-1)(x+1)", "Factor $x^2-1$.", 0),
        (r"\frac{d}{dx}x^2", "2x", r"What is $\frac{d}{dx} x^2$?", 0),
        (r"\sum_{i=1}^{10} i", "55", r"Compute $\sum_{i=1}^{10} i$.", 0),
        ("x+1>2", "x>1", "Solve $x+1>2$.", 0),
        ("x+1", "1+x", "Is it x+1 or x-1?", 1),
        ("2/3", "2/3", "Which is larger, 2/3 or 3/5?", 1),
        (r"\pi/4", r"\frac{\pi}{4}", r"Is it $\pi/4$ or $\pi/2$?", 1),
        ("[-1,2]", "[-1, 2.0]", "What is the range of f on [-1,2]?", 1),
        (r"\frac{\sqrt2}{2}", r"\frac{1}{\sqrt2}", r"Simplify $\frac{\sqrt2}{2}\cdot\frac{\sqrt{4}}{2}$.", 1),
    ],
)
def test_a_formula_that_is_asked_for_is_no_answer(answer: str, gold: str, question: str, value: float) -> None:
    assert math(rf"\boxed{{{answer}}}", gold, [{"role": "user", "content": question}]).value == value


def test_echoing_the_question_earns_nothing() -> None:
    asked = [{"role": "user", "content": "1200/1000\nPut the final answer in \\boxed{}."}]
    assert math("1200/1000", "1.2", asked).value == 0
    assert math("\\boxed{1200/1000}", "1.2", asked).value == 0
    assert math("\\boxed{1.2}", "1.2", asked).value == 1
    assert math("\\boxed{6/5}", "1.2", asked).value == 1
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Simplify 1200/1000."}]}]
    assert math("\\boxed{1200/1000}", "1.2", asked).value == 0


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
