"""Overlap of boxes and of time spans, and the best matching of two lists. Pure functions of numbers.

A box is `(x1, y1, x2, y2)` with `x1 < x2` and `y1 < y2`, a segment `(start, end)` with `start < end`; all finite.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Box = tuple[float, float, float, float]
Segment = tuple[float, float]

MAX_PAIRS = 1_000_000
"""The most pairs to match: matching takes time in proportion to the longer list times the square of the shorter."""


def area(box: Box) -> float:
    """`(x2 - x1) * (y2 - y1)`."""
    return (box[2] - box[0]) * (box[3] - box[1])


def _overlap(a: Box, b: Box) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    return width * height if width > 0 and height > 0 else 0.0


def iou(a: Box, b: Box) -> float:
    """Intersection over union, `|a ∩ b| / |a ∪ b|`, in [0, 1]; 1 for equal boxes, 0 for boxes apart."""
    overlap = _overlap(a, b)
    union = area(a) + area(b) - overlap
    return min(1.0, overlap / union) if union > 0 else 0.0


def giou(a: Box, b: Box) -> float:
    """Generalised IoU, `IoU - |C \\ (a ∪ b)| / |C|` with C the smallest box around both; in [-1, 1], at most the IoU.

    Below 0 it measures how far apart two boxes are, for which the IoU is 0.
    Rezatofighi et al. 2019, arXiv 1902.09630.
    """
    overlap = _overlap(a, b)
    union = area(a) + area(b) - overlap
    hull = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
    if union <= 0 or hull <= 0:
        return -1.0
    return min(1.0, overlap / union) - max(0.0, hull - union) / hull


def segment_iou(a: Segment, b: Segment) -> float:
    """Overlap over union of two time spans, in [0, 1]."""
    overlap = min(a[1], b[1]) - max(a[0], b[0])
    union = (a[1] - a[0]) + (b[1] - b[0]) - max(0.0, overlap)
    return min(1.0, overlap / union) if overlap > 0 and union > 0 else 0.0


def contains(box: Box, point: tuple[float, float]) -> bool:
    """Whether the point lies in the box or on its edge."""
    return box[0] <= point[0] <= box[2] and box[1] <= point[1] <= box[3]


def box_scores(rows: Sequence[Box], columns: Sequence[Box], *, generalised: bool) -> NDArray[np.float64]:
    """The N x M matrix of the `iou`, or `giou` if `generalised`, of N boxes with M boxes."""
    import numpy as np

    a, b = np.array(rows, float).reshape(-1, 1, 4), np.array(columns, float).reshape(1, -1, 4)
    low, high = np.maximum(a[..., :2], b[..., :2]), np.minimum(a[..., 2:], b[..., 2:])
    overlap = np.clip(high - low, 0, None).prod(-1)
    union = (a[..., 2:] - a[..., :2]).prod(-1) + (b[..., 2:] - b[..., :2]).prod(-1) - overlap
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = np.where(union > 0, np.minimum(1.0, overlap / union), 0.0)
        if generalised:
            hull = (np.maximum(a[..., 2:], b[..., 2:]) - np.minimum(a[..., :2], b[..., :2])).prod(-1)
            around = np.maximum(0.0, hull - union) / hull
            scores = np.where((union > 0) & (hull > 0), scores - around, -1.0)
    return scores


def match(scores: Sequence[Sequence[float]] | NDArray[np.float64]) -> list[tuple[int, int]]:
    """The min(N, M) one-to-one pairs (row, column) with the greatest sum of scores, sorted by row.

    Args:
        scores: N x M, finite.

    The assignment problem, solved by scipy after D. F. Crouse 2016, doi:10.1109/TAES.2016.140952.
    """
    if not len(scores) or not len(scores[0]):
        return []
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(scores, maximize=True)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def best_sum(scores: Sequence[Sequence[float]] | NDArray[np.float64]) -> float:
    """The greatest sum of scores over one-to-one pairs of an N x M matrix.

    Divided by the length of the longer list, it measures how well two lists agree: missing, superfluous and
    repeated items lower it.
    """
    return math.fsum(float(scores[row][column]) for row, column in match(scores))
