"""Time spans: every way of writing one, and how they are scored."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morl.registry import ValidationError, check_options
from morl.rewards.checks import check_examples
from morl.rewards.parsing.geometry import Segment, segment_iou
from morl.rewards.pool.runner import Runner
from morl.rewards.verifiers.temporal import gold_segments, seconds, temporal
from morl.traits import traits_of

spans = st.builds(lambda start, length: (start / 4, (start + length) / 4), st.integers(0, 20_000), st.integers(1, 2000))
lists = st.lists(spans, min_size=1, max_size=5)


def clock(time: float) -> str:
    return f"{int(time // 60):02d}:{time % 60:05.2f}"


def hours(time: float) -> str:
    return f"{int(time // 3600):02d}:{int(time % 3600 // 60):02d}:{time % 60:06.3f}"


def test_examples_hold(runner: Runner) -> None:
    assert check_examples("temporal", runner) == []


@settings(max_examples=200, deadline=None)
@given(spans, spans)
def test_one_span_scores_its_overlap(gold: Segment, found: Segment) -> None:
    expected = pytest.approx(segment_iou(gold, found))
    start, end = found
    for response in (
        f"[{start}, {end}]",
        f"from {start} to {end} s",
        f"{start} - {end} seconds",
        f"[{clock(start)}, {clock(end)}]",
        f"{hours(start)} --> {hours(end)}",
        f"\\boxed{{{clock(start)} - {clock(end)}}}",
        json.dumps({"start": start, "end": end}),
        json.dumps([{"start_time": clock(start), "end_time": hours(end)}]),
    ):
        assert temporal(response, gold).value == expected, response
        assert temporal(response, [clock(gold[0]), hours(gold[1])]).value == expected, response


@settings(max_examples=200, deadline=None)
@given(lists, lists, st.floats(0, 1), st.booleans(), st.randoms(use_true_random=False), st.integers(1, 9))
def test_neither_order_nor_scale_matter(
    golds: list[Segment], found: list[Segment], threshold: float, hit: bool, shuffler: random.Random, scale: int
) -> None:
    def value(answer: list[Any], gold: list[Any]) -> float:
        told = temporal(json.dumps({"spans": answer}), gold, threshold=threshold, hit=hit).value
        assert told is not None
        assert 0 <= told <= 1
        return told

    before = value(found, golds)
    assert value(shuffler.sample(found, len(found)), shuffler.sample(golds, len(golds))) == pytest.approx(before)
    assert value([[scale * t for t in span] for span in found], [[scale * t for t in span] for span in golds]) == before
    for wrong in ([90_000, 90_001], [5, 5], [7, 3], [-1, 3], [math.nan, 3], ["a", "b"]):
        assert value([*found, wrong], golds) <= before


@settings(max_examples=100, deadline=None)
@given(lists)
def test_a_gold_written_as_an_answer_scores_1(golds: list[Segment]) -> None:
    write = traits_of(temporal).answer
    assert write is not None
    for gold in (golds, golds[0], {"start": golds[0][0], "end": golds[0][1]}):
        assert temporal(write(gold), gold).value == pytest.approx(1)


@pytest.mark.parametrize(
    "response",
    [
        "[00:10, 00:20]",
        "from 10 to 20",
        "10s - 20s",
        "10-20",
        "10, 20",
        "(10, 20)",
        "[10.0 20.0]",
        "[[10, 20]]",
        "[10s, 20s]",
        "[0:10 - 0:20]",
        "[00:10] - [00:20]",
        '["00:10", "00:20"]',
        "<00:10> to <00:20>",
        "between 10 and 20 seconds",
        "It starts at 10 seconds and ends at 20 seconds.",
        "Start: 00:10, End: 00:20",
        "start time: 10s, end time: 20s",
        "It begins at 0:10, and it finishes at 0:20.",
        "00:00:10 --> 00:00:20",
        "00:00:10,000 --> 00:00:20,000",
        "10 and 20",
        "00:10–00:20",
        "10 ~ 20s",
        "10 sec. to 20 sec.",
        "from second 10 to second 20",
        "from 00:10 until 00:20",
        "10秒到20秒",
        "１０ - ２０ 秒",
        "**00:10 - 00:20**",
        "The answer is 10 to 20.",
        "The answer is from 10 s to 20 s, not from 1 to 2 s.",
        "<answer>10 to 20</answer>",
        r"\boxed{[10, 20]}",
        r"\boxed{10 \text{ s to } 20 \text{ s}}",
        '{"start": 10, "end": 20}',
        '{"from": "10 s", "to": "20 s"}',
        '{"timestamps": "00:10-00:20"}',
        '{"segment": [10, 20], "why": "a man at 3 s"}',
        '```json\n[{"start": 10.0, "end": 20.0}]\n```',
        "<think>[1, 2]</think>[10, 20]",
        "[00:30, 00:40] no wait, [00:10, 00:20]",
        "In the video of 0:00 to 5:00, so from 0:10 to 0:20.",
        "00:10 - 00:20: The man jumps",
        "It happens between seconds 10 and 20.",
        "from the 10s mark to the 20s mark",
        "between the 10-second and 20-second marks",
        "from the 10-second mark to the 20-second mark",
        "a 10-second clip from 10 to 20 s",
        r"$\boxed{[00:10,\ 00:20]}$",
        r"\boxed{[00\!:\!10,\,00\!:\!20]}",
        '{"startTime": 10, "endTime": 20}',
        '{"clip_start": 10, "clip_end": 20}',
        '{"Start": "0:10", "End": "0:20", "start_frame": 3, "end_frame": 9}',
        "about 10s to about 20s",
        "`00:10` - `00:20`",
        "The event begins at 10 s and continues to 20 s",
        "第10秒到第20秒",
        "10 -20",
        "[10, 20], not [30, 40]",
        "The event is at 10-20 s. It is not at 30-40 s.",
        "between 10 and 20 s, not between 30 and 40 s",
        "not from 30 to 40 s but from 10 to 20 s",
        "from the 10th to the 20th second",
        "0:10s - 0:20s",
        '{"begin_time":10,"end_time":20}',
        '{"t_start":10,"t_end":20}',
        "<10.0> <20.0>",
    ],
)
def test_a_span_is_read_in_every_style(response: str) -> None:
    assert temporal(response, [10, 20]).value == 1.0


@pytest.mark.parametrize(
    ("response", "gold"),
    [
        ("1 min 5 s to 2 min", [65, 120]),
        ("1m5s - 2m", [65, 120]),
        ("from 1 to 2 minutes", [60, 120]),
        ("1.5 min to 2 min", [90, 120]),
        ("from 1 h 1 min to 1 h 2 min 3 s", [3660, 3723]),
        ("[1:01:00, 1:02:03.5]", [3660, 3723.5]),
        ("[75:00, 76:30]", [4500, 4590]),
        ("1分5秒到2分钟", [65, 120]),
        ("from 1 min and 10 s to 1 min and 20 s", [70, 80]),
        ("1 minute 10 seconds to 1 minute and 20 seconds", [70, 80]),
        ("between 1 min and 10 s and 1 min and 20 s", [70, 80]),
        ("between 1 min and 90 s", [60, 90]),
        ("from 1 hour and 1 minute to 1 hour and 2 minutes", [3660, 3720]),
    ],
)
def test_units_are_seconds_in_the_end(response: str, gold: list[float]) -> None:
    assert temporal(response, gold).value == pytest.approx(1)


@pytest.mark.parametrize(
    ("response", "most"),
    [
        ("[20, 10]", 0.0),
        ("[10, 10]", 0.0),
        ("from -10 to 20", 0.0),
        ("-10 to 20", 0.0),
        ("10 - 20 - 30", 0.0),
        ("[-10, 20]", 0.0),
        ("[NaN, 20]", 0.0),
        ('{"start": NaN, "end": 20}', 0.0),
        ('{"start": 10, "end": 1e999}', 0.0),
        ('{"start": true, "end": 20}', 0.0),
        ('{"start": 10}', 0.0),
        ('{"segment": [10, 20, 30]}', 0.0),
        ("[10, " + "9" * 5000 + "]", 0.0),
        ("[0:75, 0:80]", 0.0),
        ("[10, 20, 30]", 0.0),
        ("10", 0.0),
        ("There are 10 men and 20 women.", 0.0),
        ("[30, 40], not [10, 20]", 0.0),
        ("not [10, 20]", 0.0),
        ("It is not at 10-20 s.", 0.0),
        ("from the 10th to the 20th frame", 0.0),
        ("", 0.0),
        ("<think>[10, 20]", 0.0),
        ("<think>[10, 20]</think>", 0.0),
        ("<think>[10, 20]</think>[30, 40]", 0.0),
        ("[0, 99999]", 0.001),
        ("[10, 20] or [30, 40]", 0.5),
        ("[10, 20], [10, 20]", 0.5),
        ("[10, 20], [20, 10]", 0.5),
        (r"\boxed{[10, 20]} \boxed{[30, 40]}", 0.5),
        (" ".join(f"[{start}, {start + 10}]," for start in range(0, 600, 10)), 1 / 60),
    ],
)
def test_no_cheap_answer_pays(response: str, most: float) -> None:
    verdict = temporal(response, [10, 20])
    assert verdict.value is not None
    assert verdict.value <= most + 1e-9
    assert verdict.detail


@pytest.mark.parametrize(
    "gold",
    [
        [10, 20], (10, 20), ["00:10", "00:20"], ["10 s", 20], "[10, 20]", "00:10 - 00:20", "10, 20",
        "from 10 s to 20 s",
        [[10, 20]], {"start": 10, "end": 20}, [{"start": "0:10", "end": "0:20"}], '{"start": 10, "end": 20}',
        {"span": [10, 20]}, ["00:10 - 00:20"],
    ],
)  # fmt: skip
def test_a_gold_may_be_written_in_any_of_these_ways(gold: Any) -> None:
    assert gold_segments(gold) == [(10.0, 20.0)]


def test_a_gold_may_be_several_spans() -> None:
    expected = [(10.0, 20.0), (30.0, 40.0), (50.0, 60.0)]
    assert gold_segments([[10, 20], [30, 40], [50, 60]]) == expected
    assert gold_segments(["0:10 - 0:20", "0:30 - 0:40", "0:50 - 1:00"]) == expected
    assert gold_segments("[10, 20], [30, 40], [50, 60]") == expected


BAD_GOLDS: list[Any] = [
    None, "", "later", True, 7, [], "[]", {}, [10], [10, 20, 30], [20, 10], [10, 10], "[10, 10]", [-1, 5], [True, 20],
    [math.nan, 20], [0, math.inf], [0, 1e9], [[10, 20], [5, 5]], [[10, 20], None], {"start": 10}, ["a", "b"], [None,
    3], b"",
    {"span": [[1, 2], [3, 4]]}, [[i, i + 1] for i in range(1001)],
]  # fmt: skip


@pytest.mark.parametrize("gold", BAD_GOLDS, ids=range(len(BAD_GOLDS)))
def test_a_gold_that_is_no_span_is_an_error_of_the_data(gold: Any) -> None:
    for response in ("[10, 20]", ""):
        verdict = temporal(response, gold)
        assert (verdict.value, verdict.status) == (None, "bad_gold")
        assert verdict.detail


def test_a_threshold_cuts_and_a_hit_fills() -> None:
    for response, threshold, hit, value in (
        ("[10, 30]", 0.5, False, 0.5),
        ("[10, 30]", 0.51, False, 0.0),
        ("[10, 30]", 0.5, True, 1.0),
        ("[10, 30]", 0.51, True, 0.0),
        ("[19, 30]", 0.0, True, 1.0),
        ("[20, 30]", 0.0, True, 0.0),
    ):
        assert temporal(response, [10, 20], threshold=threshold, hit=hit).value == value
        pair = f"{response}, {response}"
        assert temporal(pair, [[10, 20], [10, 20]], threshold=threshold, hit=hit).value == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("3.5", 3.5), (3, 3.0), ("1:05", 65.0), ("01:00:01.5", 3601.5), ("1h", 3600.0), ("2 min 3 s", 123.0), ("1:60",
    None),
     ("1:2:3", None), ("", None), ("soon", None), (None, None), (True, None), ("-3", -3.0), ("1e999", None),
     ("9" * 500, None), ("01:00:01,500", 3601.5), ("01:05,500", None)],
)  # fmt: skip
def test_seconds(text: Any, value: float | None) -> None:
    assert seconds(text) == value


PIECES = [
    "[10, 20]",
    "00:10",
    " to ",
    "10",
    "s",
    "[",
    "]",
    '{"start": 1, "end": 2}',
    " or ",
    "<think>",
    "</think>",
    ":",
    "-",
]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), st.sampled_from([[10, 20], [[1, 2], [3, 4]]]))
def test_any_response_gets_a_verdict(response: str, gold: Any) -> None:
    verdict = temporal(response, gold)
    assert verdict.value is not None
    assert 0 <= verdict.value <= 1
    assert verdict.status in ("ok", "no_answer")


PUMPS = ["9", "1:", "10:10", "10:10 ", "1 to ", "1 h ", "1 s ", "start ", "start 1 end ", "[1, ", "[ ", "[1, 2]",
"between 1 and ", "- ", "1 min and ", "10th to the ", "9th ",
         ".5 ", "10-second ", r"\ ", " mark",
         '{"start":', '{"start": 1, "end": 2}', r"\text{", r"\text{a}", '"', "1 - "]  # fmt: skip


@pytest.mark.parametrize("pump", PUMPS, ids=range(len(PUMPS)))
@pytest.mark.timeout(60)
def test_a_megabyte_gets_a_verdict(pump: str) -> None:
    text = pump * ((1 << 20) // len(pump))
    for response in (text, rf"\boxed{{{text}}}", f"answer is {text}"):
        assert temporal(response, [10, 20]).value is not None
    assert temporal(text, [[1, 2], [3, 4]]).value is not None


def test_options_are_checked() -> None:
    for options in ({"threshold": 2}, {"metric": "iou"}):
        with pytest.raises(ValidationError):
            check_options(temporal, options)
