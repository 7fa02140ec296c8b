"""Boxes against boxes: what scores, what does not, and that no cheap answer pays."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morl.rewards import Verdict
from morl.rewards.box import Metric, box, gold_boxes
from morl.rewards.geometry import Box, giou, iou

METRICS: list[Metric] = ["iou", "giou", "giou_shifted"]
PICTURE = {"size": [640, 480]}
whole = st.integers(0, 600)
sides = st.integers(1, 300)
boxes = st.builds(lambda x, y, w, h: (float(x), float(y), float(x + w), float(y + h)), whole, whole, sides, sides)
lists = st.lists(boxes, min_size=1, max_size=5)


def score(response: str, gold: Any, meta: dict[str, Any] | None = None, **options: Any) -> Verdict:
    return box(response, gold, (), meta or {}, **options)


def told(found: list[Any]) -> str:
    return json.dumps([{"bbox_2d": item} for item in found])


@settings(max_examples=200, deadline=None)
@given(boxes, boxes)
def test_one_box_scores_its_metric(gold: Box, found: Box) -> None:
    assert score(told([found]), gold, metric="iou").value == pytest.approx(iou(gold, found))
    assert score(told([found]), gold).value == pytest.approx(max(0, giou(gold, found)))
    assert score(told([found]), [gold], metric="giou_shifted").value == pytest.approx((1 + giou(gold, found)) / 2)
    for metric in METRICS:
        assert score(told([gold]), gold, metric=metric).value == pytest.approx(1)


@settings(max_examples=200, deadline=None)
@given(lists, lists, st.sampled_from(METRICS), st.floats(0, 1), st.booleans(), st.randoms(use_true_random=False))
def test_no_order_matters(
    golds: list[Box], found: list[Box], metric: Metric, threshold: float, hit: bool, shuffler: random.Random
) -> None:
    options = {"metric": metric, "threshold": threshold, "hit": hit}
    value = score(told(found), golds, **options).value
    assert value is not None
    assert 0 <= value <= 1
    shuffled = shuffler.sample(golds, len(golds)), shuffler.sample(found, len(found))
    assert score(told(shuffled[1]), shuffled[0], **options).value == pytest.approx(value)


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
        score(told(found), golds, metric=metric).value,
        score(told([*found, more]), golds, metric=metric).value,
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

    assert score(told(moved(found)), moved(golds)).value == pytest.approx(score(told(found), golds).value)


@settings(max_examples=200, deadline=None)
@given(boxes, boxes, st.sampled_from(METRICS), st.floats(0.01, 1))
def test_a_threshold_cuts_and_a_hit_fills(gold: Box, found: Box, metric: Metric, threshold: float) -> None:
    plain = score(told([found]), gold, metric=metric).value
    assert plain is not None
    assert score(told([found]), gold, metric=metric, threshold=threshold).value == (plain if plain >= threshold else 0)
    assert score(told([found]), gold, metric=metric, threshold=threshold, hit=True).value == float(plain >= threshold)
    # The matrix of many pairs is scored as one pair is.
    many = score(told([found, found]), [gold, gold], metric=metric, threshold=threshold, hit=True).value
    assert many == float(plain >= threshold) or abs(plain - threshold) < 1e-9


@settings(max_examples=100, deadline=None)
@given(boxes, boxes)
def test_the_frame_of_an_answer_does_not_change_its_score(gold: Box, found: Box) -> None:
    expected = score(told([found]), gold, metric="iou").value
    thousandths = [found[0] / 0.64, found[1] / 0.48, found[2] / 0.64, found[3] / 0.48]
    value = score(told([thousandths]), gold, PICTURE, size_from="size", frame="relative_1000", metric="iou").value
    assert value == pytest.approx(expected)


def test_a_gold_may_be_an_array() -> None:
    import numpy as np

    assert gold_boxes(np.array([[1, 2, 3, 4], [5, 6, 7, 8]]))[1].box == (5, 6, 7, 8)
    assert gold_boxes(np.array([1, 2, 2, 2]), "xywh")[0].box == (1, 2, 3, 4)


@pytest.mark.timeout(60)
def test_many_boxes_are_scored_fast() -> None:
    drawn = random.Random(0)
    places = [[x := drawn.randint(0, 600), y := drawn.randint(0, 400), x + 40, y + 40] for _ in range(10_000)]
    assert score(told(places), places[0], metric="iou").value == pytest.approx(1 / 10_000)
    assert score(told(places), places[:50], metric="iou").value == pytest.approx(50 / 10_000)
    assert score(told(places[:300]), places[:300]).value == pytest.approx(1)
    too_many = score(told(places), places[:900])
    assert too_many.value == 0.0
    assert "too many" in too_many.detail
    assert score(told(places), places).status == "bad_gold"


FRAMES = ("absolute", "absolute_resized", "relative_1000", "relative_1")


@pytest.mark.parametrize("gold", [[10, 20, 110, 220], [[10, 20, 30, 40], [50, 60, 70, 80]], []])
@pytest.mark.parametrize("gold_format", ["xyxy", "xywh"])
@pytest.mark.parametrize("frame", FRAMES)
def test_a_gold_is_written_in_the_frame_of_the_answer(gold, gold_format, frame):
    from morl.rewards.checks import written_gold
    from morl.rewards.decorator import traits_of

    row = {"media": (), "meta": {"size": [640, 480]}}
    options = {"frame": frame, "gold_format": gold_format, "size_from": "size"}
    response = written_gold(traits_of(box).answer, {"gold": gold, **row}, options)
    assert box(response, gold, **row, **options).value == pytest.approx(1.0)
