"""Points in boxes, and near points."""

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
from morl.rewards.pool.runner import Runner
from morl.rewards.reward import Verdict
from morl.rewards.verifiers.point import gold_areas, point

GOLD = [10, 20, 30, 40]
numbers = st.integers(-50, 100)
pairs = st.lists(st.tuples(numbers, numbers), min_size=2, max_size=5, unique=True)


def score(response: str, gold: Any, meta: dict[str, Any] | None = None, **options: Any) -> Verdict:
    return point(response, gold, (), meta or {}, **options)


def test_examples_hold(runner: Runner) -> None:
    assert check_examples("point", runner) == []


@settings(max_examples=200, deadline=None)
@given(numbers, numbers)
def test_a_point_is_right_in_the_box_and_on_its_edge(x: int, y: int) -> None:
    right = float(10 <= x <= 30 and 20 <= y <= 40)
    for response in (f"({x}, {y})", f'{{"point_2d": [{x}, {y}]}}', f"<point>{x} {y}</point>", f"\\boxed{{[{x}, {y}]}}"):
        assert score(response, GOLD).value == right
        assert score(response, [[500, 500, 510, 510], GOLD]).value == right
        assert score(response, [10, 20, 20, 20], gold_format="xywh").value == right


@settings(max_examples=200, deadline=None)
@given(numbers, numbers, st.floats(0.1, 100))
def test_a_point_is_right_within_the_radius(x: int, y: int, radius: float) -> None:
    assert score(f"({x}, {y})", [20, 30], radius=radius).value == float(math.hypot(x - 20, y - 30) <= radius)


@settings(max_examples=200, deadline=None)
@given(pairs, pairs, st.randoms(use_true_random=False), st.integers(0, 300), st.integers(1, 9))
def test_order_scale_and_place_do_not_matter(
    golds: list[Any], found: list[Any], shuffler: random.Random, shift: int, scale: int
) -> None:
    value = score(json.dumps(found), golds, radius=20).value
    assert value is not None
    shuffled = shuffler.sample(golds, len(golds)), shuffler.sample(found, len(found))
    assert score(json.dumps(shuffled[1]), shuffled[0], radius=20).value == value

    def moved(items: list[Any]) -> list[Any]:
        return [[scale * x + shift, scale * y + shift] for x, y in items]

    assert score(json.dumps(moved(found)), moved(golds), radius=20 * scale).value == value
    wrong = score(json.dumps([*found, [9000, 9000]]), golds, radius=20).value
    assert wrong is not None
    assert wrong <= value


@pytest.mark.parametrize(
    ("response", "value"),
    [
        ("(15, 25) or (16, 26)", 0.0),
        ("(15, 25), (500, 500)", 0.0),
        ("[[15, 25], [16, 26]]", 0.0),
        ("(15, 25) or (NaN, 3)", 0.0),
        ("(15, 25), that is (15, 25)", 1.0),
        ("(500, 500) no wait, (15, 25)", 1.0),
        ("(15, 25) no wait, (500, 500)", 0.0),
        ("<think>(15, 25)</think>(500, 500)", 0.0),
        ("<think>(15, 25)", 0.0),
        ("<think>(15, 25)</think>", 0.0),
        ("[10, 20, 30, 40]", 1.0),
        ("[0, 0, 640, 480]", 0.0),
        ("[10, 20, 30, 40] or [0, 0, 640, 480]", 0.0),
        ("[30, 40, 10, 20]", 0.0),
        ("15 of 25", 0.0),
        ("(15, 25, 3)", 0.0),
        ("(1e999, 25)", 0.0),
        ('{"point_2d": [true, 25]}', 0.0),
        ("", 0.0),
        ("[]", 0.0),
        ("<|image_pad|>", 0.0),
        ("（１５，２５）", 1.0),
        ("(15, 25), not (500, 500)", 1.0),
        ("(500, 500), not (15, 25)", 0.0),
        ("I click (15, 25) instead of (500, 500).", 1.0),
        ("not (15, 25)", 0.0),
        ("{'x': 15, 'y': 25}", 1.0),
        ("{'x': 15, 'y': 25} rather than {'x': 500, 'y': 500}", 1.0),
    ],
)
def test_one_point_is_asked_for(response: str, value: float) -> None:
    verdict = score(response, GOLD)
    assert verdict.value == value
    assert verdict.detail


def test_the_centre_of_a_box_counts_unless_it_must_not() -> None:
    for response in ("[10, 20, 30, 40]", '{"bbox_2d": [10, 20, 30, 40]}', "<|box_start|>(10,20),(30,40)<|box_end|>"):
        assert score(response, GOLD).value == 1.0
        assert score(response, GOLD, centre_of_box=False).value == 0.0


def test_points_that_are_asked_for_are_paired() -> None:
    golds = [[0, 0], [100, 0], [200, 0]]
    for found, value in (
        ([[199, 0], [1, 0], [101, 0]], 1.0),
        ([[1, 0]], 1 / 3),
        ([[0, 0], [0, 0], [0, 0]], 1 / 3),
        ([[0, 0], [100, 0], [200, 0], [300, 0]], 3 / 4),
        ([[0, 0], [100, 0], [200, math.nan]], 2 / 3),
        ([[math.nan, 0], [math.nan, 1]], 0.0),
    ):
        response = json.dumps({"points": found})
        assert score(response, golds, radius=5).value == pytest.approx(value)


