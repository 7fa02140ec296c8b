"""Boxes against boxes: what scores, what does not, and that no cheap answer pays."""

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
from morl.rewards.parsing.geometry import Box, giou, iou
from morl.rewards.parsing.gold_boxes import gold_boxes
from morl.rewards.pool.runner import Runner
from morl.rewards.reward import Verdict
from morl.rewards.verifiers.box import Metric, box

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


def test_examples_hold(runner: Runner) -> None:
    assert check_examples("box", runner) == []


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


def test_a_pair_below_the_threshold_gives_its_place_to_no_other() -> None:
    golds = [[0, 0, 10, 10], [5, 0, 15, 10]]
    assert score("[[0, 0, 10, 10], [100, 100, 110, 110]]", golds, metric="iou", threshold=0.5, hit=True).value == 0.5


@pytest.mark.parametrize("metric", ["iou", "giou"])
def test_no_cheap_answer_pays(metric: Metric) -> None:
    gold = [200, 150, 260, 210]
    part = 60 * 60 / (640 * 480)
    cheap = {
        "the whole picture": ("[0, 0, 640, 480]", part),
        "more than the picture": ("[-9000, -9000, 9000, 9000]", part / 100),
        "one pixel inside": ("[230, 180, 231, 181]", 1 / 3600),
        "many boxes": (told([[x, y, x + 60, y + 60] for x in range(0, 640, 10) for y in range(0, 480, 10)]), 1e-3),
        "the right box many times": (told([gold] * 100), 0.01),
        "the right box and the whole": (told([gold, [0, 0, 640, 480]]), 0.5),
        "the right box in the thinking": (f"<think>{gold}</think>", 0.0),
        "the right box in unfinished thinking": (f"<think>{gold}", 0.0),
        "four numbers of no box": ("There are 200 to 150 of them, 260 or 210.", 0.0),
        "the right numbers among others": ("[200, 150, 260, 210, 99, 98]", 0.0),
        "another order": ("[260, 210, 200, 150]", 0.0),
        "width and height": ("[200, 150, 60, 60]", 0.0),
        "no numbers": ('{"bbox_2d": ["x1", "y1", "x2", "y2"]}', 0.0),
        "a list": ("[]", 0.0),
    }
    for name, (response, most) in cheap.items():
        value = score(response, gold, metric=metric).value
        assert value is not None, name
        assert value <= most + 1e-9, name


@pytest.mark.parametrize(
    ("response", "gold", "options", "value"),
    [
        ("[100, 100, 500, 500]", [64, 48, 320, 240], {"frame": "relative_1000"}, 1.0),
        ("[0.1, 0.1, 0.5, 0.5]", [64, 48, 320, 240], {"frame": "relative_1"}, 1.0),
        ("[100, 100, 500, 500]", [0.1, 0.1, 0.5, 0.5], {"frame": "relative_1000", "gold_frame": "relative_1"}, 1.0),
        ("[64, 48, 320, 240]", [100, 100, 500, 500], {"gold_frame": "relative_1000"}, 1.0),
        ("[0, 0, 644, 476]", [0, 0, 640, 480], {"frame": "absolute_resized"}, 1.0),
        ("[0, 0, 640, 480]", [0, 0, 640, 480], {"frame": "absolute_resized"}, 476 * 640 / (644 * 480)),
        ("[0, 0, 364, 252]", [0, 0, 640, 480], {"frame": "absolute_resized", "max_pixels": 100_000}, 1.0),
        ("[0, 0, 512, 384]", [0, 0, 640, 480], {"frame": "absolute_resized", "factor": 128, "max_pixels": 200000}, 1.0),
        ("[64, 48, 320, 240]", [64, 48, 320, 240], {"frame": "relative_1000"}, 0.17),
        ("[64, 48, 320, 240]", [64, 48, 256, 192], {"gold_format": "xywh"}, 1.0),
        ("[64, 48, 320, 240]", [[64, 48, 256, 192]], {"gold_format": "xywh"}, 1.0),
        ("[64, 48, 320, 240]", {"x": 64, "y": 48, "width": 256, "height": 192}, {"gold_format": "xywh"}, 1.0),
    ],
)  # fmt: skip
def test_frames(response: str, gold: Any, options: dict[str, Any], value: float) -> None:
    found = score(response, gold, PICTURE, size_from="size", metric="iou", **options)
    assert found.value == pytest.approx(value, abs=0.01 if 0 < value < 1 else 1e-9)


