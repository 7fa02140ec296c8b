"""The grammar of answers: short, regular and readable by the verifiers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from morl_mini.draw import SIDE, Box

Labelled = Mapping[str, Any]
"""`{"label": "red star", "bbox_2d": [x1, y1, x2, y2]}`.

The name comes first, so that each item of a list is an example of finding the named object.
"""


def labelled(label: str, box: Box) -> Labelled:
    """One object of a list."""
    return {"label": label, "bbox_2d": list(box)}


def listed(items: Iterable[Labelled]) -> str:
    """A list of objects with their boxes."""
    return json.dumps(list(items))


def boxed(value: object) -> str:
    r"""`\boxed{12}`."""
    return f"\\boxed{{{value}}}"


def point(x: int, y: int) -> str:
    """`{"point_2d": [x, y]}`."""
    return json.dumps({"point_2d": [x, y]})


def span(start: int, end: int) -> str:
    r"""`\boxed{[00:01, 00:03]}`, from seconds below 60."""
    return boxed(f"[00:{start:02}, 00:{end:02}]")


def centre(box: Box) -> tuple[int, int]:
    """The centre of a box, rounded down."""
    return (box[0] + box[2]) // 2, (box[1] + box[3]) // 2


_THIRDS = (("top left", "top", "top right"), ("left", "middle", "right"), ("bottom left", "bottom", "bottom right"))


def place(box: Box, side: int = SIDE) -> str:
    """The ninth of the image that holds the centre of a box, in words."""
    x, y = centre(box)
    return _THIRDS[min(2, 3 * y // side)][min(2, 3 * x // side)]