def test_a_grid_of_points_does_not_pay() -> None:
    grid = [[x, y] for x in range(0, 640, 8) for y in range(0, 480, 8)]
    golds = [[100, 100], [300, 300]]
    value = score(json.dumps(grid), golds, radius=6).value
    assert value is not None
    assert value < 0.01
    assert score(json.dumps(grid), GOLD).value == 0.0


@pytest.mark.parametrize(
    ("gold", "boxes", "points"),
    [
        (GOLD, 1, 0),
        ("[10, 20, 30, 40]", 1, 0),
        ("10, 20, 30, 40", 1, 0),
        ([GOLD, GOLD], 2, 0),
        ({"bbox": GOLD}, 1, 0),
        ([{"bbox_2d": GOLD, "label": "Save"}], 1, 0),
        ({"x": 10, "y": 20, "width": 20, "height": 20}, 1, 0),
        ([10, 20], 0, 1),
        ("(10, 20)", 0, 1),
        ("10, 20", 0, 1),
        ({"x": 10, "y": 20}, 0, 1),
        ({"point": [10, 20]}, 0, 1),
        ([[10, 20], [30, 40]], 0, 2),
        ('[{"point_2d": [10, 20]}, {"x": 1, "y": 2}]', 0, 2),
    ],
)
def test_a_gold_is_boxes_or_points(gold: Any, boxes: int, points: int) -> None:
    found = gold_areas(gold)
    assert [len(part) for part in found] == [boxes, points]


BAD_GOLDS: list[Any] = [
    None, "", "there", True, 7, [], "[]", {}, [1], [1, 2, 3], [1, 2, 3, 4, 5], [30, 20, 10, 40], [10, 20, 10, 40], b"",
    [True, 2], [math.nan, 2], ["a", "b"], [[1, 2], [1, 2, 3, 4]], [[1, 2], None], {"x": 1}, {"point": [1, 2, 3, 4]},
    {"point": None}, {"point": [[1, 2], [3, 4]]}, [{"point": [1, 2]}, {}], [10**400, 0],
]  # fmt: skip


@pytest.mark.parametrize("gold", BAD_GOLDS, ids=range(len(BAD_GOLDS)))
def test_a_gold_that_is_neither_is_an_error_of_the_data(gold: Any) -> None:
    for response in ("(15, 25)", ""):
        verdict = score(response, gold, radius=5)
        assert (verdict.value, verdict.status) == (None, "bad_gold")
        assert verdict.detail


def test_a_point_as_gold_needs_a_radius() -> None:
    verdict = score("(10, 20)", [10, 20])
    assert verdict.status == "bad_gold"
    assert "radius" in verdict.detail


def test_frames() -> None:
    meta = {"size": [640, 480]}
    for frame, response in (
        ("relative_1000", "(500, 500)"),
        ("relative_1", "(0.5, 0.5)"),
        ("absolute", "(320, 240)"),
        ("absolute_resized", "(322, 238)"),
    ):
        for gold in ([320, 240, 330, 250], [310, 230, 320, 240]):
            assert score(response, gold, meta, frame=frame, size_from="size").value == 1.0
        relative = score(
            response, [0.5, 0.5], meta, frame=frame, gold_frame="relative_1", radius=1e-9, size_from="size"
        )
        assert relative.value == 1.0
    assert score("(500, 500)", GOLD, frame="relative_1000").status == "bad_gold"
    # The edge is included in every frame.
    assert score("(700, 300)", [0.5, 0.3, 0.7, 0.9], frame="relative_1000", gold_frame="relative_1").value == 1.0


@pytest.mark.timeout(60)
def test_many_points_are_scored_fast() -> None:
    many = [[x, x] for x in range(10_000)]
    assert score(json.dumps(many), many[:50], radius=0.5).value == pytest.approx(50 / 10_000)
    assert "too many" in score(json.dumps(many), many[:500], radius=0.5).detail
    assert score(json.dumps(many), many, radius=0.5).status == "bad_gold"


PIECES = ["(1, 2)", "[3, 4, 5, 6]", "{", '{"point": [1, 2]}', " or ", "<think>", "</think>", "é", "```", "answer is "]


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=10).map("".join), st.sampled_from([GOLD, [[1, 2], [3, 4]], [5, 5]]))
def test_any_response_gets_a_verdict(response: str, gold: Any) -> None:
    verdict = score(response, gold, radius=2)
    assert verdict.value is not None
    assert 0 <= verdict.value <= 1
    assert verdict.status in ("ok", "no_answer")


def test_options_are_checked() -> None:
    for options in ({"radius": 0}, {"radius": math.inf}, {"frame": "percent"}):
        with pytest.raises(ValidationError):
            check_options(point, options)


@pytest.mark.parametrize("gold", [[10, 20, 110, 220], [[10, 20, 30, 40], [50, 60, 70, 80]], [5, 6], [[5, 6], [90, 90]]])
@pytest.mark.parametrize("gold_format", ["xyxy", "xywh"])
@pytest.mark.parametrize("frame", ["absolute", "absolute_resized", "relative_1000", "relative_1"])
def test_a_gold_is_written_in_the_frame_of_the_answer(gold, gold_format, frame):
    from morl.rewards.checks import written_gold
    from morl.rewards.reward_input import RewardInput
    from morl.traits import traits_of

    row = {"media": (), "meta": {"size": [640, 480]}}
    options = {"frame": frame, "gold_format": gold_format, "size_from": "size", "radius": 1e-6}
    response = written_gold(traits_of(point).answer, RewardInput("", gold, **row), options)
    assert point(response, gold, **row, **options).value == 1.0
