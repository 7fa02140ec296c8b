"""Each verifier on right answers, wrong answers, hedges, broken golds and whatever else a policy may write."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morl.registry import REWARDS, ValidationError, check_options
from morl.rewards.checks import check_examples
from morl.rewards.pool.runner import Runner
from morl.rewards.reward import Verdict
from morl.rewards.verifiers.choice import choice
from morl.rewards.verifiers.exact import exact
from morl.rewards.verifiers.length import length
from morl.rewards.verifiers.math import math
from morl.rewards.verifiers.number import number
from morl.rewards.verifiers.regex import regex
from morl.rewards.verifiers.text import text
from morl.traits import traits_of
from morl.types import Sample

BUILT_IN = ("choice", "exact", "length", "math", "number", "regex")

# Whatever a policy may write: the pieces that verifiers look for, in any order.
MARKS = [r"\boxed{", "}", "{", "$", "<think>", "</think>", "answer is ", "Answer: ", "####", " or ", ", ", "\n", "x="]
TOKENS = ["A", "(B)", "3", "4.5", "-", "/", "9^{", r"\frac{1}{2}", "\ud800", "\x00", "é"]
pieces = st.sampled_from([*MARKS, *TOKENS])
responses = st.lists(pieces, max_size=12).map("".join) | st.text(max_size=60)


@pytest.mark.parametrize("name", BUILT_IN)
def test_examples_hold(name: str, runner: Runner) -> None:
    assert len(traits_of(REWARDS.load(name)).examples) >= 2
    assert check_examples(name, runner) == []


def verdict_holds(verdict: Verdict) -> bool:
    if verdict.value is None:
        return verdict.status in ("bad_gold", "timeout", "error") and bool(verdict.detail)
    return 0.0 <= verdict.value <= 1.0 and verdict.status in ("ok", "no_answer")


golds = (
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.text(max_size=20)
    | st.lists(st.text(max_size=5), max_size=3)
)


@settings(max_examples=200, deadline=None)
@given(responses, golds | st.dictionaries(st.text(max_size=6), st.text(max_size=6), max_size=2))
def test_any_response_and_any_gold_get_a_verdict(response: str, gold: Any) -> None:
    assert verdict_holds(choice(response, gold, {}))
    assert verdict_holds(exact(response, gold))
    assert verdict_holds(number(response, gold))
    assert verdict_holds(regex(response, None, pattern="a+b"))
    assert verdict_holds(length(response, None, unit="words", maximum=3, margin=2))


@settings(max_examples=40, deadline=None)
@given(responses, st.sampled_from(["4", "\\frac{1}{2}", "3, 4", "x=1", 7, 0.5, [1, 2], "", "\\frac{", None, True, "A"]))
def test_any_response_gets_a_verdict_from_math(response: str, gold: Any) -> None:
    verdict = math(response, gold)
    assert verdict_holds(verdict)
    assert (verdict.status == "bad_gold") == (gold in ("", "\\frac{", None) or gold is True)


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("0.5", r"\frac{1}{2}"),
        ("2+3=5", "5"),
        ("x=5", 5),
        ("27", 27.0),
        (r"1.6\times10^{-19}", 1.6e-19),
        ("1+x^2=0", "x^2+1=0"),
        ("2x+2y=2", "x+y=1"),
        (r"50\%", "0.5"),
        ("√3", r"\sqrt{3}"),
        ("1,234", "1234"),
        (r"(-\infty, 3]", r"(-\infty,3]"),
        ("2, 1", "1,2"),
        ("2, 1", [1, 2]),
        (r"\{1,2\}", r"$1$ and $2$"),
        (r"\pm 5", "5,-5"),
        ("(1,2)", "(1,2)"),
        ("b+a", "a+b"),
        (r"\sin^2 x+\cos^2 x", "1"),
        (r"5 \text{ cm}", "5"),
        ("5.", "#### 5"),
        (r"\text{Monday}", "Monday"),
        (r"9^{9^{9^{9}}}", r"9^{9^{9^{9}}}"),
        ("(-1)^{10000}", "1"),
        (r"x \leqslant 3", r"x \le 3"),
        (r"\frac{1}{3} \text{ meters}", "1/3"),
        (r"\frac{2}{3}\text{ cm}^2", r"\frac23"),
        (r"\frac{1}{-2}", "-0.5"),
        (r"1-\frac{1}{\mathrm{e}}", r"1-\frac{1}{e}"),
        (r"e", r"\mathrm{e}"),
        (r"\frac{1}{3} \approx 0.333", "1/3"),
        ("1/3 ≈ 0.333", "0.333"),
        ("x = 5+6 = 11", "x = 11"),
        ("18 dollars", "18"),
        ("5 km/h", "5"),
        ("8 red balls", 8),
        ("25 percent", r"25\%"),
        ("1 1/2", "1.5"),
        (r"1\,234", "1234"),
        ("1000,99", "1000.99"),
        ("2*pi", r"2\pi"),
        ("3*s**2", "3s^2"),
        ("x**10", "x^{10}"),
        ("ln(2)", r"\ln 2"),
        ("[0,1) U (2,3]", r"[0,1) \cup (2,3]"),
        (r"\sqrt[3]2", r"\sqrt[3]{2}"),
        (r"\lim_{x \to 0} \frac{\sin x}{x} = 1", "1"),
        (r"12.5\%", "12.5"),
        ("12.5", r"12.5\%"),
        (r"0.\overline{3}", r"\frac13"),
        (r"0.1\overline{6}", "1/6"),
        (r"0.5 \text{ or } \frac12", "1/2"),
        (r"9.8\,\mathrm{m/s^2}", "9.8"),
        (r"10~\text{cm}", "10"),
        ("10 m/s", "10"),
        ("10 cm²", "10"),
        ("€42", "42"),
        ("6.76", r"\approx 6.76"),
        (r"\displaystyle \frac{1}{2}", "1/2"),
        (r"{\frac12}", "1/2"),
        (r"\ \frac{1}{2}\ ", "1/2"),
        (r"\boldsymbol{5}", "5"),
        (r"\large 5", "5"),
        (r"\frac{100}{3}\%", "1/3"),
        (r"33\frac13\%", "1/3"),
        (r"21.5\%", r"\frac{43}{2}\%"),
        (r"33\frac{1}{3}\%", r"33\frac13\%"),
        ("(1,2,3)", r"\langle 1,2,3\rangle"),
        (r"(3,\infty)", r"\{x \mid x>3\}"),
        (r"\left\{ x \mid x > 3 \right\}", "x>3"),
        ("x=1,y=2", r"\begin{cases} x=1 \\ y=2 \end{cases}"),
        (r"\begin{cases} x=1 \\ y=2 \end{cases}", "x=1,y=2"),
        (r"\begin{pmatrix}1\\ 2\end{pmatrix}", r"\begin{pmatrix} 1\\2 \end{pmatrix}"),
        (r"\frac{3\pm\sqrt5}{2}", r"\frac{3\pm\sqrt5}{2}"),
        (r"\frac{1\pm\sqrt5}{2}", r"\frac{1+\sqrt5}{2},\frac{1-\sqrt5}{2}"),
        (r"\frac{1-\sqrt5}{2},\frac{1+\sqrt5}{2}", r"x=\frac{1\pm\sqrt5}{2}"),
        ("1,2", "x=1,y=2"),
        ("(1,2)", "x=1,y=2"),
        ("y=2,x=1", "x=1,y=2"),
        ("(y,x)=(2,1)", "x=1,y=2"),
        ("3,5", "m=3,b=5"),
        ("2,1", "x=1,x=2"),
        (r"\{2,1\}", "x=1,x=2"),
        (r"3:30 \text{ PM}", r"3:30 \text{ p.m.}"),
        ("3:30", r"3:30\text{ PM}"),
        ("East", "east"),
        ("bca", "abc"),
        ("yx", "xy"),
        ("mgh", "hgm"),
        (r"5\text{ million}", "5000000"),
        ("5 thousand", "5000"),
        ("-2.5 million dollars", "-2500000"),
        ("5个", "5"),
        ("5.5元", "5.5"),
        ("5千克", "5"),
        ("5:30 PM", r"5:30 \text{ PM}"),
        ("70", "70 miles per hour"),
        (r"70 \text{ miles per hour}", "70 miles per hour"),
        ("15", "15 cm^2"),
        (r"0, 2\sqrt2, -2\sqrt2", r"x=0, x= \pm 2 \sqrt{2}"),
        (r"\frac12, \frac{1\pm\sqrt3}{2}", r"\frac{1+\sqrt3}{2}, \frac{1-\sqrt3}{2}, \frac12"),
        (r"\frac{1\pm i}{2}, \frac{3\pm i}{4}", r"\frac{1 \pm i}{2}, \frac{3 \pm i}{4}"),
        ("5>x>-2", "-2<x<5"),
        (r"5>x\ge 1", "[1,5)"),
        (r"x<1 \text{ or } x>2", r"(-\infty,1)\cup(2,\infty)"),
        (r"(-\infty,-2]\cup[2,\infty)", r"x \le -2 \text{ or } x \ge 2"),
        ("1011_{2}", "1011_2"),
        ("11_{10}", "1011_2"),
        (r"5\frac13", "16/3"),
        (r"(3,\frac\pi2)", r"(3,\frac{\pi}{2})"),
        (r"\dfrac\pi{2}", r"\frac{\pi}{2}"),
        (r"{10 \choose 3}", r"\binom{10}{3}"),
        (r"\underline{42}", "42"),
        (r"\textcolor{red}{42}", "42"),
        (r"n_{\min}=42", "42"),
        ("f(x)=x+x", "f(x)=2x"),
        (r"4\cdot 2^{2021}", "2^{2023}"),
        (r"\frac{2}{3}E_{2}+\frac{1}{3}E_{1}", r"\frac13E_1+\frac23E_2"),
        (r"\textbf{(B)}\ 12", r"\text{(B)}"),
        *((label, "B") for label in (r"\textbf{(B) }12", "(B) 12", "B. 12", r"\textbf{(B)}\ x+1", "B")),
    ],
)
def test_math_knows_equals(answer: str, gold: Any) -> None:
    assert math(rf"\boxed{{{answer}}}", gold).value == 1.0


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("9=1", "1"),
        ("3=4=5", "5"),
        ("3.2e-19", "1.6e-19"),
        ("0.0000002", "0.0000001"),
        (r"2\times 10^{-20}", "10^{-20}"),
        ("y^2+1=0", "x^2+1=0"),
        ("x^2+2=0", "x^2+1=0"),
        ("(2,1)", "(1,2)"),
        ("1", "1,2"),
        ("1,2,3", "1,2"),
        (r"4 \text{ or } 5", "4"),
        (r"4\text{ (or 5)}", "4"),
        (r"4 \text{; 5}", "4"),
        (r"\{4,5\}", "4"),
        ("[4,5]", "4"),
        (r"4 \pm 1", "5"),
        (r"\frac{1}{0}", "5"),
        ("nan", "5"),
        (r"9^{9^{9^{9}}}", "5"),
        ("((9!)!)!", "5"),
        ("(" * 50 + "5" + ")" * 50, "5"),
        ("9" * 10**6, "5"),
        ("5" + " " * 10**5 + "6", "5"),
        (r"\frac{", "5"),
        ("", "5"),
        (r"\text{}", "5"),
        ("5" + r"\boxed{6}", "5"),
        (r"\frac{1}{3} \approx 1.333", "1/3"),
        ("x = 5+5+1 = 7 = 11", "x = 11"),
        ("x = 34*2", "x = 68"),
        ("y = 11", "x = 11"),
        ("5 hundred", "5"),
        ("5 sixths", "5"),
        ("5 or six", "5"),
        ("5 not six", "5"),
        ("5 six", "5"),
        ("5 and a half", "5"),
        ("1:00", "12:00"),
        ("1,234", "1.234"),
        ("2,5", "2"),
        (r"34*2 \text{ cm}", "68"),
        (r"22\%", r"\frac{43}{2}\%"),
        ("(1,3,2)", r"\langle 1,2,3\rangle"),
        ("x<3", r"\{x \mid x>3\}"),
        ("x=2,y=1", r"\begin{cases} x=1 \\ y=2 \end{cases}"),
        (r"\frac{1+\sqrt5}{2}", r"\frac{1\pm\sqrt5}{2}"),
        ("(2,1)", "x=1,y=2"),
        ("2,1", "x=1,y=2"),
        ("(x,y)=(2,1)", "x=1,y=2"),
        (r"\{1,2\}", "x=1,y=2"),
        (r"\{1,2\}", "(1,2)"),
        (r"3:30 \text{ PM}", r"3:30 \text{ AM}"),
        (r"5 \text{ miles north}", r"5 \text{ miles south}"),
        ("east", "seat"),
        (r"\text{listen}", "silent"),
        ("5 million", "5"),
        ("one sixteenth", "1"),
        ("5万", "5"),
        ("5个半", "5"),
        ("(C) 12", "B"),
        ("(B) or (C)", "B"),
        ("(B), (C)", "B"),
        ("(B) 12", r"\text{(C)}"),
        ("1011_3", "1011_2"),
        ("204_6", "204_5"),
        ("E_1", "E_2"),
        ("5 am", "5 pm"),
        ("71", "70 miles per hour"),
        ("3", "3 squared"),
        ("17", r"5\frac13"),
        ("5>x>1", "1<x<6"),
        (r"x \le 1 \text{ or } x>2", r"(-\infty,1)\cup(2,\infty)"),
        (r"x \not= 42", "42"),
        ("41=42", "42"),
        ("2^{2024}", "2^{2023}"),
        ("B+1", "B"),
        ("(9999!)^{9999}", r"\sqrt{12}"),
    ],
)
def test_math_tells_apart(answer: str, gold: Any) -> None:
    assert math(rf"\boxed{{{answer}}}", gold).value == 0.0


@pytest.mark.parametrize(
    ("response", "gold", "value"),
    [
        (r"\boxed{4} or 5", "4", 0.0),
        (r"4 or \boxed{5}", "5", 0.0),
        (r"\boxed{0.5} or 1/2", "1/2", 1.0),
        ("It is either 4 or 5.", "5", 0.0),
        ("Answer: $x=3$ or $x=4$", "3,4", 1.0),
        ("Answer: $x=3$ or $x=4$", "4", 0.0),
        ("He pays $5 and she pays $7, so the total is $12", "12", 1.0),
        ("So 3+4=7 apples in all the baskets that were on the table.", "7", 1.0),
        ("The answer is 72 because 3*24 = 72.", "72", 1.0),
        ("</think></think> 6", "6", 1.0),
        (
            "The matrix is $ \\begin{pmatrix}1 & 0 \\\\ 0 & 1\\end{pmatrix} $.",
            r"\begin{pmatrix}1 & 0 \\ 0 & 1\end{pmatrix}",
            1.0,
        ),
        ("Alice wins with a probability of 2/3. Bob does not.", "2/3", 1.0),
        ("He pays $ 5 and she pays $ 7, so the total is $ 12", "12", 1.0),
        (r"<think>\boxed{5}", "5", 0.0),
        (r"<think>\boxed{5}</think>", "5", 0.0),
        (r"\boxed{5", "5", 0.0),
        (r"\boxed 5", "5", 1.0),
        ("#### **5**", "5", 1.0),
        ("The answer is 42, not 43.", "42", 1.0),
        ("The answer for the second part is 5 apples in 3 bags.", "5", 1.0),
        ("The answer is 42, not 43.", "43", 0.0),
        ("The answer is not 5.", "5", 0.0),
        ("The answer is greater than 5.", "5", 0.0),
        ("The answer is 42 cookies for 3 kids.", "42", 1.0),
        ("The answer is 42 cookies for 3 kids.", "3", 0.0),
        ("Answer: 42 (rounded from 41.7)", "42", 1.0),
        ("The answer is the sum of 3 and 4, which is 7.", "7", 1.0),
        ("The answer is 1/2 or 0.5.", "1/2", 1.0),
        (r"\boxed{5} or maybe 6", "5", 0.0),
        (r"\boxed{5} (or $6$)", "5", 0.0),
        (r"\boxed{5} or $\sqrt{2}$", "5", 0.0),
        (r"$\boxed{5} \text{ or } 6$", "5", 0.0),
        (r"\boxed{5}; alternatively 6", "5", 0.0),
        (r"6 or even \boxed{5}", "5", 0.0),
        (r"\boxed{\frac12} (or 50\%)", "1/2", 1.0),
        (r"\boxed{1.5}, or alternatively 3/2", "3/2", 1.0),
        (r"\boxed{4\text{ or five}}", "4", 0.0),
        (r"\boxed{4 \text{ (possibly five)}}", "4", 0.0),
        (r"\boxed{4\text{ thousand}}", "4", 0.0),
        (r"\boxed{4\text{ is wrong}}", "4", 0.0),
        (r"\boxed{0.\overline{3}}", "0", 0.0),
        ("\\boxed{6}\n\nor\n\n\\boxed{5}", "5", 0.0),
        ("The probability is 50%.", "1/2", 1.0),
        ("The shares are 30% and 40%.", "30,40", 1.0),
        ("The interval is [2, 3).", "[2,3)", 1.0),
        ("The interval is [2, 3].", "[2,3)", 0.0),
        ("#### x = 5", "5", 1.0),
        (r"\begin{align*}x&=2+3\\&=5\end{align*}", "5", 1.0),
        ("The answer is:\n$$\n5\n$$\nAs in section 3.", "5", 1.0),
        ("The answer is\n\\[\n5\n\\]", "5", 1.0),
        ("It is $\\begin{bmatrix}\n1 \\\\\n2\n\\end{bmatrix}$.", r"\begin{pmatrix}1\\2\end{pmatrix}", 1.0),
        ("*5*", "5", 1.0),
        ("### 5", "5", 1.0),
        ("Answer: 5 ✅", "5", 1.0),
        ("5 ❌", "5", 0.0),
        ("x = 3\ny = 5", "5", 0.0),
        ("The area is 9π.", r"9\pi", 1.0),
        ("The area is 9π.", "9", 0.0),
        ("The area is 9π ≈ 28.27.", r"9\pi", 1.0),
        ("The length of it is √2/2.", r"\frac{\sqrt2}{2}", 1.0),
        ("The answer is concave up everywhere.", "concave up everywhere", 1.0),
        ("The answer is 5. Or maybe 6.", "5", 0.0),
        ("The answer is 5? Or 6?", "5", 0.0),
        ("The answer is unlikely to be 5.", "5", 0.0),
        ("37 time-outs * 5 minutes/time-out = 185 minutes", "185", 1.0),
        ("60 minutes/hour / 2 minutes/mile = 30 miles/hour", "30", 1.0),
        ("Multiply: $6,800,000 * 80% = $5,440,000", "5440000", 1.0),
        ("3 maybe value = 5", "5", 0.0),
        ("In 2010, the value was 43.", "43", 1.0),
        ("所以一共有5个苹果。", "5", 1.0),
        ("答案是5个", "5", 1.0),
    ],
)
def test_math_finds_the_answer(response: str, gold: str, value: float) -> None:
    assert math(response, gold).value == value


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


PARTS_OF_TERMS = [
    *(r"\boxed{5\pi}", r"\boxed{\sqrt{5}}", r"\sqrt[3]{5}", "√5", "5π", "5 pi", "5²", "2 + 5", "2 plus 5"),
    *(r"\boxed{5x}", r"\boxed{\frac{x}{5}}", r"\boxed{\frac{5}{x}}", "5 thousand", "5k", "5√2"),
]


@pytest.mark.parametrize(
    ("response", "gold", "value"),
    [
        ("3 or 4", 4, 0.0),
        ("between 3 and 5", 5, 0.0),
        ("3-5", 5, 0.0),
        ("I see 3 red and 4 blue ones, so 7 in total.", 7, 1.0),
        ("The answer is 10 - 5 = 5", 5, 1.0),
        ("The answer is 5, since 10/2 = 5 and 4+1 = 5", 5, 1.0),
        (r"\boxed{2+3=5 \text{ cm}}", 5, 1.0),
        (r"\boxed{3}\boxed{4}", 4, 0.0),
        ("43.0", "43 apples", 1.0),
        ("所以一共有5个苹果。", 5, 1.0),
        ("4, not 5", 4, 1.0),
        ("4, not 5", 5, 0.0),
        ("The answer is not 5.", 5, 0.0),
        (r"The answer is $6 \times 7 = 42$.", 42, 1.0),
        (r"The answer is $6 \times 7 = 42$.", 6, 0.0),
        ("The answer is $(40+2) = 42$", 42, 1.0),
        ("The answer is 40 apples + 2 apples = 42 apples", 42, 1.0),
        *((response, 5, 0.0) for response in PARTS_OF_TERMS),
        (r"\boxed{2\sqrt{2}}", 2, 0.0),
        ("5 × 10³", 10, 0.0),
        ("5 × 10³", 5000, 1.0),
        ("5000", "5 × 10³", 1.0),
        ("5 thousand", 5000, 1.0),
        (r"\boxed{5\text{ thousand}}", "5k", 1.0),
        ("1,234 thousand", 1_234_000, 1.0),
        ("1.2345k", 1234.5, 1.0),
        ("5 m²", 5, 1.0),
        ("5m", 5, 1.0),
        ("It is 5x larger", 5, 1.0),
        ("300K", 300, 1.0),
        ("√25 = 5", 5, 1.0),
        (r"\boxed{x = 5}", 5, 1.0),
        ("The answer is 2 + 3 = 5", 5, 1.0),
        ("5", r"5\pi", None),
        ("NaN", float("nan"), None),
        ("5", "5 or 6", None),
        ("5", [5], None),
        ("5", True, None),
    ],
)
def test_number(response: str, gold: Any, value: float | None) -> None:
    assert number(response, gold).value == value


OPTIONS = ["5", "12", "7 apples", "None of these"]


@pytest.mark.parametrize(
    ("response", "letter"),
    [
        *(
            (form.format("B"), "B")
            for form in (
                *(
                    "{}",
                    "({})",
                    "[{}]",
                    "**{}**",
                    "{}) 12",
                    "The answer is ({}) 12.",
                    "I choose {}",
                    "({}) because it fits",
                ),
                *(
                    "Answer - {}",
                    "__Answer:__ {}",
                    "_Answer:_ {}",
                    "Option {}",
                    "The final choice is {}.",
                    "It's ({}).",
                    ": {}",
                ),
                *("It must be [{}]", "Looking at this, {}", "Therefore: {}", "{}, since it fits", "{} is the answer"),
                *(
                    "I think {} is correct.",
                    "A and B are possible, but {} is correct",
                    "选{}",
                    "故选：{}。",
                    "正确答案是{}。",
                ),
                *(
                    "정답: {}",
                    "정답은 {}입니다",
                    "A. red\nB. blue\nC. green\nTherefore: {}",
                    "Not A: option ({}) is right.",
                ),
            )
        ),
        ("b. twelve", "B"),
        ("(b) twelve", "B"),
        ("A is correct. Wait, no: B is correct.", "B"),
        ("It is between A and B, so B", "B"),
        *((rf"\boxed{{{form}}}", "B") for form in ("B", r"\text{B}", r"\textbf{(B) }12", "12", "b")),
        ("The answer is A, because B is wrong.", "A"),
        ("The answer is not A. The answer is C.", "C"),
        ("Answer: A\nNo: answer: B", "B"),
        ("A) 5\nB) 12\n\nAnswer: B) 12", "B"),
        ("答案是B", "B"),
        ("It must be 12.", "B"),
        ("none of these", "D"),
        ("The answer is B. C is wrong.", "B"),
        ("The answer is **B**. **A** is too small.", "B"),
        ("The answer is B; C fails.", "B"),
        ("The answer is B. A and C are incorrect.", "B"),
        ("B is the answer, since A is 5", "B"),
        ("$B$", "B"),
        ("- B", "B"),
        ("The answer is `B`.", "B"),
        ("The answer is 'B'.", "B"),
        ('{"answer": "B"}', "B"),
        ("选择B", "B"),
        ("The answer is “B”.", "B"),
        ("I think B.", "B"),
        ("The best choice would be B.", "B"),
        ("Not A. Not C. Not D. So B.", "B"),
        ("所以答案是选项B", "B"),
        ("Answer = B", "B"),
        ("Answer → B", "B"),
        ('{"choice": "B"}', "B"),
        ("The answer is not A but B.", "B"),
        (r"\boxed{B. Franklin D. Roosevelt}", "B"),
        (r"\boxed{B. Vitamin C.}", "B"),
        (r"\boxed{B. H. pylori and E. coli}", "B"),
        (r"\boxed{B. False}", "B"),
        (r"\boxed{B) Not given}", "B"),
    ],
)
def test_choice_reads_the_option(response: str, letter: str) -> None:
    for gold in "ABCD":
        assert choice(response, gold, {}, options=OPTIONS).value == float(gold == letter)


@pytest.mark.parametrize(
    ("response", "options", "letter"),
    [
        ("14 or 4", ["4", "7", "14"], None),
        ("It is 14.", ["4", "7", "14"], "C"),
        ("It is 7.2", ["2", "7", "14"], None),
        ("It is 1/2", ["2", "1", "14"], None),
        ("It is -4", ["4", "7"], None),
        ("It is light blue.", ["blue", "light blue"], "B"),
        ("blue or light blue", ["blue", "light blue"], None),
        ("a blue-green one", ["blue", "green"], None),
        ("No, it is not.", ["Yes", "No"], "B"),
        ("Yes. It has to be.", ["Yes", "No"], "A"),
        ("Yes, or no.", ["Yes", "No"], None),
        ("The answer is Rs. 7.2.", ["Rs. 6", "Rs. 7.2"], "B"),
        ("The answer is A. Or B.", ["red", "blue"], None),
        ("选项B", ["red", "blue"], "B"),
        ("选项B不正确", ["red", "blue"], None),
        ("The letter is B", ["red", "blue"], "B"),
    ],
)
def test_choice_reads_the_options_texts(response: str, options: list[str], letter: str | None) -> None:
    for gold in "ABC"[: len(options)]:
        assert choice(response, gold, {}, options=options).value == float(gold == letter)


@pytest.mark.parametrize(
    "response",
    [
        "Answer: A or B",
        "Answer: A/B",
        "The answer is both A and B",
        "The answer is A or maybe B",
        r"\boxed{A} or \boxed{B}",
        r"\boxed{A, B}",
        "A\nB",
        "ABCD",
        "A B C D",
        "A good idea",
        "The answer is a mystery",
        "The answer is A good one",
        "The answer is vitamin C",
        "Answer: Apple",
        "It's not A",
        "It is not 12.",
        "It is 12 or 5.",
        "A) 5\nB) 12\nC) 7 apples\nD) None of these",
        "<think>A",
        "E",
        "I think so",
        "(A) (B) (C) (D)",
        "A. B. C. D.",
        "A) 5 B) 12 C) 7 apples D) None of these",
        "A is correct. B is correct. C is correct. D is correct.",
        "A or B is correct",
        "Is A correct? Perhaps B is correct?",
        "I don't think A is correct.",
        "It is not certain that A is correct",
        "Option A is incorrect.",
        "It is (a) cheap and (b) good.",
        "It's between A and D",
        "It contains vitamins A, B",
        "Options: A, B, C, D",
        "Therefore: A, B",
        "variable v_A",
        "不选A",
        "选项A是错误的",
        "选A或B",
        "The answer is B. Or C.",
        "The answer is B; C",
        "The answer cannot be B.",
        "The correct answer can't be B",
        "The answer is unlikely to be B",
        r"\boxed{\text{not B}}",
        r"\boxed{\neg B}",
        r"\boxed{B \text{ is wrong}}",
        r"\boxed{A \lor B}",
        r"\boxed{B. London or A. Paris}",
        r"\boxed{B. London A. Paris C. Rome D. Berlin}",
        r"\boxed{\text{Neither A nor B}}",
        r"\boxed{\text{all but B}}",
        r"\boxed{!B}",
        r"\boxed{(B) is false}",
        "Answer: B\nor A",
        "Answer: B\n(or A)",
        "The answer is B? No.",
        "Anything but B.",
        "I don't think B.",
        "The answer is not A but B or C.",
    ],
)
def test_choice_takes_no_guess(response: str) -> None:
    for gold in "ABCD":
        assert choice(response, gold, {}, options=OPTIONS).value == 0.0


@pytest.mark.parametrize(
    "options", [OPTIONS, dict(zip("ABCD", OPTIONS, strict=True)), "A) 5 B) 12 C) 7 apples D) None of these"]
)
def test_choice_takes_options_in_any_form(options: Any) -> None:
    for gold in ("B", "(B)", "12", 1, {"answer": "b", "options": options}):
        assert (
            choice("12", gold, {"options": options}, options_from=None if isinstance(gold, dict) else "options").value
            == 1.0
        )


@pytest.mark.parametrize(
    "gold", ["", "E", "yellow", 4, -1, 1.0, None, True, ["A"], {"answer": "A", "options": ["one"]}]
)
def test_choice_refuses_a_gold_that_is_no_option(gold: Any) -> None:
    assert choice("A", gold, {}, options=OPTIONS).status == "bad_gold"


@given(st.text(min_size=1, max_size=20))
def test_exact_is_exact(text: str) -> None:
    verdict = exact(text, text, part="text")
    assert verdict.value == 1.0 or verdict.status in ("bad_gold", "no_answer") or "think>" in text
    assert exact("", text).value in (0.0, None)
    assert exact(text + "zzz", text, part="text").value in (0.0, None)


@pytest.mark.parametrize(
    ("response", "gold", "options", "value"),
    [
        ("The answer is St. Louis.", "St. Louis", {}, 1.0),
        ("The answer is Paris. It is in France.", "paris", {}, 1.0),
        ("The answer is Paris or Rome", "Paris", {}, 0.0),
        (r"\boxed{Paris} \boxed{Rome}", ["Paris", "Rome"], {}, 0.0),
        ("5", "-5", {}, 0.0),
        ("C", "C++", {}, 0.0),
        ("ＡＢＣ", "abc", {}, 1.0),
        ("Pa\u200bris", "Paris", {}, 1.0),
        ("The answer is Paris. Or maybe Rome.", "Paris", {}, 0.0),
        ("...", "x", {}, 0.0),
        ("x", "...", {}, None),
        ("x", [], {}, None),
        ("x", [""], {}, None),
        ("x!", "x", {"ignore_punctuation": False}, 0.0),
    ],
)
def test_exact(response: str, gold: Any, options: dict[str, Any], value: float | None) -> None:
    assert exact(response, gold, **options).value == value


READERS: list[tuple[Callable[[str, Any], Verdict], str, str]] = [
    (lambda response, gold: choice(response, gold, {}), "B", "C"),
    (exact, "4", "5"),
    (math, "4", "5"),
    (number, "4", "5"),
    (text, "4", "5"),
]


@pytest.mark.parametrize(
    ("form", "value"),
    [
        ("<answer>{right}</answer>", 1.0),
        ("<think>{wrong}</think>\n<answer>\n{right}\n</answer>\n", 1.0),
        ("It may be {wrong}. <ANSWER>{right}</ANSWER> See part 9 D.", 1.0),
        ("<answer>The answer is {right}.</answer>", 1.0),
        ("<answer>\\boxed{{{right}}}</answer>", 1.0),
        ("\\boxed{{{wrong}}} <answer>{right}</answer>", 1.0),
        ("\\boxed{{{right}}} <answer>{wrong}</answer>", 0.0),
        ("<answer>{wrong}</answer><answer>{right}", 1.0),
        ("<answer>{right}</answer><answer>{wrong}</answer>", 0.0),
        ("<answer>{right} or {wrong}</answer>", 0.0),
        ("<answer>{right}</answer><think>", 0.0),
        ("{right}<answer></answer>", 0.0),
    ],
)
@pytest.mark.parametrize("reader", READERS, ids=["choice", "exact", "math", "number", "text"])
def test_tags_bound_the_answer(reader: tuple[Callable[[str, Any], Verdict], str, str], form: str, value: float) -> None:
    verify, right, wrong = reader
    response = form.format(right=right, wrong=wrong)
    assert verify(response, right).value == verify(response, f"<answer> {right} </answer>").value == value


def test_a_pattern_that_rewards_anything_fails_at_load() -> None:
    for pattern in ("", "a*", "(", "x?|y", "^"):
        with pytest.raises(ValidationError):
            check_options(regex, {"pattern": pattern})
        assert regex("text", pattern).status == "bad_gold"


def test_a_pattern_that_backtracks_without_end_is_stopped(runner: Runner) -> None:
    arguments = {"response": "a" * 50 + "!", "gold": r"(a+)+$"}
    score = asyncio.run(runner.run("morl.rewards.verifiers.regex:regex", arguments, {}, 0.3))
    assert (score.value, score.status) == (None, "timeout")


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 20), st.integers(0, 100))
def test_length_falls_in_a_straight_line(minimum: int, room: int, margin: int, count: int) -> None:
    sample = Sample("p", 0, (1,) * count, (1,) * count, (0.0,) * count, 0, "stop", "x" * count)
    maximum = minimum + room
    value = length(sample.text, sample, minimum=minimum, maximum=maximum, margin=margin).value
    beyond = max(minimum - count, count - maximum, 0)
    expected = 1.0 if beyond == 0 else max(0.0, 1 - beyond / margin) if margin else 0.0
    assert value == pytest.approx(expected)
    assert length(sample.text, None, unit="characters", minimum=minimum, maximum=maximum, margin=margin).value == value


def test_length_says_what_it_cannot_count() -> None:
    assert length("a", None, maximum=3).status == "error"
    assert length("a", None, unit="words", minimum=4, maximum=3).status == "error"
    with pytest.raises(ValidationError, match="maximum"):
        check_options(length, {})


PATHS: list[tuple[str, Callable[..., Verdict], dict[str, Any]]] = [
    ("choice", choice, {"gold": "A", "meta": {}, "options": OPTIONS}),
    ("exact", exact, {"gold": "A"}),
    ("number", number, {"gold": 5}),
    ("math", math, {"gold": "5"}),
    ("regex", regex, {"gold": "zz+"}),
]
LONG = [
    "9",
    "A\n",
    " A is correct",
    "A" + " " * 50,
    "A) ",
    "it's A ",
    "answer is A or B ",
    "\\",
    "$x$",
    "\\boxed{A}",
    "\\boxed{",
    "\\text{1",
    "5²",
    "2 plus ",
    "1,234 thousand ",
    "not A but ",
]


@pytest.mark.parametrize("pump", LONG, ids=range(len(LONG)))
@pytest.mark.timeout(30)
def test_a_megabyte_gets_a_verdict(pump: str) -> None:
    text = pump * ((1 << 20) // len(pump))
    for _, function, arguments in PATHS:
        assert verdict_holds(function(text, **arguments))
        assert verdict_holds(function(rf"\boxed{{{text}}}", **arguments))


@pytest.mark.parametrize("gold", ["5", "x^2+1"])
def test_a_calculation_that_takes_for_ever_is_wrong(gold: str, runner: Runner) -> None:
    # In a worker: here, hypothesis listens to the garbage collector and may swallow the timeout.
    arguments = {"response": r"\boxed{(x+y+z+1)^{60}}", "gold": gold, "messages": ()}
    score = asyncio.run(runner.run("morl.rewards.verifiers.math:math", arguments, {}, 60.0))
    assert (score.value, score.status) == (0.0, "ok")


@pytest.mark.timeout(30)
@pytest.mark.parametrize("part", [r"x^{50}+x+1<0", r"x<x^{50}+x+1", r"(1,\sum_{k=1}^{10000000}\frac{1}{k})"])
def test_no_inequality_is_solved_and_no_sum_is_valued_for_a_range(part: str, runner: Runner) -> None:
    arguments = {"response": rf"\boxed{{{part} \text{{ or }} x>2}}", "gold": "x<1 or x>2", "messages": ()}
    score = asyncio.run(runner.run("morl.rewards.verifiers.math:math", arguments, {}, 20.0))
    assert (score.value, score.status) == (0.0, "ok")


def test_an_answer_that_algebra_chokes_on_is_wrong():
    assert math("[99:99, 00:00]", r"\sqrt{12}").value == 0.0


@pytest.mark.timeout(3)
def test_a_gold_that_nobody_can_mean_is_an_error_of_the_data():
    score = math(r"5 \sqrt{3} \boxed{4 + \sqrt{128}}", "-1e9991234")
    assert (score.value, score.status) == (None, "bad_gold")