@settings(max_examples=100, deadline=None)
@given(boxes, boxes)
def test_the_frame_of_an_answer_does_not_change_its_score(gold: Box, found: Box) -> None:
    expected = score(told([found]), gold, metric="iou").value
    thousandths = [found[0] / 0.64, found[1] / 0.48, found[2] / 0.64, found[3] / 0.48]
    value = score(told([thousandths]), gold, PICTURE, size_from="size", frame="relative_1000", metric="iou").value
    assert value == pytest.approx(expected)


def test_the_picture_gives_its_size() -> None:
    gold, response = [64, 48, 320, 240], "[100, 100, 500, 500]"
    assert box(response, gold, [{"width": 640, "height": 480}], {}, frame="relative_1000").value == 1.0
    unknown = box(response, gold, [], {}, frame="relative_1000")
    assert unknown.status == "bad_gold"
    assert "size_from" in unknown.detail


@pytest.mark.parametrize(
    ("gold", "count"),
    [
        ([1, 2, 3, 4], 1),
        ((1.5, 2, 3, 4), 1),
        ("[1, 2, 3, 4]", 1),
        ("1, 2, 3, 4", 1),
        ("<box>1 2 3 4</box>", 1),
        ([["1", "2", "3", "4"]], 1),
        ([[1, 2], [3, 4]], 1),
        ({"bbox_2d": [1, 2, 3, 4]}, 1),
        ({"x1": 1, "y1": 2, "x2": 3, "y2": 4}, 1),
        ([[1, 2, 3, 4], [5, 6, 7, 8]], 2),
        ('[{"bbox_2d": [1, 2, 3, 4], "label": "cat"}, {"bbox": [5, 6, 7, 8]}]', 2),
        ("(1, 2), (3, 4) and (5, 6), (7, 8)", 2),
        ([], 0),
        ("[]", 0),
        ("```json\n[1, 2, 3, 4]\n```", 1),
    ],
)
def test_a_gold_may_be_written_in_any_of_these_ways(gold: Any, count: int) -> None:
    found = gold_boxes(gold)
    assert len(found) == count
    assert all(item.box is not None for item in found)


def test_a_gold_may_be_an_array() -> None:
    import numpy as np

    assert gold_boxes(np.array([[1, 2, 3, 4], [5, 6, 7, 8]]))[1].box == (5, 6, 7, 8)
    assert gold_boxes(np.array([1, 2, 2, 2]), "xywh")[0].box == (1, 2, 3, 4)


BAD_GOLDS: list[Any] = [
    None, "", "a box", True, 7, 1.5, b"", [1, 2, 3], [1, 2, 3, 4, 5], [3, 2, 1, 4], [1, 2, 1, 4], [True, 2, 3, 4],
    [math.nan, 2, 3, 4], [1, 2, 3, math.inf], "[1, 2, 3, 1e999]", [[1, 2, 3, 4], [1, 2, 3]], [[1, 2, 3, 4], None],
    {}, {"label": "cat"}, {"bbox_2d": None}, [{"bbox_2d": [1, 2, 3, 4]}, {"label": "cat"}], [None], [[]], [{}],
    {"bbox_2d": [[1, 2, 3, 4], [5, 6, 7, 8]]}, "null", "7", "[" * 5000, [10**400, 0, 1, 1], "[1, 2], [3]",
]  # fmt: skip


@pytest.mark.parametrize("gold", BAD_GOLDS, ids=range(len(BAD_GOLDS)))
@pytest.mark.parametrize("gold_format", ["xyxy", "xywh"])
def test_a_gold_that_is_no_box_is_an_error_of_the_data(gold: Any, gold_format: Any) -> None:
    if gold_format == "xywh" and gold in ([3, 2, 1, 4], [1, 2, 1, 4]):
        return
    for response in ("[1, 2, 3, 4]", "", "[]"):
        verdict = score(response, gold, gold_format=gold_format)
        assert (verdict.value, verdict.status) == (None, "bad_gold")
        assert verdict.detail


def test_xywh_needs_an_extent() -> None:
    for gold in ([1, 2, 0, 4], [1, 2, 3, -4], [1, 2, math.nan, 4], {"bbox": {"x1": 1, "y1": 2, "x2": 3, "y2": 4}}):
        assert score("[1, 2, 3, 4]", gold, gold_format="xywh").status == "bad_gold"


@pytest.mark.parametrize(
    ("response", "value"),
    [("[]", 1.0), ("```json\n[]\n```", 1.0), (r"\boxed{[]}", 1.0), ("There are none: []", 1.0), ("", 0.0),
     ("none", 0.0), ("[1, 2, 3, 4]", 0.0), ("[] [1, 2, 3, 4]", 0.0), ("[4, 3, 2, 1]", 0.0), ("<think>[]</think>", 0.0),
     ("<think>[]", 0.0)],
)  # fmt: skip
def test_where_nothing_is_to_be_found(response: str, value: float) -> None:
    assert score(response, []).value == value


