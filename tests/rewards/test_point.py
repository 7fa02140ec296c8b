"""Points in boxes, and near points."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morl.rewards import Verdict
from morl.rewards.point import point

GOLD = [10, 20, 30, 40]
numbers = st.integers(-50, 100)
pairs = st.lists(st.tuples(numbers, numbers), min_size=2, max_size=5, unique=True)


def score(response: str, gold: Any, meta: dict[str, Any] | None = None, **options: Any) -> Verdict:
    return point(response, gold, (), meta or {}, **options)


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


def test_a_grid_of_points_does_not_pay() -> None:
    grid = [[x, y] for x in range(0, 640, 8) for y in range(0, 480, 8)]
    golds = [[100, 100], [300, 300]]
    value = score(json.dumps(grid), golds, radius=6).value
    assert value is not None
    assert value < 0.01
    assert score(json.dumps(grid), GOLD).value == 0.0


@pytest.mark.timeout(60)
def test_many_points_are_scored_fast() -> None:
    many = [[x, x] for x in range(10_000)]
    assert score(json.dumps(many), many[:50], radius=0.5).value == pytest.approx(50 / 10_000)
    assert "too many" in score(json.dumps(many), many[:500], radius=0.5).detail
    assert score(json.dumps(many), many, radius=0.5).status == "bad_gold"


@pytest.mark.parametrize("gold", [[10, 20, 110, 220], [[10, 20, 30, 40], [50, 60, 70, 80]], [5, 6], [[5, 6], [90, 90]]])
@pytest.mark.parametrize("gold_format", ["xyxy", "xywh"])
@pytest.mark.parametrize("frame", ["absolute", "absolute_resized", "relative_1000", "relative_1"])
def test_a_gold_is_written_in_the_frame_of_the_answer(gold, gold_format, frame):
    from morl.rewards.checks import written_gold
    from morl.rewards.decorator import traits_of

    row = {"media": (), "meta": {"size": [640, 480]}}
    options = {"frame": frame, "gold_format": gold_format, "size_from": "size", "radius": 1e-6}
    response = written_gold(traits_of(point).answer, {"gold": gold, **row}, options)
    assert point(response, gold, **row, **options).value == 1.0
