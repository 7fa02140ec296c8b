"""Video files, read through PyAV: headers and selected frames."""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morl.errors import BadMediaError, MissingExtraError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_VIDEO_PIXELS = 2**29
"""Of all frames shown of a video; each pixel takes 3 bytes."""
# Single-file formats: a playlist would make the library open other files.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,ogg,flv,gif,asf"


def read_header(source: Path | bytes, *, name: str) -> tuple[int, int, int, float]:
    """Width, height, number of frames and frames a second.

    Raises: BadMediaError; MissingExtraError when PyAV is not installed.
    """
    with _opened(source, name) as container:
        stream = _stream(container)
        rate = stream.average_rate or stream.guessed_rate
        width, height = int(stream.codec_context.width), int(stream.codec_context.height)
        # Not every container states the number of frames.
        frames = stream.frames or sum(packet.size > 0 for packet in container.demux(stream))
    if not frames or not rate:
        raise BadMediaError(f"{name}: the video has no frames")
    return width, height, int(frames), float(rate)


def read_frames(source: Path | bytes, numbers: Sequence[int], *, name: str) -> NDArray[np.uint8]:
    """The frames with these ascending numbers, `(frames, height, width, 3)`; others are decoded and dropped.

    Raises: BadMediaError when the file ends before the last of these.
    """
    import numpy as np

    frames: list[Any] = []
    with _opened(source, name) as container:
        for number, frame in enumerate(container.decode(_stream(container))):
            if number > numbers[-1]:
                break
            frames += [frame.to_ndarray(format="rgb24")] * numbers.count(number)
        if len(frames) < len(numbers):
            raise ValueError(f"it ends before frame {numbers[len(frames)]} that its header promises")
        return np.stack(frames)


def check_memory(frames: int, width: int, height: int) -> None:
    """Raises: BadMediaError when the frames exceed `MAX_VIDEO_PIXELS`."""
    if frames * width * height > MAX_VIDEO_PIXELS:
        raise BadMediaError(
            f"{frames} frames of {width} x {height} pixels exceed the limit of {MAX_VIDEO_PIXELS} pixels per "
            "video; lower media.max_frames or media.fps, or store it smaller"
        )


def _stream(container: Any) -> Any:
    if not container.streams.video:
        raise ValueError("it holds no video")
    return container.streams.video[0]


@contextlib.contextmanager
def _opened(source: Path | bytes, name: str) -> Iterator[Any]:
    """Raises: BadMediaError for any error in opening or reading it, in the block too."""
    if importlib.util.find_spec("av") is None:
        raise MissingExtraError("av", "video", "reading video files")
    import av

    try:
        with (
            contextlib.closing(io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")) as file,
            av.open(file, options={"format_whitelist": _FORMATS}) as container,
        ):
            yield container
    except Exception as error:  # decoders raise anything on broken data
        raise BadMediaError(f"{name} cannot be read: {getattr(error, 'strerror', None) or error}") from error
