"""Boxes around objects: grounding and detection."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from morl.rewards.marks import Mark
from morl.rewards.parsing.answer import final_text
from morl.rewards.parsing.coordinates import BoxFormat, CoordinateFrames, Frame, Side, Transfer
from morl.rewards.parsing.geometry import MAX_PAIRS, best_sum, box_scores, giou, iou
from morl.rewards.parsing.gold_boxes import gold_boxes
from morl.rewards.parsing.image_size import FACTOR, MAX_PIXELS, MIN_PIXELS, Resize
from morl.rewards.parsing.locations import LabelledBox, explicitly_empty, read_boxes
from morl.rewards.reward import Example, Verdict, reward

Metric = Literal["iou", "giou", "giou_shifted"]

_CAT_AND_DOG = [{"bbox_2d": [0, 0, 10, 10], "label": "cat"}, {"bbox_2d": [20, 20, 40, 30], "label": "dog"}]
_SWAPPED = '[{"bbox_2d": [20, 20, 40, 30], "label": "cat"}, {"bbox_2d": [0, 0, 10, 10], "label": "dog"}]'
_FENCED = '<think>[0, 0, 5, 5]</think>```json\n[{"bbox_2d": [10, 20, 110, 220], "label": "cat"}]\n```'


def _written(gold: Any, media: Sequence[Any], meta: Mapping[str, Any], **options: Any) -> str:
    frames = CoordinateFrames.of(options)
    out_of_gold = frames.out_of_gold(media, meta)
    boxes = [(item.box, item.label) for item in gold_boxes(gold, frames.gold_format) if item.box is not None]
    return json.dumps(
        [{"bbox_2d": out_of_gold(box), **({} if label is None else {"label": label})} for box, label in boxes]
    )


def _marks(response: str, gold: Any, media: Sequence[Any], meta: Mapping[str, Any], **options: Any) -> list[Mark]:
    frames = CoordinateFrames.of(options)
    golds = gold_boxes(gold, frames.gold_format)
    answers = read_boxes(final_text(response), one=len(golds) == 1)
    sides: list[tuple[Side, list[LabelledBox]]] = [("gold", golds), ("answer", answers)]
    return [
        Mark(side, frames.into_parts(side, media, meta)(item.box), item.label or "")
        for side, items in sides
        for item in items
        if item.box is not None
    ]


@reward(
    "box",
    examples=[
        Example(_FENCED, [10, 20, 110, 220], 1.0),
        Example("[0, 0, 10, 20]", [0, 0, 10, 10], 0.5),
        Example("[0, 0, 10, 20]", [0, 0, 10, 10], 0.0, {"threshold": 0.6}),
        Example("[0, 0, 10, 20]", [0, 0, 10, 10], 1.0, {"threshold": 0.5, "hit": True}),
        Example("[20, 20, 30, 30]", [0, 0, 10, 10], 0.0),
        Example("[10, 10, 0, 0]", [0, 0, 10, 10], 0.0),
        Example("[0, 0, 10, 10] or [20, 20, 30, 30]", [0, 0, 10, 10], 0.5),
        Example("<|box_start|>(0,0),(500,500)<|box_end|>", [0, 0, 0.5, 0.5], 1.0, {
            "frame": "relative_1000", "gold_frame": "relative_1",
        }),
        Example("[0, 0, 500, 500]", [0, 0, 320, 240], 1.0, {"frame": "relative_1000", "size_from": "size"}, {
            "size": [640, 480],
        }),
        Example("[0, 0, 500, 500]", [0, 0, 320, 240], None, {"frame": "relative_1000"}),
        Example(_SWAPPED, _CAT_AND_DOG, 1.0),
        Example(_SWAPPED, _CAT_AND_DOG, 0.0, {"match_labels": True}),
        Example("[]", [], 1.0),
        Example("[0, 0, 10, 10]", [], 0.0),
        Example("[0, 0, 10, 10]", [10, 10, 0, 0], None),
    ],
    answer=_written,
    runs="inline",
    marks=_marks,
)  # fmt: skip
def box(
    response: str,
    gold: Any,
    media: Sequence[Any],
    meta: Mapping[str, Any],
    *,
    frame: Frame = "absolute",
    gold_frame: Frame = "absolute",
    gold_format: BoxFormat = "xyxy",
    metric: Metric = "giou",
    threshold: Annotated[float, Field(ge=0, le=1)] = 0.0,
    hit: bool = False,
    match_labels: bool = False,
    size_from: str | list[str] | None = None,
    factor: Annotated[int, Field(ge=1)] = FACTOR,
    min_pixels: Annotated[int, Field(ge=1)] = MIN_PIXELS,
    max_pixels: Annotated[int, Field(ge=1)] = MAX_PIXELS,
) -> Verdict:
    r"""How well the answer's boxes overlap the gold boxes, in [0, 1].

    Reads JSON with `bbox_2d` (or `bbox`, `box`, …), `<|box_start|>(x1,y1),(x2,y2)<|box_end|>` or
    `[x1, y1, x2, y2]` after the thinking: in the last `\boxed{}` or `<answer>`, else in the first fenced block,
    else after "answer is", else anywhere. The gold is a box, a list of boxes, a list of
    `{"bbox_2d": …, "label": …}`, or the JSON text of one of these.

    One answer box against one gold box scores their `metric`: `iou`; `giou`, which is max(0, GIoU); or
    `giou_shifted`, which is (1 + GIoU) / 2 and so rewards a box for coming closer before it overlaps, but gives
    every box something. With several boxes, each gold box is paired with one answer box so that the sum of scores
    is greatest, and the sum is divided by the number of boxes in the longer list. Missing, superfluous and
    repeated boxes lower the score, and so do boxes without area, with swapped corners or with numbers that are
    not finite. Boxes are not clipped to the image. An empty gold list asks for an empty list.

    `threshold`: a pair that scores less counts 0. `hit`: a pair that reaches the threshold and scores above 0
    counts 1; without a threshold, a box around the whole image then scores 1.
    `match_labels`: only boxes with the same label are paired. Case and spaces do not matter.

    `frame` and `gold_frame` are the units of the coordinates, and are never guessed: `absolute`, pixels of the
    original image; `absolute_resized`, pixels of the image that the model saw, resized with its processor's
    `factor`, `min_pixels` and `max_pixels`; `relative_1000`, thousandths of width and height; `relative_1`,
    fractions of them. Where a conversion needs the image size, it is read from the first image, or from the
    columns that `size_from` names: one with [width, height], or two.
    """
    frames = CoordinateFrames(frame, gold_frame, gold_format, size_from, Resize(factor, min_pixels, max_pixels))
    try:
        golds = gold_boxes(gold, gold_format)
        if match_labels and not all(item.label for item in golds):
            raise ValueError("match_labels needs a label for each gold box")
        if len(golds) ** 2 > MAX_PAIRS:
            raise ValueError(f"more than {int(MAX_PAIRS**0.5)} gold boxes cannot be matched")
        into_gold = frames.into_gold(media, meta)
    except ValueError as error:
        return Verdict(None, "bad_gold", str(error))
    text = final_text(response)
    answers = read_boxes(text, one=len(golds) == 1)
    if not golds:
        if answers:
            return Verdict(0.0, "ok", f"{len(answers)} boxes where the gold has none")
        is_empty = explicitly_empty(text)
        return Verdict(1.0, "ok", "an empty list") if is_empty else Verdict(0.0, "no_answer", "no list in the answer")
    if not answers:
        return Verdict(0.0, "no_answer", "no box in the answer")
    scoring = _Scoring(metric, threshold, hit, match_labels)
    if len(answers) == 1 and len(golds) == 1:
        return scoring.one(golds[0], answers[0], into_gold)
    return scoring.many(golds, answers, into_gold)


class _Scoring:
    """Turns overlaps into scores."""

    __slots__ = ("_hit", "_labels", "_metric", "_threshold")

    def __init__(self, metric: Metric, threshold: float, hit: bool, labels: bool) -> None:
        self._metric, self._threshold, self._hit, self._labels = metric, threshold, hit, labels

    def one(self, gold: LabelledBox, answer: LabelledBox, into_gold: Transfer) -> Verdict:
        if answer.box is None or gold.box is None:
            return Verdict(0.0, "ok", f"not a box: {answer.problem}")
        if self._labels and _folded(answer.label) != _folded(gold.label):
            return Verdict(0.0, "ok", f"label {answer.label!r} instead of {gold.label!r}")
        x1, y1, x2, y2 = into_gold(answer.box)
        overlap = (iou if self._metric == "iou" else giou)(gold.box, (x1, y1, x2, y2))
        return Verdict(self._score(overlap), "ok", "[{:g}, {:g}, {:g}, {:g}]".format(*answer.box))

    def _score(self, overlap: float) -> float:
        score = (1 + overlap) / 2 if self._metric == "giou_shifted" else max(0.0, overlap)
        if score < self._threshold or score <= 0:
            return 0.0
        return 1.0 if self._hit else score

    def many(self, golds: list[LabelledBox], answers: list[LabelledBox], into_gold: Transfer) -> Verdict:
        import numpy as np

        valid = [(into_gold(item.box), _folded(item.label)) for item in answers if item.box is not None]
        detail = f"{len(answers)} boxes for {len(golds)}"
        if len(valid) < len(answers):
            problem = next(item.problem for item in answers if item.problem)
            detail += f", {len(answers) - len(valid)} of them invalid: {problem}"
        if len(golds) * len(valid) > MAX_PAIRS:
            return Verdict(0.0, "ok", f"{detail}: too many to match")
        if not valid:
            return Verdict(0.0, "ok", detail)
        rows = [item.box for item in golds if item.box is not None]
        overlaps = box_scores(rows, [box for box, _ in valid], generalised=self._metric != "iou")  # type: ignore[misc]
        scores = (1 + overlaps) / 2 if self._metric == "giou_shifted" else np.maximum(overlaps, 0.0)
        scores[(scores < self._threshold) | (scores <= 0)] = 0.0
        if self._hit:
            scores[scores > 0] = 1.0
        if self._labels:
            names = np.array([label for _, label in valid], dtype=object)
            scores[np.array([_folded(item.label) for item in golds], dtype=object)[:, None] != names] = 0.0
        return Verdict(best_sum(scores) / max(len(golds), len(answers)), "ok", detail)


def _folded(label: str | None) -> str | None:
    return None if label is None else " ".join(unicodedata.normalize("NFKC", label).casefold().split())
