r"""Coordinate frames: the units of coordinates, and conversion between them. A frame is never guessed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any, Literal

from morl.rewards.parsing.image_size import Resize, Size, image_size, smart_resize

Frame = Literal["absolute", "absolute_resized", "relative_1000", "relative_1"]
"""The unit of coordinates: pixels of the original image; pixels of the image as the processor resized it;
thousandths of its width and height; or fractions of them."""
BoxFormat = Literal["xyxy", "xywh"]
"""How a box is written: two corners, or a corner with width and height."""
Side = Literal["gold", "answer"]


def units(frame: Frame, size: Size | None, resize: Resize | None = None) -> tuple[float, float]:
    """The extent (x, y) of the image in a frame: coordinates divided by it are in `relative_1`.

    Raises: ValueError when the frame needs the image size and `size` is None, or the image cannot be resized.
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
    """Converts coordinates from one frame to another.

    >>> Transfer((1000.0, 1000.0), (640.0, 480.0))([500, 500])
    (320.0, 240.0)
    """

    source: tuple[float, float]
    """The extent of the image in the frame of the numbers."""
    target: tuple[float, float]
    """The extent of the image in the other frame."""

    def __call__(self, numbers: Sequence[float]) -> tuple[float, ...]:
        """Converts coordinates x, y, x, y, …"""
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
    """The conversion between two frames of a row's image, whose size is read only if it is needed.

    Raises: ValueError when the size is needed and cannot be read; see `image_size` and `units`.
    """
    if source == target:
        return _SAME
    relative = source.startswith("relative") and target.startswith("relative")
    size = None if relative else image_size(media, meta, size_from)
    return Transfer(units(source, size, resize), units(target, size, resize))


@dataclass(frozen=True, slots=True)
class CoordinateFrames:
    """The frames of an answer's and its gold's coordinates in a row's image.

    The fields are named as the options of a reward are; each limit of `resize` is an option.

    >>> CoordinateFrames("relative_1000", size_from="size").into_gold((), {"size": [640, 480]})([500, 500])
    (320.0, 240.0)
    """

    frame: Frame = "absolute"
    """The answer's frame."""
    gold_frame: Frame = "absolute"
    gold_format: BoxFormat = "xyxy"
    """How the gold writes boxes: two corners, or a corner with width and height."""
    size_from: str | Sequence[str] | None = None
    """Columns of the row with the image size; by default it is read from the first image."""
    resize: Resize = _RESIZE
    """How the processor resized the image, for `absolute_resized`."""

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> CoordinateFrames:
        """The frames of a reward's options; absent options have their defaults."""
        frames, limits = (
            {f.name: options[f.name] for f in fields(kind) if f.name in options} for kind in (cls, Resize)
        )
        return cls(**frames, resize=Resize(**limits))

    def into_gold(self, media: Sequence[Any], meta: Mapping[str, Any]) -> Transfer:
        """Converts from the answer's frame to the gold's. Raises: ValueError as `transfer` does."""
        return transfer(self.frame, self.gold_frame, media, meta, self.size_from, self.resize)

    def out_of_gold(self, media: Sequence[Any], meta: Mapping[str, Any]) -> Transfer:
        """Converts from the gold's frame to the answer's. Raises: ValueError as `transfer` does."""
        return transfer(self.gold_frame, self.frame, media, meta, self.size_from, self.resize)

    def into_parts(self, side: Side, media: Sequence[Any], meta: Mapping[str, Any]) -> Transfer:
        """Converts from one side's frame to fractions of the image. Raises: ValueError as `transfer` does."""
        frame = self.gold_frame if side == "gold" else self.frame
        return transfer(frame, "relative_1", media, meta, self.size_from, self.resize)
