"""Boxes, points and spans of time: indifferent to order, scale and place, and no cheap answer pays."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morl.registry import REWARDS
from morl.rewards.checks import written_gold
from morl.rewards.parsing.geometry import Box, Segment, giou, iou, segment_iou
from morl.rewards.parsing.gold_boxes import gold_boxes
from morl.rewards.reward import Verdict
from morl.rewards.reward_input import RewardInput
from morl.rewards.verifiers.box import Metric, box
from morl.rewards.verifiers.point import point
from morl.rewards.verifiers.temporal import temporal
from morl.traits import traits_of

METRICS: list[Metric] = ["iou", "giou", "giou_shifted"]
IMAGE = {"size": [640, 480]}
whole = st.integers(0, 600)
sides = st.integers(1, 300)
boxes = st.builds(lambda x, y, w, h: (float(x), float(y), float(x + w), float(y + h)), whole, whole, sides, sides)
lists = st.lists(boxes, min_size=1, max_size=5)


def of_boxes(response: str, gold: Any, meta: dict[str, Any] | None = None, **options: Any) -> Verdict:
    return box(response, gold, (), meta or {}, **options)


def told(found: list[Any]) -> str:
    return json.dumps([{"bbox_2d": item} for item in found])


@settings(max_examples=200, deadline=None)
@given(boxes, boxes)
def test_one_box_scores_its_metric(gold: Box, found: Box) -> None:
    assert of_boxes(told([found]), gold, metric="iou").value == pytest.approx(iou(gold, found))
    assert of_boxes(told([found]), gold).value == pytest.approx(max(0, giou(gold, found)))
    assert of_boxes(told([found]), [gold], metric="giou_shifted").value == pytest.approx((1 + giou(gold, found)) / 2)
    for metric in METRICS:
        assert of_boxes(told([gold]), gold, metric=metric).value == pytest.approx(1)


@settings(max_examples=200, deadline=None)
@given(lists, lists, st.sampled_from(METRICS), st.floats(0, 1), st.booleans(), st.randoms(use_true_random=False))
def test_the_order_of_boxes_does_not_matter(
    golds: list[Box], found: list[Box], metric: Metric, threshold: float, hit: bool, shuffler: random.Random
) -> None:
    options = {"metric": metric, "threshold": threshold, "hit": hit}
    value = of_boxes(told(found), golds, **options).value
    assert value is not None
    assert 0 <= value <= 1
    shuffled = shuffler.sample(golds, len(golds)), shuffler.sample(found, len(found))
    assert of_boxes(told(shuffled[1]), shuffled[0], **options).value == pytest.approx(value)


@settings(max_examples=200, deadline=None)
@given(lists, lists, st.sampled_from(["iou", "giou"]), st.sampled_from(["wrong", "repeated", "flat", "swapped", "nan"]))
def test_a_wrong_box_more_never_helps(golds: list[Box], found: list[Box], metric: Metric, wrong: str) -> None:
    x1, y1, x2, y2 = found[0]
    more: Any = {
        "wrong": [9000, 9000, 9001, 9001],
        "repeated": [x1, y1, x2, y2],
        "flat": [x1, y1, x1, y2],
        "swapped": [x2, y2, x1, y1],
        "nan": [x1, y1, math.nan, y2],
    }[wrong]
    if wrong == "repeated":
        golds = golds[:1]  # of several, it may be another one's
    before, after = (
        of_boxes(told(found), golds, metric=metric).value,
        of_boxes(told([*found, more]), golds, metric=metric).value,
    )
    assert before is not None
    assert after is not None
    assert after <= before + 1e-9
    if len(found) >= len(golds) and before:
        assert after < before


@settings(max_examples=200, deadline=None)
@given(lists, lists, st.integers(1, 9), st.integers(0, 500))
def test_scale_and_place_of_all_boxes_do_not_matter(golds: list[Box], found: list[Box], scale: int, shift: int) -> None:
    def moved(items: list[Box]) -> list[Any]:
        return [[scale * value + shift for value in item] for item in items]

    assert of_boxes(told(moved(found)), moved(golds)).value == pytest.approx(of_boxes(told(found), golds).value)


@settings(max_examples=200, deadline=None)
@given(boxes, boxes, st.sampled_from(METRICS), st.floats(0.01, 1))
def test_a_threshold_cuts_and_a_hit_fills(gold: Box, found: Box, metric: Metric, threshold: float) -> None:
    plain = of_boxes(told([found]), gold, metric=metric).value
    assert plain is not None
    response, options = told([found]), {"metric": metric, "threshold": threshold}
    assert of_boxes(response, gold, **options).value == (plain if plain >= threshold else 0)
    assert of_boxes(response, gold, **options, hit=True).value == float(plain >= threshold)
    # The matrix of many pairs is scored as one pair is.
    many = of_boxes(told([found, found]), [gold, gold], metric=metric, threshold=threshold, hit=True).value
    assert many == float(plain >= threshold) or abs(plain - threshold) < 1e-9


@settings(max_examples=100, deadline=None)
@given(boxes, boxes)
def test_the_frame_of_an_answer_does_not_change_its_score(gold: Box, found: Box) -> None:
    expected = of_boxes(told([found]), gold, metric="iou").value
    thousandths = [found[0] / 0.64, found[1] / 0.48, found[2] / 0.64, found[3] / 0.48]
    value = of_boxes(told([thousandths]), gold, IMAGE, size_from="size", frame="relative_1000", metric="iou").value
    assert value == pytest.approx(expected)


def test_gold_boxes_may_be_an_array() -> None:
    import numpy as np

    assert gold_boxes(np.array([[1, 2, 3, 4], [5, 6, 7, 8]]))[1].box == (5, 6, 7, 8)
    assert gold_boxes(np.array([1, 2, 2, 2]), "xywh")[0].box == (1, 2, 3, 4)


@pytest.mark.timeout(60)
def test_many_boxes_are_scored_fast() -> None:
    drawn = random.Random(0)
    places = [[x := drawn.randint(0, 600), y := drawn.randint(0, 400), x + 40, y + 40] for _ in range(10_000)]
    assert of_boxes(told(places), places[0], metric="iou").value == pytest.approx(1 / 10_000)
    assert of_boxes(told(places), places[:50], metric="iou").value == pytest.approx(50 / 10_000)
    assert of_boxes(told(places[:300]), places[:300]).value == pytest.approx(1)
    too_many = of_boxes(told(places), places[:900])
    assert too_many.value == 0.0
    assert "too many" in too_many.detail
    assert of_boxes(told(places), places).status == "bad_gold"


GOLD = [10, 20, 30, 40]
coordinates = st.integers(-50, 100)
pairs = st.lists(st.tuples(coordinates, coordinates), min_size=2, max_size=5, unique=True)


def of_points(response: str, gold: Any, meta: dict[str, Any] | None = None, **options: Any) -> Verdict:
    return point(response, gold, (), meta or {}, **options)


@settings(max_examples=200, deadline=None)
@given(coordinates, coordinates)
def test_a_point_is_right_in_the_box_and_on_its_edge(x: int, y: int) -> None:
    right = float(10 <= x <= 30 and 20 <= y <= 40)
    for response in (f"({x}, {y})", f'{{"point_2d": [{x}, {y}]}}', f"<point>{x} {y}</point>", f"\\boxed{{[{x}, {y}]}}"):
        assert of_points(response, GOLD).value == right
        assert of_points(response, [[500, 500, 510, 510], GOLD]).value == right
        assert of_points(response, [10, 20, 20, 20], gold_format="xywh").value == right


@settings(max_examples=200, deadline=None)
@given(coordinates, coordinates, st.floats(0.1, 100))
def test_a_point_is_right_within_the_radius(x: int, y: int, radius: float) -> None:
    assert of_points(f"({x}, {y})", [20, 30], radius=radius).value == float(math.hypot(x - 20, y - 30) <= radius)


@settings(max_examples=200, deadline=None)
@given(pairs, pairs, st.randoms(use_true_random=False), st.integers(0, 300), st.integers(1, 9))
def test_order_scale_and_place_of_points_do_not_matter(
    golds: list[Any], found: list[Any], shuffler: random.Random, shift: int, scale: int
) -> None:
    value = of_points(json.dumps(found), golds, radius=20).value
    assert value is not None
    shuffled = shuffler.sample(golds, len(golds)), shuffler.sample(found, len(found))
    assert of_points(json.dumps(shuffled[1]), shuffled[0], radius=20).value == value

    def moved(items: list[Any]) -> list[Any]:
        return [[scale * x + shift, scale * y + shift] for x, y in items]

    assert of_points(json.dumps(moved(found)), moved(golds), radius=20 * scale).value == value
    wrong = of_points(json.dumps([*found, [9000, 9000]]), golds, radius=20).value
    assert wrong is not None
    assert wrong <= value


def test_a_grid_of_points_does_not_pay() -> None:
    grid = [[x, y] for x in range(0, 640, 8) for y in range(0, 480, 8)]
    golds = [[100, 100], [300, 300]]
    value = of_points(json.dumps(grid), golds, radius=6).value
    assert value is not None
    assert value < 0.01
    assert of_points(json.dumps(grid), GOLD).value == 0.0


@pytest.mark.timeout(60)
def test_many_points_are_scored_fast() -> None:
    many = [[x, x] for x in range(10_000)]
    assert of_points(json.dumps(many), many[:50], radius=0.5).value == pytest.approx(50 / 10_000)
    assert "too many" in of_points(json.dumps(many), many[:500], radius=0.5).detail
    assert of_points(json.dumps(many), many, radius=0.5).status == "bad_gold"


spans = st.builds(lambda start, length: (start / 4, (start + length) / 4), st.integers(0, 20_000), st.integers(1, 2000))
several_spans = st.lists(spans, min_size=1, max_size=5)


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
@given(
    several_spans, several_spans, st.floats(0, 1), st.booleans(), st.randoms(use_true_random=False), st.integers(1, 9)
)
def test_neither_order_nor_scale_of_spans_matter(
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
@given(several_spans)
def test_gold_spans_written_as_an_answer_score_1(golds: list[Segment]) -> None:
    write = traits_of(temporal).answer
    assert write is not None
    for gold in (golds, golds[0], {"start": golds[0][0], "end": golds[0][1]}):
        assert temporal(write(gold), gold).value == pytest.approx(1)


ONE, TWO = [10, 20, 110, 220], [[10, 20, 30, 40], [50, 60, 70, 80]]


@pytest.mark.parametrize(
    ("verifier", "gold"),
    [
        *(("box", gold) for gold in (ONE, TWO, [])),
        *(("point", gold) for gold in (ONE, TWO, [5, 6], [[5, 6], [90, 90]])),
    ],
)
@pytest.mark.parametrize("gold_format", ["xyxy", "xywh"])
@pytest.mark.parametrize("frame", ["absolute", "absolute_resized", "relative_1000", "relative_1"])
def test_a_gold_is_written_in_the_frame_of_the_answer(verifier: str, gold: Any, gold_format: str, frame: str) -> None:
    function = REWARDS.load(verifier)
    row: dict[str, Any] = {"media": (), "meta": {"size": [640, 480]}}
    options: dict[str, Any] = {"frame": frame, "gold_format": gold_format, "size_from": "size"}
    options |= {"radius": 1e-6} if verifier == "point" else {}
    write = traits_of(function).answer
    assert write is not None
    response = written_gold(write, RewardInput("", gold, **row), options)
    assert function(response, gold, **row, **options).value == pytest.approx(1.0)


@pytest.mark.parametrize("metric", ["iou", "giou"])
def test_boxes_all_over_the_image_pay_next_to_nothing(metric: Metric) -> None:
    everywhere = [[x, y, x + 60, y + 60] for x in range(0, 640, 10) for y in range(0, 480, 10)]
    value = of_boxes(told(everywhere), [200, 150, 260, 210], metric=metric).value
    assert value is not None
    assert value <= 1e-3


def test_spans_all_over_the_video_pay_next_to_nothing() -> None:
    everywhere = " ".join(f"[{start}, {start + 10}]," for start in range(0, 600, 10))
    assert temporal(everywhere, [10, 20]).value == pytest.approx(1 / 60)
