r"""Coordinates: which frame numbers are in, and how they go from one frame to another. A frame is never guessed.

What answers write, and how large pictures are, is read by `places` and `picture`; all of it is imported from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from morl.rewards.picture import Resize, Size, picture_size, smart_resize
from morl.rewards.places import (
    MAX_PLACES,
    MISSING,
    Box,
    LabelledBox,
    LabelledPoint,
    Missing,
    Point,
    box_from,
    explicitly_empty,
    find_json,
    finite,
    point_from,
    read_boxes,
    read_points,
)

__all__ = [
    "MAX_PLACES",
    "MISSING",
    "Box",
    "Frame",
    "LabelledBox",
    "LabelledPoint",
    "Missing",
    "Point",
    "Resize",
    "Size",
    "box_from",
    "convert",
    "explicitly_empty",
    "find_json",
    "finite",
    "picture_size",
    "point_from",
    "read_boxes",
    "read_points",
    "smart_resize",
    "units",
]

Frame = Literal["absolute", "absolute_resized", "relative_1000", "relative_1"]
"""What a coordinate counts: pixels of the picture as it came; pixels of the picture as the processor resized it;
thousandths of its width and height; or parts of them."""


def units(frame: Frame, size: Size | None, resize: Resize | None = None) -> tuple[float, float]:
    """Extent of the whole picture in a frame: `(x, y) / units` is in `relative_1`.

    Raises: ValueError when the frame needs the picture's size and there is none, or it cannot be resized.
    """
    if frame == "relative_1":
        return (1.0, 1.0)
    if frame == "relative_1000":
        return (1000.0, 1000.0)
    if size is None:
        raise ValueError(
            f"the frame '{frame}' needs the size of the picture, and the row has no picture: "
            "name the columns that hold it (size_from)"
        )
    if frame == "absolute_resized":
        limits = resize or Resize()
        size = smart_resize(size, factor=limits.factor, min_pixels=limits.min_pixels, max_pixels=limits.max_pixels)
    return (float(size.width), float(size.height))


def convert(
    numbers: Sequence[float], source: Frame, target: Frame, size: Size | None = None, resize: Resize | None = None
) -> tuple[float, ...]:
    """Coordinates x, y, x, y, … of one frame in another. Equal frames need no size.

    Raises: ValueError as `units` does.
    """
    if source == target:
        return tuple(numbers)
    (sx, sy), (tx, ty) = units(source, size, resize), units(target, size, resize)
    return tuple(value * ty / sy if i % 2 else value * tx / sx for i, value in enumerate(numbers))
