"""Time spans: every way of writing one, and how they are scored."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morl.rewards.decorator import traits_of
from morl.rewards.geometry import Segment, segment_iou
from morl.rewards.temporal import temporal

spans = st.builds(lambda start, length: (start / 4, (start + length) / 4), st.integers(0, 20_000), st.integers(1, 2000))
lists = st.lists(spans, min_size=1, max_size=5)


def clock(time: float) -> str:
    return f"{int(time // 60):02d}:{time % 60:05.2f}"


def hours(time: float) -> str:
    return f"{int(time // 3600):02d}:{int(time % 3600 // 60):02d}:{time % 60:06.3f}"


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
