"""Overlap and matching: symmetric, bounded, indifferent to order, scale and place."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morl.rewards.parsing.geometry import Box, best_sum, box_scores, contains, giou, iou, match, segment_iou

coordinates = st.floats(-1e4, 1e4, width=32)
sides = st.floats(0.0625, 1e4, width=32)
boxes = st.builds(lambda x, y, w, h: (x, y, x + w, y + h), coordinates, coordinates, sides, sides)
segments = st.builds(lambda start, length: (start, start + length), coordinates, sides)
matrices = st.integers(1, 4).flatmap(
    lambda m: st.lists(st.lists(st.floats(0, 1, width=32), min_size=m, max_size=m), min_size=1, max_size=4)
)


@pytest.mark.parametrize(
    ("a", "b", "expected_iou", "expected_giou"),
    [
        ((0, 0, 2, 2), (0, 0, 2, 2), 1.0, 1.0),
        ((0, 0, 2, 2), (1, 1, 3, 3), 1 / 7, 1 / 7 - 2 / 9),
        ((0, 0, 2, 2), (0, 0, 2, 1), 0.5, 0.5),
        ((0, 0, 1, 1), (1, 0, 2, 1), 0.0, 0.0),
        ((0, 0, 1, 1), (2, 0, 3, 1), 0.0, -1 / 3),
        ((0, 0, 1, 1), (9, 9, 10, 10), 0.0, -0.98),
    ],
)
def test_overlap_by_hand(a: Box, b: Box, expected_iou: float, expected_giou: float) -> None:
    assert iou(a, b) == pytest.approx(expected_iou)
    assert giou(a, b) == pytest.approx(expected_giou)


@settings(max_examples=200, deadline=None)
@given(boxes, boxes)
def test_overlap_is_symmetric_and_bounded(a: Box, b: Box) -> None:
    assert iou(a, b) == pytest.approx(iou(b, a))
    assert giou(a, b) == pytest.approx(giou(b, a))
    assert 0 <= iou(a, b) <= 1
    assert -1 <= giou(a, b) <= iou(a, b)
    assert iou(a, a) == pytest.approx(1)


@settings(max_examples=200, deadline=None)
@given(boxes, boxes, st.floats(0.01, 100), st.floats(0.01, 100), coordinates, coordinates)
def test_overlap_does_not_depend_on_scale_and_place(
    a: Box, b: Box, across: float, down: float, right: float, below: float
) -> None:
    def moved(box: Box) -> Box:
        x1, y1, x2, y2 = box
        return (x1 * across + right, y1 * down + below, x2 * across + right, y2 * down + below)

    assert iou(moved(a), moved(b)) == pytest.approx(iou(a, b), abs=1e-2)
    assert giou(moved(a), moved(b)) == pytest.approx(giou(a, b), abs=1e-2)


@settings(max_examples=100, deadline=None)
@given(st.lists(boxes, min_size=1, max_size=4), st.lists(boxes, min_size=1, max_size=4))
def test_a_matrix_of_scores_holds_each_pair(rows: list[Box], columns: list[Box]) -> None:
    for generalised, score in ((False, iou), (True, giou)):
        scores = box_scores(rows, columns, generalised=generalised)
        assert scores.shape == (len(rows), len(columns))
        for i, j in itertools.product(range(len(rows)), range(len(columns))):
            assert scores[i, j] == pytest.approx(score(rows[i], columns[j]), abs=1e-9)


@settings(max_examples=200, deadline=None)
@given(segments, segments, coordinates)
def test_overlap_of_spans(a: tuple[float, float], b: tuple[float, float], shift: float) -> None:
    assert 0 <= segment_iou(a, b) <= 1
    assert segment_iou(a, b) == pytest.approx(segment_iou(b, a))
    assert segment_iou(a, a) == pytest.approx(1)
    moved = [(start + shift, end + shift) for start, end in (a, b)]
    assert segment_iou(*moved) == pytest.approx(segment_iou(a, b), abs=1e-2)


@pytest.mark.parametrize(
    ("a", "b", "value"), [((0, 10), (5, 15), 1 / 3), ((0, 10), (10, 20), 0.0), ((0, 10), (2, 4), 0.2)]
)
def test_overlap_of_spans_by_hand(a: tuple[float, float], b: tuple[float, float], value: float) -> None:
    assert segment_iou(a, b) == pytest.approx(value)


def test_areas_too_small_for_a_number_overlap_nothing() -> None:
    speck = (0.0, 0.0, 1e-200, 1e-200)
    assert iou(speck, speck) == 0.0
    assert giou(speck, speck) == -1.0
    assert box_scores([speck], [speck], generalised=True).tolist() == [[-1.0]]


def test_a_point_on_the_edge_is_inside() -> None:
    assert contains((0, 0, 2, 2), (0, 2))
    assert not contains((0, 0, 2, 2), (0, 2.001))
    assert not contains((0, 0, 2, 2), (-0.001, 1))


@settings(max_examples=100, deadline=None)
@given(matrices, st.randoms(use_true_random=False))
def test_the_best_pairs_are_best_in_any_order(scores: list[list[float]], shuffler: random.Random) -> None:
    rows, columns = len(scores), len(scores[0])
    wide = scores if rows <= columns else [list(column) for column in zip(*scores, strict=True)]
    best = max(
        sum(wide[i][j] for i, j in enumerate(choice))
        for choice in itertools.permutations(range(len(wide[0])), len(wide))
    )
    assert best_sum(scores) == pytest.approx(best)
    pairs = match(scores)
    assert len(pairs) == min(rows, columns)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    order = shuffler.sample(range(columns), columns)
    shuffled = [[row[j] for j in order] for row in shuffler.sample(scores, rows)]
    assert best_sum(shuffled) == pytest.approx(best)


def test_nothing_matches_nothing() -> None:
    assert match([]) == match([[]]) == []
    assert best_sum([]) == 0.0
