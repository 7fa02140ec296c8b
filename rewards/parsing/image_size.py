"""Image sizes: of the original image, and as a processor of the Qwen2-VL family resizes it."""

from __future__ import annotations

import functools
import io
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from morl.media import upright_size
from morl.rewards.parsing.stated_values import decoded, finite

MAX_RATIO = 200
"""The greatest ratio of the longer to the shorter side."""
MAX_SIDE = 10**7
"""The most pixels of a side; a greater size is an error in the data."""
FACTOR, MIN_PIXELS, MAX_PIXELS = 28, 3136, 12_845_056
"""The resizing parameters of Qwen2-VL, Qwen2.5-VL and MiMo-VL."""


@dataclass(frozen=True, slots=True)
class Size:
    """Width and height of an image in pixels."""

    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Resize:
    """How a processor resizes: sides become multiples of `factor`, and the area stays within the limits (pixels)."""

    factor: int = FACTOR
    min_pixels: int = MIN_PIXELS
    max_pixels: int = MAX_PIXELS


def smart_resize(
    size: Size, *, factor: int = FACTOR, min_pixels: int = MIN_PIXELS, max_pixels: int = MAX_PIXELS
) -> Size:
    """The size at which the model sees the image, as the processors of Qwen2-VL and its successors compute it.

    Each side is rounded to the nearest multiple of `factor`, ties to even. If the area is then outside the
    limits, both sides are instead scaled by the same factor, the square root of limit over area, and rounded
    inwards.

    Raises: ValueError when one side is more than 200 times the other, or the limits contradict each other.
    """
    if factor <= 0 or not 0 < min_pixels <= max_pixels:
        raise ValueError(f"no size fits factor {factor} with {min_pixels} to {max_pixels} pixels")
    short, long = sorted((size.width, size.height))
    if long > MAX_RATIO * short:
        raise ValueError(f"an image of {size.width} x {size.height} is too narrow to be resized (over {MAX_RATIO}:1)")
    width, height = (round(side / factor) * factor for side in (size.width, size.height))
    if width * height > max_pixels:
        shrink = math.sqrt(size.width * size.height / max_pixels)
        width, height = (max(factor, math.floor(side / shrink / factor) * factor) for side in (size.width, size.height))
    elif width * height < min_pixels:
        grow = math.sqrt(min_pixels / (size.width * size.height))
        width, height = (math.ceil(side * grow / factor) * factor for side in (size.width, size.height))
    return Size(width, height)


def image_size(
    media: Sequence[Any], meta: Mapping[str, Any], columns: str | Sequence[str] | None = None
) -> Size | None:
    """The size of a row's first image, or None when it is unknown.

    Args:
        media: the row's images. The first may be an object with `width` and `height` or with
            `size` (width, height), a mapping of the two, an encoded image (`{"bytes": …}`), or the path of
            a file. Only the header of a file is read; the size respects the orientation in its metadata.
        meta: the row.
        columns: names of the row's columns with the size; they take precedence over the image. One column with
            `[width, height]` or `{"width": …, "height": …}`, or two columns, width first.

    Raises: ValueError when a column is missing or a size is invalid.
    """
    if columns is not None:
        names = [columns] if isinstance(columns, str) else list(columns)
        missing = [name for name in names if name not in meta]
        if missing or len(names) not in (1, 2):
            reason = f"the row has no column '{missing[0]}'" if missing else "name one column or two"
            raise ValueError(f"{reason} (size_from)")
        return _size(meta[names[0]] if len(names) == 1 else [meta[name] for name in names])
    if not media:
        return None
    first = media[0]
    if isinstance(first, str | Path):
        return _file_size(str(first), _modified(first))
    if isinstance(first, Mapping):
        if isinstance(first.get("bytes"), bytes):
            return _header_size(io.BytesIO(first["bytes"]), "the row's image")
        if isinstance(first.get("path"), str):
            return _file_size(first["path"], _modified(first["path"]))
        return _size(first) if "width" in first else None
    width, height = getattr(first, "width", None), getattr(first, "height", None)
    if width is not None and height is not None:
        return _size([width, height])
    size = getattr(first, "size", None)
    return _size(size) if isinstance(size, list | tuple) and len(size) == 2 else None


def _size(value: Any) -> Size:
    if isinstance(value, str):  # a table may store the size as text
        value = decoded(value)
    if isinstance(value, Mapping):
        value = [value.get("width"), value.get("height")]
    value = value.tolist() if callable(getattr(value, "tolist", None)) else value
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError("the size of an image is [width, height] or {width: …, height: …}")
    width, height = (finite(side.item() if callable(getattr(side, "item", None)) else side) for side in value)
    if any(side is None or side % 1 or not 0 < side <= MAX_SIDE for side in (width, height)):
        raise ValueError(f"the size of an image is two whole numbers of pixels, not {str(value)[:50]}")
    return Size(int(width or 0), int(height or 0))


_REMEDY = "name the columns that hold its size (size_from)"


def _modified(path: str | Path) -> int:
    try:
        return Path(path).stat().st_mtime_ns
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read the image {str(path)[:100]}: {_reason(error)}; {_REMEDY}") from error


@functools.lru_cache(maxsize=4096)
def _file_size(path: str, modified: int) -> Size:
    """The size in a file's header; `modified` keeps a replaced file from being answered from the cache."""
    with Path(path).open("rb") as file:
        return _header_size(file, path[:100])


def _header_size(file: IO[bytes], name: str) -> Size:
    try:
        from PIL import Image
    except ImportError as error:
        raise ValueError(f"reading the size of {name} needs pillow (pip install pillow); or {_REMEDY}") from error
    with warnings.catch_warnings():
        # Nothing is decoded, so a huge image does no harm.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(file) as image:
                return _size(upright_size(image))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ValueError(f"cannot read the size of {name}: {_reason(error)}; {_REMEDY}") from error


def _reason(error: BaseException) -> str:
    return (getattr(error, "strerror", None) or str(error))[:100]
