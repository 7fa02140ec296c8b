"""A point in an image: pointing, and clicking on elements of a screen."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from morl.rewards.marks import Mark
from morl.rewards.parsing.answer import final_text
from morl.rewards.parsing.coordinates import BoxFormat, CoordinateFrames, Frame, Transfer
from morl.rewards.parsing.geometry import MAX_PAIRS, Box, best_sum, contains
from morl.rewards.parsing.gold_boxes import gold_boxes
from morl.rewards.parsing.image_size import FACTOR, MAX_PIXELS, MIN_PIXELS, Resize
from morl.rewards.parsing.locations import BOX_KEYS, BOXES, POINT_KEYS, POINTS, LabelledPoint, Point, read_points
from morl.rewards.parsing.stated_values import gold_value, in_json
from morl.rewards.reward import Example, Verdict, reward


def _written(gold: Any, media: Sequence[Any], meta: Mapping[str, Any], **options: Any) -> str:
    frames = CoordinateFrames.of(options)
    out_of_gold = frames.out_of_gold(media, meta)
    areas, targets = gold_areas(gold, frames.gold_format)
    points = targets or [((x1 + x2) / 2, (y1 + y2) / 2) for x1, y1, x2, y2 in areas[:1]]
    return json.dumps([{"point_2d": out_of_gold(point)} for point in points])


def _marks(response: str, gold: Any, media: Sequence[Any], meta: Mapping[str, Any], **options: Any) -> list[Mark]:
    frames = CoordinateFrames.of(options)
    areas, targets = gold_areas(gold, frames.gold_format)
    labelled = read_points(final_text(response), one=len(targets) < 2)
    answers = [item.point for item in labelled if item.point is not None]
    of_gold, of_answer = frames.into_parts("gold", media, meta), frames.into_parts("answer", media, meta)
    golds = [Mark("gold", of_gold(place)) for place in (*areas, *targets)]
    return golds + [Mark("answer", of_answer(point)) for point in answers]


@reward(
    "point",
    examples=[
        Example("<think>(0, 0)</think>I click (15, 25).", [10, 20, 30, 40], 1.0),
        Example("<point>10 40</point>", [10, 20, 30, 40], 1.0),
        Example('{"point_2d": [31, 30]}', [10, 20, 30, 40], 0.0),
        Example("(500, 250)", [60, 30, 10, 10], 1.0, {
            "frame": "relative_1000", "gold_format": "xywh", "size_from": ["w", "h"],
        }, {"w": 128, "h": 128}),
        Example("(15, 25)", [10, 20, 30, 40], None, {"frame": "relative_1000"}),
        Example("(15, 25) or (50, 50)", [10, 20, 30, 40], 0.0),
        Example("[10, 20, 30, 40]", [10, 20, 30, 40], 1.0),
        Example("[10, 20, 30, 40]", [10, 20, 30, 40], 0.0, {"centre_of_box": False}),
        Example("(52, 52)", [[0, 0, 10, 10], [50, 50, 60, 60]], 1.0),
        Example("(3, 4)", [0, 0], 1.0, {"radius": 5}),
        Example("(3, 4)", [0, 0], 0.0, {"radius": 4.9}),
        Example("(3, 4)", [0, 0], None),
        Example("[[9, 9], [0, 1]]", [[0, 0], [10, 10]], 1.0, {"radius": 2}),
        Example("[[9, 9], [0, 1], [5, 5], [6, 6]]", [[0, 0], [10, 10]], 0.5, {"radius": 2}),
    ],
    answer=_written,
    runs="inline",
    marks=_marks,
)  # fmt: skip
def point(
    response: str,
    gold: Any,
    media: Sequence[Any],
    meta: Mapping[str, Any],
    *,
    frame: Frame = "absolute",
    gold_frame: Frame = "absolute",
    gold_format: BoxFormat = "xyxy",
    radius: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None,
    centre_of_box: bool = True,
    size_from: str | list[str] | None = None,
    factor: Annotated[int, Field(ge=1)] = FACTOR,
    min_pixels: Annotated[int, Field(ge=1)] = MIN_PIXELS,
    max_pixels: Annotated[int, Field(ge=1)] = MAX_PIXELS,
) -> Verdict:
    r"""1 when the answer's point lies in the gold box, edge included, or within `radius` of the gold point.

    Reads JSON with `point_2d` (or `point`, `coordinate`, …, or `x` and `y`), `<point>x y</point>`, Molmo's
    `<points x1="…" y1="…">`, `(x, y)` or `[x, y]` after the thinking: in the last `\boxed{}` or `<answer>`, else in the
    first fenced block, else after "answer is", else anywhere. If the answer is a box, its centre counts, as in
    evaluations on ScreenSpot; `centre_of_box: false` turns this off.

    The gold takes one of three forms:
    - a box, or a list of boxes any of which will do. One point is expected; different points score 0 as a hedge;
    - a point. It needs `radius`, the greatest distance of a right answer, in units of the gold's frame;
    - a list of points. Each is paired with at most one answer point within `radius`, and the value is the number of
      pairs over the number of points in the longer list.

    `gold_format` is the format of gold boxes: two corners, or a corner with width and height. `frame`,
    `gold_frame`, `size_from` and the resizing limits are as in the reward `box`.
    """
    frames = CoordinateFrames(frame, gold_frame, gold_format, size_from, Resize(factor, min_pixels, max_pixels))
    try:
        areas, targets = gold_areas(gold, gold_format)
        if targets and radius is None:
            raise ValueError("the gold is a point: set 'radius', the greatest distance of a right answer")
        if len(targets) ** 2 > MAX_PAIRS:
            raise ValueError(f"more than {int(MAX_PAIRS**0.5)} gold points cannot be matched")
        into_gold = frames.into_gold(media, meta)
    except ValueError as error:
        return Verdict(None, "bad_gold", str(error))
    answers = read_points(final_text(response), one=len(targets) < 2)
    if not answers:
        return Verdict(0.0, "no_answer", "no point in the answer")
    if answers[0].from_box and not centre_of_box:
        return Verdict(0.0, "no_answer", "a box instead of a point")
    if len(targets) > 1:
        return _many(targets, answers, into_gold, radius or 0.0)
    if len({item.point for item in answers}) > 1:
        return Verdict(0.0, "ok", f"{len(answers)} points where one was asked for")
    if answers[0].point is None:
        return Verdict(0.0, "ok", f"not a point: {answers[0].problem}")
    x, y = into_gold(answers[0].point)
    right = any(contains(area, (x, y)) for area in areas) or any(_near((x, y), t, radius or 0.0) for t in targets)
    return Verdict(float(right), "ok", "({:g}, {:g})".format(*answers[0].point))


def _near(a: Point, b: Point, radius: float) -> bool:
    return math.dist(a, b) <= radius


def _many(targets: list[Point], answers: list[LabelledPoint], into_gold: Transfer, radius: float) -> Verdict:
    valid = [into_gold(item.point) for item in answers if item.point is not None]
    detail = f"{len(answers)} points for {len(targets)}"
    if len(targets) * len(valid) > MAX_PAIRS:
        return Verdict(0.0, "ok", f"{detail}: too many to match")
    hits = [[float(_near((x, y), target, radius)) for x, y in valid] for target in targets]
    return Verdict(best_sum(hits) / max(len(targets), len(answers)), "ok", detail)


def gold_areas(gold: Any, gold_format: BoxFormat = "xyxy") -> tuple[list[Box], list[Point]]:
    """The gold's boxes and its points. Exactly one of the lists is empty.

    Raises: ValueError when the gold holds neither boxes nor points, or both.
    """
    value = gold_value(gold, POINTS)
    points = _gold_points(value)
    if points is not None:
        return [], points
    boxes = [item.box for item in gold_boxes(value, gold_format) if item.box is not None]
    if not boxes:
        raise ValueError("the gold is empty: there is nothing to point at")
    return boxes, []


def _gold_points(value: Any) -> list[Point] | None:
    """The gold's points; None when it is empty or not points. Raises: ValueError when a point is invalid."""
    if not isinstance(value, list | Mapping) or not value:
        return None
    is_one = isinstance(value, Mapping) or not isinstance(value[0], list | tuple | Mapping)
    items: list[Any] = [value] if is_one else list(value)
    if not all(_is_point(item) for item in items):
        return None
    points: list[Point] = []
    for item in items:
        labelled = in_json(item if isinstance(item, Mapping) else {"point": item}, POINTS)
        if len(labelled) != 1 or labelled[0].point is None or labelled[0].from_box:
            problem = labelled[0].problem or "a box" if len(labelled) == 1 else f"{len(labelled)} points in one item"
            raise ValueError(f"gold point {len(points)}: {problem}")
        points.append(labelled[0].point)
    return points


def _is_point(item: Any) -> bool:
    if not isinstance(item, Mapping):
        return isinstance(item, list | tuple) and len(item) == 2
    if any(key in BOX_KEYS for key in item):
        return False
    return any(key in POINT_KEYS for key in item) or ("x" in item and "y" in item and BOXES.named(item) is None)
