"""Length and loops: each value falls as it is defined, and what people write is left alone."""

from __future__ import annotations

import inspect
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morl.registry import REWARDS
from morl.rewards.parsing.text_metrics import f1
from morl.rewards.verifiers.length import length
from morl.rewards.verifiers.overlong import overlong
from morl.rewards.verifiers.repetition import repeats, repetition
from morl.types import Sample

# Whatever a policy may write: the pieces that verifiers look for, in any order.


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 20), st.integers(0, 100))
def test_length_falls_in_a_straight_line(minimum: int, room: int, margin: int, count: int) -> None:
    sample = Sample("p", 0, (1,) * count, (1,) * count, (0.0,) * count, 0, "stop", "x" * count)
    maximum = minimum + room
    value = length(sample.text, sample, minimum=minimum, maximum=maximum, margin=margin).value
    beyond = max(minimum - count, count - maximum, 0)
    expected = 1.0 if beyond == 0 else max(0.0, 1 - beyond / margin) if margin else 0.0
    assert value == pytest.approx(expected)
    assert length(sample.text, None, unit="characters", minimum=minimum, maximum=maximum, margin=margin).value == value


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


def naive(units: list[str], n: int) -> tuple[int, int, int]:
    grams = [tuple(units[i : i + n]) for i in range(len(units) - n + 1)]
    again = [gram in grams[:i] for i, gram in enumerate(grams)]
    runs = "".join("x" if one else " " for one in again).split()
    return sum(again), len(grams), max(map(len, runs), default=0)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from("abc"), max_size=40), st.integers(1, 5))
def test_repeats_are_counted_as_a_direct_count_does(units: list[str], n: int) -> None:
    assert repeats(units, n) == naive(units, n)


words = [f"word{index}" for index in range(5000)]
random.Random(0).shuffle(words)
PROSE = " ".join(words[:400])


@pytest.mark.parametrize(
    "text",
    [
        PROSE,
        *(inspect.getsource(inspect.getmodule(function)) for function in (repetition, f1, REWARDS.load("exact"))),
        "".join(f"- item {i}: costs {i * 3} dollars per unit\n" for i in range(60)),
        "".join(f"Step {i}: Add {i} to the total to get {i + 5}.\n" for i in range(30)),
        "| a | b |\n|---|---|\n" + "".join(f"| {i} | {i * i} |\n" for i in range(60)),
        ("-" * 80 + "\nPart\n").join(PROSE.split("7")),
        f"<think>{PROSE}</think>{PROSE}",
    ],
    ids=range(9),
)
def test_what_people_write_is_not_punished(text: str) -> None:
    assert repetition(text).value == 1.0


@pytest.mark.parametrize(
    "loop",
    [
        "so ",
        "I am not sure. ",
        "Wait, let me check that again.\n",
        "9",
        "ha",
        "中",
        "今天天气很好。",
        "! ? ",
        "!",
        "😂",
        "\n\n- item\n",
        "| 0 | 0 |\n",
        "x = x + 1\n",
        "ok\u200b ",
    ],
)
def test_loops_are_punished_whatever_stands_before_them(loop: str) -> None:
    many = loop * 2000
    assert repetition(many).value < 0.1
    assert repetition(f"{PROSE}\n{many}").value < 0.3
    assert repetition(f"<think>{PROSE}\n{many}</think>Yes.").value < 0.3
    assert repetition(f"<think>{many}").value < 0.1
    assert repetition(f"{many} and that is all").value < 0.1


def test_a_paragraph_written_twice_costs_by_its_length() -> None:
    values = [
        repetition(" ".join(words[:length]) * 2 + " " + " ".join(words[1000:4000])).value for length in (50, 150, 400)
    ]
    assert values[0] == 1.0
    assert values[0] > values[1] > values[2]


def test_more_of_a_loop_is_never_better() -> None:
    values = [repetition(f"{PROSE} {'and so on ' * count}").value for count in (0, 20, 50, 100, 200, 1000)]
    assert values == sorted(values, reverse=True)
    assert values[0] == 1.0
    assert values[-1] < 0.05


def test_capitals_and_marks_do_not_hide_a_loop() -> None:
    disguised = "".join(f"{'So' if i % 2 else 'so'}{'.,;:!?'[i % 6]} " for i in range(2000))
    assert repetition(disguised).value < 0.1


def test_options() -> None:
    text = "".join(f"Row {i} of the table is here. " for i in range(200))
    assert repetition(text, allowed=0.0).value < repetition(text).value <= repetition(text, n=8).value == 1.0
    assert repetition(f"{PROSE}\n{'so ' * 200}", maximum_run=1000).value > repetition(f"{PROSE}\n{'so ' * 200}").value
    assert repetition(f"<think>{'so ' * 2000}</think>Yes.", part="answer").value == 1.0
    assert repetition("<think>so", part="answer").status == "no_answer"
