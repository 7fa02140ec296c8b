"""The boxes of a gold, in the formats of common data sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from morl.rewards.parsing.coordinates import BoxFormat
from morl.rewards.parsing.locations import BOX_KEYS, BOXES, LabelledBox, labelled_box
from morl.rewards.parsing.stated_values import finite, gold_value, in_json


def _from_corner_and_extent(numbers: Sequence[Any], label: str | None) -> LabelledBox:
    values = [finite(number) for number in numbers]
    if len(values) != 4 or None in values:
        return labelled_box(numbers, label)
    x, y, width, height = (value or 0.0 for value in values)
    return labelled_box((x, y, x + width, y + height), label)


# Named sides need no format; only lists come in two formats.
_LISTS_XYWH = replace(BOXES, make=_from_corner_and_extent, named=lambda item: None)


def gold_boxes(gold: Any, gold_format: BoxFormat = "xyxy") -> list[LabelledBox]:
    """The gold's boxes, all valid; an empty list for an empty list.

    Raises: ValueError when the gold holds anything but valid boxes.
    """
    if type(gold) is list and len(gold) == 4 and gold_format == "xyxy" and type(gold[0]) in (int, float):
        alone = labelled_box(gold, None)
        if alone.box is None:
            raise ValueError(f"gold box 0: {alone.problem}")
        return [alone]
    gold = gold_value(gold, BOXES)
    if not isinstance(gold, list | Mapping):
        raise ValueError(f"the gold must be boxes, not {type(gold).__name__}")
    result: list[LabelledBox] = []
    for item in [gold] if isinstance(gold, Mapping) or _is_one(gold) else gold:
        named = isinstance(item, Mapping) and not any(key in BOX_KEYS for key in item)
        notation = BOXES if named or gold_format == "xyxy" else _LISTS_XYWH
        boxes = in_json(item if isinstance(item, Mapping) else {"box": item}, notation)
        if len(boxes) != 1 or boxes[0].box is None:
            problem = boxes[0].problem if len(boxes) == 1 else f"{len(boxes)} boxes in one item"
            raise ValueError(f"gold box {len(result)}: {problem}")
        result.append(boxes[0])
    return result


def _is_one(gold: list[Any]) -> bool:
    """Whether a list is one box: four numbers or two corners."""
    if not gold or not isinstance(gold[0], list | tuple | Mapping):
        return bool(gold)
    return len(gold) == 2 and all(isinstance(corner, list | tuple) and len(corner) == 2 for corner in gold)
