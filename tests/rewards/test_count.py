"""Counts: one whole number, in digits or in words."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morl.registry import ValidationError, check_options
from morl.rewards.checks import check_examples
from morl.rewards.parsing.number_words import numbers_for_words
from morl.rewards.pool.runner import Runner
from morl.rewards.verifiers.count import count
from morl.traits import traits_of

UNITS = [*"zero one two three four five six seven eight nine ten eleven twelve".split()]  # noqa: SIM905
UNITS += [*"thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()]  # noqa: SIM905
TENS = ["", "", *"twenty thirty forty fifty sixty seventy eighty ninety".split()]  # noqa: SIM905


HUGE = 10**5000


def in_words(number: int, hyphen: str = "-") -> str:
    if number < 20:
        return UNITS[number]
    if number < 100:
        return TENS[number // 10] + (hyphen + UNITS[number % 10] if number % 10 else "")
    rest = f" and {in_words(number % 100, hyphen)}" if number % 100 else ""
    return f"{UNITS[number // 100]} hundred{rest}"


def test_examples_hold(runner: Runner) -> None:
    assert check_examples("count", runner) == []


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


@pytest.mark.parametrize(
    "response",
    [
        "3",
        "３",
        "3 cats",
        "**3**",
        "Three.",
        "There are 3 (three) cats.",
        "<think>4, no, 5</think>three",
        "The answer is three.",
        "答案是3",
        "<answer>3</answer> of 5",
        '```json\n{"count": 3}\n```',
        "1 + 2 = 3",
        r"2 + 1 = \boxed{3}",
        "One on the left and two on the right, so three in total.",
        "There is 1 red and there are 2 blue ones, for a total of 3.",
        "2 on the left, 1 on the right. Total: three",
        "The total number is 3.",
        "Three cats, each one is black.",
        "I see three nine-year-old boys.",
        "There are three-legged chairs: 3",
        "No one else is there but 3",
        "3 cats: one black and two white",
        "There are 3 dogs (1 brown, 2 white).",
        "The answer is 3 apples in 1 basket.",
        "There are 3 cars in the 2 rows.",
        "I see 3 dogs, 2 of which are brown.",
        "Three dogs, of which two are brown.",
        "2 red and 1 blue balls, 3 in all.",
        "There are 3, not 4.",
        "It is 3 rather than 4.",
        "There are 3 birds. 2 are red and 1 is blue.",
        "There are 3 birds in image 1.",
        "There are 3 people, including 2 children.",
        "3 cats, 1 black and 2 white.",
        "In total, there are 3 cats in the 2 pictures.",
        "No doubt there are 3.",
        "There are 3 dogs: one brown, one white, and one black.",
        "3 people, 2 of whom are seated.",
        "There are 3 dogs. One is black. Two are white.",
        "There's 1 on the left and 2 on the right, making 3.",
        "There are 3 cats: 2 on the left and 1 on the right.",
        "Originally 5, removing 2, leaves 3.",
        "4 minus 1 is 3.",
        "There are 3 in total, 2 of them black.",
        "In total, 2 red and 1 blue, a total of 3.",
        "A total of 3 birds are visible; 2 are flying and 1 is on the ground.",
        "I count 3 birds in total: 1 on the left, 2 on the right.",
        "There are 3 birds. Two of them are flying.",
        "1, 2, 3.\n\n**3**",
        '{"count": 3, "confidence": 0.9}',
        '```json\n{"label": "cat", "count": "three", "page": 4}\n```',
    ],
)
def test_the_count_is_read(response: str) -> None:
    for gold in (2, 3, 4):
        assert count(response, gold).value == float(gold == 3)


@pytest.mark.parametrize(
    ("question", "response", "value"),
    [
        ("How many people are in the picture?", "3 people and 1 dog", 1.0),
        ("How many people are in the picture?", "1 dog and 3 people", 1.0),
        ("How many dogs do you see?", "1 cat and 3 dogs", 1.0),
        ("How many dogs do you see?", "3 cats and 1 dog", 0.0),
        ("How many red cars can you see?", "three red cars and one blue truck", 1.0),
        ("How many people are there?", "3 or 4 people", 0.0),
        ("How many people are there?", "4 or 3 people", 0.0),
        ("How many people are there?", "4 people or 3 people", 0.0),
        ("How many people are there?", "2 tables with 4 people each, so 3 in total", 1.0),
        ("What is there?", "3 people and 1 dog", 0.0),
        ("How many chairs are there?", "There are 3 chairs around 1 table.", 1.0),
        ("How many players are there?", "There are 3 players wearing number 7 jerseys.", 1.0),
        ("How many dogs are there?", "There are 3 dogs. There are 2 cats.", 1.0),
        ("How many dogs are there?", "There are 2 dogs. Wait, 3 dogs.", 1.0),
        ("How many dogs are there?", "4 rooms with 2 dogs each, so 3 dogs", 1.0),
        ("How many dogs are there?", "There are no dogs, only 3 cats.", 0.0),
        ("How many dogs are there?", "There are 3 cats but no black dogs.", 0.0),
        ("How many dogs are there?", "I don't see any dogs, but 3 cats.", 0.0),
        ("How many dogs are there?", "There are no dogs on the left, and 3 on the right.", 1.0),
        ("How many are there?", "No doubt there are 3 dogs.", 1.0),
    ],
)
def test_the_noun_of_the_question_picks_a_number(question: str, response: str, value: float) -> None:
    asked = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
    assert count(response, 3, asked).value == value
    assert count(response, 3, [{"role": "user", "content": question}]).value == value


def test_no_dogs_are_none_where_dogs_are_asked_for() -> None:
    asked = [{"role": "user", "content": "How many dogs are there?"}]
    for response in ("There are no dogs, only 3 cats.", "3 cats, no dogs", "There aren't any dogs. There are 3 cats."):
        assert count(response, 0, asked).value == 1.0


@pytest.mark.parametrize(
    "response", ["There is a single cat.", "A single cat in the picture", "I see only a single dog"]
)
def test_a_single_one_is_one(response: str) -> None:
    for gold in (0, 1, 2):
        assert count(response, gold).value == float(gold == 1)


@pytest.mark.parametrize(
    ("response", "value"),
    [
        ("None", 1.0),
        ("There aren't any cats.", 1.0),
        ("There is not a single cat in the picture.", 1.0),
        ("None of them are red.", 1.0),
        ("I don't know any cats.", 0.0),
        ("None of the above.", 0.0),
        ("There isn't any information.", 0.0),
        ("There are none.", 1.0),
        ("In this picture, there are no cats.", 1.0),
        ("There are no black cats in the picture", 1.0),
        ("No birds.", 1.0),
        ("There is no cat in the image.", 1.0),
        ("The image contains no birds.", 1.0),
        ("I do not see any cats.", 1.0),
        ("The answer is none.", 1.0),
        ("I have no idea.", 0.0),
        ("There are no ways of knowing.", 0.0),
        ("There is no answer", 0.0),
        ("I see none, or 3", 0.0),
        ("no", 0.0),
    ],
)
def test_none_is_zero(response: str, value: float) -> None:
    assert count(response, 0).value == value
    assert count(response, 3).value == float("3" in response)


@pytest.mark.parametrize(
    "response",
    [
        "", "a few", "3 cats: 4", "3 (or 4)", "3: 1, 1", "4 in 3", "from 3 to 5", "4 of 3",
        "<think>3", "<think>3</think>", "3/4", "-3", "3.5", "13", "2 to 3", "3-4", "1, 2, 3",
        "0 1 2 3 4 5", "x3",
        "Either three or 4", "two, three, or four", "a total of 2 or 3", "thirty", "threesome", "٣ or ٤", "9" * 10**6,
        "third",
        "<|image_pad|>", "How many are there? Not 2.", "3 billion and 4",
        "There are 4, not 3.", "not 3", "fewer than 3", "three thousand",
        "4 in total or 3 in total", "4 in total, 3 in total", "three plus one", "3 minus one", "minus 3",
        '{"count": 3, "answer": 4}', '{"count": 2} or {"count": 3}', "1, 2, 3, 4, 3", "2, 3. 3 or 4",
        "negative three", r"\sqrt{3}", "two plus three", "3.5k", "3 million", "3k", "three dozen",
    ],
)  # fmt: skip
def test_what_is_no_count_of_three(response: str) -> None:
    assert count(response, 3).value == 0.0


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("one of them", "one of them"),
        ("this one", "this one"),
        ("There is one cat", "There is 1 cat"),
        ("one", "1"),
        ("exactly one.", "exactly 1."),
        ("no one", "no one"),
        ("a hundred and five", "105"),
        ("two hundred", "200"),
        ("Nine Hundred And Ninety-Nine", "999"),
        ("twenty one cats", "21 cats"),
        ("a three-legged chair", "a three-legged chair"),
        ("often", "often"),
        ("someone", "someone"),
        ("twenty-one-year-old", "twenty-one-year-old"),
        ("four's", "four's"),
        ("minus four", "-4"),
        ("2.5 million", "2500000.0"),
        ("an AK", "an AK"),
    ],
)
def test_words_that_are_numbers_and_words_that_are_not(text: str, digits: str) -> None:
    assert numbers_for_words(text) == digits


@pytest.mark.parametrize(
    ("gold", "good"),
    [
        (0, True), (43, True), (43.0, True), ("43", True), ("43.0", True), ("forty-three", True), ("43 apples", True),
        (-1, False), ("-1", False), (43.5, False), ("43.5", False), (True, False), (None, False), ("", False),
        ("many", False),
        ("3 or 4", False), ([3], False), ({"count": 3}, False), (math.nan, False), (math.inf, False),
        ("9" * 5000, False), (b"3", False),
    ],
)  # fmt: skip
def test_a_gold_is_a_whole_number_that_is_not_negative(gold: Any, good: bool) -> None:
    for response in ("43", "", "no idea"):
        verdict = count(response, gold)
        assert (verdict.status != "bad_gold") == good
        assert (verdict.value is not None) == good


@pytest.mark.parametrize(
    ("found", "gold", "falloff", "value"),
    [
        (10, 10, 0.2, 1.0), (9, 10, 0.2, 0.5), (11, 10, 0.2, 0.5), (8, 10, 0.2, 0.0), (0, 10, 1.0, 0.0),
        (5, 10, 1.0, 0.5), (1, 0, 1.0, 0.0), (0, 0, 1.0, 1.0), (9, 10, 0.0, 0.0), (10**300, 10, 1.0, 0.0),
    ],
)  # fmt: skip
def test_a_falloff_gives_a_near_count_its_part(found: int, gold: int, falloff: float, value: float) -> None:
    assert count(str(found), gold, falloff=falloff).value == pytest.approx(value)


def test_a_gold_of_more_digits_than_python_prints_is_none() -> None:
    assert count("3", HUGE).status == "bad_gold"


def test_options_are_checked() -> None:
    for options in ({"falloff": 1.5}, {"falloff": math.nan}, {"tolerance": 1}):
        with pytest.raises(ValidationError):
            check_options(count, options)


PIECES = [
    "3",
    "three",
    " or ",
    "answer is ",
    "total of ",
    r"\boxed{",
    "}",
    "<think>",
    "</think>",
    ".5",
    "-",
    "one",
    "hundred",
    "\n",
]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(max_size=60))
def test_any_response_gets_a_verdict(response: str) -> None:
    verdict = count(response, 3, falloff=0.5)
    assert verdict.value is not None
    assert 0 <= verdict.value <= 1
    assert verdict.status in ("ok", "no_answer")


@pytest.mark.parametrize(
    "pump",
    [
        "9",
        "three ",
        "one ",
        "twenty-",
        "two hundred and ",
        "total ",
        "total of 3 ",
        " ",
        "[",
        "，",
        "3 cats: ",
        "a in 1 ",
        "there are no ",
        "cat ",
        "{",
        "3 of them. ",
        "not any ",
    ],
)
@pytest.mark.timeout(60)
def test_a_megabyte_gets_a_verdict(pump: str) -> None:
    assert count(pump * ((1 << 20) // len(pump)), 3).value is not None


@pytest.mark.timeout(10)
def test_a_megabyte_of_numbers_is_read_within_the_deadline():
    assert count("The answer is " + "-1:-1" * 209_715, 43).value == 0.0
