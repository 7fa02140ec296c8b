r"""Coordinates: which frame numbers are in, and how they go from one frame to another. A frame is never guessed.

What answers write, and how large images are, is read by `places` and `image`; all of it is imported from here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Literal

from morl.rewards.parsing.image_size import Resize, Size, image_size, smart_resize
from morl.rewards.parsing.locations import (
    Box,
    LabelledBox,
    LabelledPoint,
    Point,
    box_from,
    explicitly_empty,
    point_from,
    read_boxes,
    read_points,
)
from morl.rewards.parsing.stated_values import MAX_FOUND, MISSING, Missing, find_json, finite

__all__ = [
    "MAX_FOUND",
    "MISSING",
    "Box",
    "BoxFormat",
    "CoordinateFrames",
    "Frame",
    "LabelledBox",
    "LabelledPoint",
    "Missing",
    "Point",
    "Resize",
    "Side",
    "Size",
    "Transfer",
    "box_from",
    "convert",
    "explicitly_empty",
    "find_json",
    "finite",
    "image_size",
    "point_from",
    "read_boxes",
    "read_points",
    "smart_resize",
    "transfer",
    "units",
]

Frame = Literal["absolute", "absolute_resized", "relative_1000", "relative_1"]
"""What a coordinate counts: pixels of the image as it came; pixels of the image as the processor resized it;
thousandths of its width and height; or parts of them."""
BoxFormat = Literal["xyxy", "xywh"]
"""How a box is written: two corners, or a corner with width and height."""
Side = Literal["gold", "answer"]


def units(frame: Frame, size: Size | None, resize: Resize | None = None) -> tuple[float, float]:
    """Extent of the whole image in a frame: `(x, y) / units` is in `relative_1`.

    Raises: ValueError when the frame needs the image's size and there is none, or it cannot be resized.
    """
    if frame == "relative_1":
        return (1.0, 1.0)
    if frame == "relative_1000":
        return (1000.0, 1000.0)
    if size is None:
        raise ValueError(
            f"the frame '{frame}' needs the size of the image, and the row has no image: "
            "name the columns that hold it (size_from)"
        )
    if frame == "absolute_resized":
        limits = resize or Resize()
        size = smart_resize(size, factor=limits.factor, min_pixels=limits.min_pixels, max_pixels=limits.max_pixels)
    return (float(size.width), float(size.height))


@dataclass(frozen=True, slots=True)
class Transfer:
    """Takes coordinates from one frame to another.

    >>> Transfer((1000.0, 1000.0), (640.0, 480.0))([500, 500])
    (320.0, 240.0)
    """

    source: tuple[float, float]
    """Extent of the image in the frame that the numbers are in."""
    target: tuple[float, float]

    def __call__(self, numbers: Sequence[float]) -> tuple[float, ...]:
        """Coordinates x, y, x, y, … in the other frame."""
        if self.source == self.target:
            return tuple(numbers)
        (sx, sy), (tx, ty) = self.source, self.target
        return tuple(value * ty / sy if i % 2 else value * tx / sx for i, value in enumerate(numbers))


_SAME = Transfer((1.0, 1.0), (1.0, 1.0))
_RESIZE = Resize()


def transfer(
    source: Frame,
    target: Frame,
    media: Sequence[Any] = (),
    meta: Mapping[str, Any] = MappingProxyType({}),
    size_from: str | Sequence[str] | None = None,
    resize: Resize | None = None,
) -> Transfer:
    """From one frame to another in the image of a row, whose size is looked up only when it is needed.

    Raises: ValueError when it is needed and nothing tells it, as `image_size` and `units` do.
    """
    if source == target:
        return _SAME
    relative = source.startswith("relative") and target.startswith("relative")
    size = None if relative else image_size(media, meta, size_from)
    return Transfer(units(source, size, resize), units(target, size, resize))


@dataclass(frozen=True, slots=True)
class CoordinateFrames:
    """What the coordinates of an answer and of its gold count in the image of a row.

    The options of a reward are called as these fields are; the limits of `resize` are options of their own.

    >>> CoordinateFrames("relative_1000", size_from="size").into_gold((), {"size": [640, 480]})([500, 500])
    (320.0, 240.0)
    """

    frame: Frame = "absolute"
    """The answer's."""
    gold_frame: Frame = "absolute"
    gold_format: BoxFormat = "xyxy"
    """How the gold writes boxes: two corners, or a corner with width and height."""
    size_from: str | Sequence[str] | None = None
    """Columns of the row that hold the image's size; without them the first image tells it."""
    resize: Resize = _RESIZE
    """How the processor resized the image, for `absolute_resized`."""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> CoordinateFrames:
        """From the options of a reward, by their names; what they leave out has its default."""
        own, limits = ({f.name: options[f.name] for f in fields(kind) if f.name in options} for kind in (cls, Resize))
        return cls(**own, resize=Resize(**limits))

    def into_gold(self, media: Sequence[Any], meta: Mapping[str, Any]) -> Transfer:
        """From the answer's frame to the gold's. Raises: ValueError as `transfer` does."""
        return transfer(self.frame, self.gold_frame, media, meta, self.size_from, self.resize)

    def out_of_gold(self, media: Sequence[Any], meta: Mapping[str, Any]) -> Transfer:
        """From the gold's frame to the answer's. Raises: ValueError as `transfer` does."""
        return transfer(self.gold_frame, self.frame, media, meta, self.size_from, self.resize)

    def into_parts(self, side: Side, media: Sequence[Any], meta: Mapping[str, Any]) -> Transfer:
        """From one side's frame to parts of the image. Raises: ValueError as `transfer` does."""
        own = self.gold_frame if side == "gold" else self.frame
        return transfer(own, "relative_1", media, meta, self.size_from, self.resize)


def convert(
    numbers: Sequence[float], source: Frame, target: Frame, size: Size | None = None, resize: Resize | None = None
) -> tuple[float, ...]:
    """Coordinates x, y, x, y, … of one frame in another. Equal frames need no size.

    Raises: ValueError as `units` does.
    """
    if source == target:
        return tuple(numbers)
    return Transfer(units(source, size, resize), units(target, size, resize))(numbers)