def labelled(*items: tuple[Any, Any]) -> list[dict[str, Any]]:
    return [{"bbox_2d": place, "label": label} for place, label in items]


def test_labels_pair_only_with_themselves() -> None:
    a, b = [0, 0, 10, 10], [20, 20, 30, 30]
    golds = labelled((a, "Red  Cat"), (b, "dog"))
    right = labelled((b, "DOG "), (a, "red cat"))
    wrong = labelled((a, "dog"), (b, "red cat"))
    for found, value in ((right, 1.0), (wrong, 0.0), (labelled((a, "red cat"), (b, None)), 0.5), (told([a, b]), 0.0)):
        response = found if isinstance(found, str) else json.dumps(found)
        assert score(response, golds, match_labels=True).value == value
        assert score(response, golds).value == 1.0
    one = score(json.dumps(labelled((a, "dog"))), labelled((a, "cat")), match_labels=True)
    assert (one.value, "label" in one.detail) == (0.0, True)
    assert score(json.dumps(labelled((a, "cat"))), labelled((a, "Cat")), match_labels=True).value == 1.0


def test_labels_that_the_gold_lacks_cannot_be_matched() -> None:
    assert score("[1, 2, 3, 4]", [1, 2, 3, 4], match_labels=True).status == "bad_gold"
    assert score("[]", [], match_labels=True).value == 1.0


def test_what_is_missing_and_what_is_too_much_costs_the_same() -> None:
    places = [[x, 0, x + 10, 10] for x in range(0, 100, 20)]
    for golds, found in ((5, 3), (3, 5), (1, 5), (5, 1)):
        assert score(told(places[:found]), places[:golds]).value == pytest.approx(min(golds, found) / max(golds, found))


def test_a_verdict_tells_what_was_wrong() -> None:
    assert "swapped" in score("[3, 3, 1, 1]", [0, 0, 1, 1]).detail
    assert (
        "no area"
        in score('[{"bbox_2d": [1, 1, 1, 1]}, {"bbox_2d": [0, 0, 1, 1]}]', [[0, 0, 1, 1], [5, 5, 6, 6]]).detail
    )
    assert "swapped" in score("[[3, 3, 1, 1], [3, 3, 1, 1]]", [[0, 0, 1, 1], [2, 2, 3, 3]]).detail
    assert score("nowhere", [0, 0, 1, 1]).status == "no_answer"


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


GOLDS = st.sampled_from([[1, 2, 3, 4], [[1, 2, 3, 4], [5, 6, 7, 8]], [], [{"box": [1, 2, 3, 4], "label": "a"}]])
PIECES = [
    "[1, 2, 3, 4]",
    "[",
    "]",
    "{",
    "}",
    '{"bbox_2d": [1, 2, 3, 4], "label": "a"}',
    " or ",
    "\n",
    "```",
    "(1,2)",
    "1e999",
]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from([*PIECES, "<think>", "</think>", "\ud800"]), max_size=12).map("".join), GOLDS)
def test_any_response_gets_a_verdict(response: str, gold: Any) -> None:
    for metric in METRICS:
        verdict = score(response, gold, metric=metric, match_labels=False)
        assert verdict.value is not None
        assert 0 <= verdict.value <= 1
        assert verdict.status in ("ok", "no_answer")


def test_options_are_checked() -> None:
    for options in (
        {"frame": "pixels"},
        {"metric": "diou"},
        {"threshold": 1.5},
        {"factor": 0},
        {"threshold": math.nan},
    ):
        with pytest.raises(ValidationError):
            check_options(box, options)
    checked = check_options(box, {"frame": "relative_1000", "size_from": ["w", "h"], "threshold": 0.5, "hit": True})
    assert checked["size_from"] == ["w", "h"]


FRAMES = ("absolute", "absolute_resized", "relative_1000", "relative_1")


@pytest.mark.parametrize("gold", [[10, 20, 110, 220], [[10, 20, 30, 40], [50, 60, 70, 80]], []])
@pytest.mark.parametrize("gold_format", ["xyxy", "xywh"])
@pytest.mark.parametrize("frame", FRAMES)
def test_a_gold_is_written_in_the_frame_of_the_answer(gold, gold_format, frame):
    from morl.rewards.checks import written_gold
    from morl.rewards.reward_input import RewardInput
    from morl.traits import traits_of

    row = {"media": (), "meta": {"size": [640, 480]}}
    options = {"frame": frame, "gold_format": gold_format, "size_from": "size"}
    response = written_gold(traits_of(box).answer, RewardInput("", gold, **row), options)
    assert box(response, gold, **row, **options).value == pytest.approx(1.0)
