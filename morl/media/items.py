"""Images and videos of rows: finding, checking and decoding them.

A row holds an image as a path or URL, as encoded bytes, as the `{"bytes", "path"}` of a Hugging Face
dataset, or as a PIL image. A run passes on an `Image` or a `Video`: its source, and the size read from the
header. Pixels are decoded where they are needed, and never kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morl.errors import BadMediaError
from morl.media.downloads import fetch

if TYPE_CHECKING:
    import numpy as np
    import PIL.Image
    from numpy.typing import NDArray

MIN_SIDE = 4
"""Smallest side in pixels: a smaller image shows nothing and is an error in the data."""
MAX_RATIO = 200
"""Largest ratio of the sides: processors of the Qwen-VL family refuse more."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""Formats to open: decoded in this process, without other files or programs."""

_ORIENTATION = 0x0112
# PIL's transposition that undoes each EXIF orientation.
_UPRIGHT = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}


@dataclass(frozen=True, slots=True)
class Limits:
    """Size limits of the model's input; None leaves them to the checkpoint's processor."""

    min_pixels: int | None = None
    max_pixels: int | None = None
    """Of an image, or of each frame of a video."""
    max_tokens: int | None = None
    """Of an image, or of a whole video."""
    fps: float = 2.0
    """Frames shown per second of video."""
    max_frames: int = 256
    """Frames shown of a video; a longer one is shown at a lower rate."""


UNLIMITED = Limits()


@dataclass(frozen=True, slots=True)
class Image:
    """One image, undecoded."""

    source: Path | bytes | Any
    """A file, its bytes, or a PIL image."""
    width: int
    """Pixels, after the rotation in its metadata."""
    height: int
    limits: Limits = UNLIMITED

    @classmethod
    def of(
        cls, value: Any, folder: Path | None = None, limits: Limits = UNLIMITED, downloads: Path | None = None
    ) -> Image:
        """The image of a row's value; reads its header, not its pixels.

        Args:
            value: a path, URL, bytes, `{"bytes", "path"}`, a PIL image or an image.
            folder: base of relative paths; the working folder by default.
            limits: size limits of the model's input.
            downloads: the folder that keeps files named by URL; URLs are refused without one.

        Raises: BadMediaError when it is missing, not an image, or of a size that no model takes.
        """
        if isinstance(value, Image):
            return value
        source = _source(value, folder, "image", downloads)
        with _opened(source) as image:
            return cls(source, *upright_size(image), limits)

    @property
    def name(self) -> str:
        """The path, or for data in memory `sha256:` and the first half of its hash."""
        return _name(self.source)

    def load(self) -> PIL.Image.Image:
        """The pixels: upright, RGB, transparency on white, the first frame of an animation.

        Raises: BadMediaError when it cannot be decoded.
        """
        import PIL.Image

        with _opened(self.source) as opened:
            orientation = _orientation(opened)
            pixels = _rgb(opened)
        if orientation in _UPRIGHT:
            pixels = pixels.transpose(PIL.Image.Transpose[_UPRIGHT[orientation]])
        return pixels

    def check(self) -> None:
        """Raises: BadMediaError when it cannot be decoded."""
        self.load()


@dataclass(frozen=True, slots=True)
class Video:
    """One video, undecoded."""

    source: Path | bytes | tuple[Image, ...]
    """A file, its bytes, or its frames."""
    width: int
    """Pixels of each frame."""
    height: int
    frames: int
    """Number of frames in the source."""
    recorded_fps: float
    """Frames per second of the source."""
    limits: Limits = UNLIMITED

    @classmethod
    def of(
        cls, value: Any, folder: Path | None = None, limits: Limits = UNLIMITED, downloads: Path | None = None
    ) -> Video:
        """The video of a row's value; reads headers only.

        Args:
            value: a file, its URL or its bytes (read by PyAV), a folder of frames, a list of images, `{"bytes",
                "path"}`, `{"frames", "fps"}` or a video. Frames without an `fps` count as recorded at `limits.fps`.
            folder: base of relative paths; the working folder by default.
            limits: size and frame limits of the model's input.
            downloads: the folder that keeps files named by URL; URLs are refused without one.

        Raises: BadMediaError when it is missing, not a video, or of a size that no model takes;
            MissingExtraError when PyAV is needed and not installed.
        """
        if isinstance(value, Video):
            return value
        recorded = limits.fps
        if isinstance(value, Mapping) and "frames" in value:
            value, recorded = value["frames"], _rate(value.get("fps") or limits.fps)
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            frames = list(value)
        else:
            source = _source(value, folder, "video", downloads)
            if not (isinstance(source, Path) and source.is_dir()):
                return cls._of_file(source, limits)
            frames = sorted((file for file in source.iterdir() if file.is_file()), key=_natural)
        return cls._of_frames([Image.of(frame, folder, limits, downloads) for frame in frames], recorded, limits)

    @classmethod
    def _of_frames(cls, frames: Sequence[Image], recorded: float, limits: Limits) -> Video:
        sizes = {(frame.width, frame.height) for frame in frames}
        if not sizes:
            raise BadMediaError("the video has no frames")
        if len(sizes) > 1:
            (w, h), (v, g), *_ = sorted(sizes)
            raise BadMediaError(f"the frames of the video differ in size: {w} x {h} and {v} x {g} pixels")
        return cls(tuple(frames), *sizes.pop(), len(frames), recorded, limits)

    @classmethod
    def _of_file(cls, source: Path | bytes | Any, limits: Limits) -> Video:
        from morl.media.video import read_header

        if not isinstance(source, Path | bytes):
            raise BadMediaError(f"a video is a file, a folder or a list of frames, not {type(source).__name__}")
        width, height, frames, rate = read_header(source, name=_name(source))
        check_size(width, height)
        return cls(source, width, height, frames, rate, limits)

    @property
    def name(self) -> str:
        """The path of the file, or those of its first and last frame; for data in memory its hash."""
        if not isinstance(self.source, tuple):
            return _name(self.source)
        if all(isinstance(frame.source, Path) for frame in self.source):
            return f"{self.source[0].name} … {self.source[-1].name}"
        return _name(" ".join(frame.name for frame in self.source).encode())

    @property
    def shown(self) -> list[int]:
        """Numbers of the frames shown: spread evenly, at `limits.fps`, at most `limits.max_frames`."""
        wanted = self.frames / self.recorded_fps * self.limits.fps
        count = int(max(1, min(wanted, self.limits.max_frames, self.frames)))
        if count == 1:
            return [0]
        return [round(i * (self.frames - 1) / (count - 1)) for i in range(count)]

    @property
    def shown_fps(self) -> float:
        """Rate of the frames shown, per second of video."""
        return len(self.shown) / self.frames * self.recorded_fps

    def load(self) -> NDArray[np.uint8]:
        """The frames shown, `(frames, height, width, 3)`.

        Raises: BadMediaError when one cannot be decoded, or they exceed `MAX_VIDEO_PIXELS`.
        """
        import numpy as np

        from morl.media.video import check_memory, read_frames

        check_memory(len(self.shown), self.width, self.height)
        if isinstance(self.source, tuple):
            return np.stack([np.asarray(self.source[number].load()) for number in self.shown])
        return read_frames(self.source, self.shown, name=_name(self.source))

    def check(self) -> None:
        """Raises: BadMediaError when it cannot be decoded."""
        self.load()


KINDS: dict[str, type[Image] | type[Video]] = {"image": Image, "video": Video}
"""By the key in a recipe's prompt."""


def without_media(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row with each image in memory replaced by its name, to keep it small."""
    return {key: _lighter(value) for key, value in row.items()}


def _lighter(value: Any) -> Any:
    if isinstance(value, bytes) or hasattr(value, "tobitmap"):  # a PIL image, recognised without importing PIL
        return _name(value)
    if isinstance(value, Mapping):
        if isinstance(value.get("bytes"), bytes):
            return value.get("path") or _name(value["bytes"])
        return {key: _lighter(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_lighter(item) for item in value]
    return value


def check_size(width: int, height: int) -> None:
    """Raises: BadMediaError for a size that no model takes."""
    import PIL.Image

    short, long = sorted((width, height))
    if short < MIN_SIDE:
        raise BadMediaError(f"{width} x {height} pixels: too small to show anything; each side needs {MIN_SIDE}")
    if long > MAX_RATIO * short:
        raise BadMediaError(f"{width} x {height} pixels: one side is more than {MAX_RATIO} times the other")
    limit = PIL.Image.MAX_IMAGE_PIXELS
    if limit is not None and width * height > limit:
        raise BadMediaError(f"{width} x {height} pixels: more than the limit of {limit} (a decompression bomb?)")


def _source(value: Any, folder: Path | None, kind: str, downloads: Path | None) -> Path | bytes | Any:
    """A row's value as an existing path, as bytes, or unchanged. Raises: BadMediaError."""
    if isinstance(value, Mapping):
        value = value.get("bytes") or value.get("path")
    if isinstance(value, bytes):
        return value
    if isinstance(value, str | Path):
        text = str(value)
        if re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+:", text) and not Path(text).exists():
            scheme = text.partition(":")[0].lower()
            if scheme in ("http", "https") and downloads is not None:
                return fetch(text, downloads)
            remedy = {
                "data": "store its bytes",
                "http": "set data.media.downloads to a folder to keep it in, or download it and name the file",
            }.get(scheme.removesuffix("s"), "download it, and name the file")
            raise BadMediaError(f"a {kind} given by '{scheme}:' is not read: {remedy}")
        path = (folder or Path()) / Path(text).expanduser()
        if not path.exists():
            raise BadMediaError(f"no such {kind}: {text}; paths are relative to {(folder or Path()).resolve()}")
        return path
    if kind == "image" and not hasattr(value, "tobitmap"):
        raise BadMediaError(f"an image is a path, bytes, {{bytes, path}} or a PIL image, not {type(value).__name__}")
    return value


def _name(source: Any) -> str:
    if isinstance(source, Path):
        return str(source)
    data = source if isinstance(source, bytes) else source.tobytes()
    return f"sha256:{hashlib.sha256(data).hexdigest()[:32]}"


@contextlib.contextmanager
def _opened(source: Path | bytes | Any) -> Iterator[PIL.Image.Image]:
    """The opened image, its size checked before decoding.

    Raises: BadMediaError for any error in opening or decoding it, in the block too.
    """
    import PIL.Image

    name = str(source) if isinstance(source, Path) else "the image"
    try:
        with warnings.catch_warnings():
            # Sizes are checked below, as an error.
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            if isinstance(source, Path | bytes):
                PIL.Image.init()
                known = [kind for kind in FORMATS if kind in PIL.Image.OPEN]
                opened = PIL.Image.open(source if isinstance(source, Path) else io.BytesIO(source), formats=known)
            else:
                opened = source.copy()  # a copy, as it is closed below
        with opened as image:
            check_size(*image.size)
            yield image
    except BadMediaError as error:
        raise BadMediaError(f"{name}: {error}") from error
    except PIL.Image.DecompressionBombError as error:  # so large that PIL refuses to read its header
        limit = PIL.Image.MAX_IMAGE_PIXELS
        raise BadMediaError(f"{name}: more pixels than the limit of {limit} (a decompression bomb?)") from error
    except Exception as error:  # decoders raise anything on broken data
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise BadMediaError(f"{name} cannot be read: {reason:.200}") from error


def _orientation(image: PIL.Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 is upright. Only the header is read."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # PIL would decode the whole image to find metadata after it
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001  # broken metadata in a usable image
        return 1


def upright_size(image: PIL.Image.Image) -> tuple[int, int]:
    """Width and height in pixels, after the rotation in the image's metadata."""
    width, height = image.size
    return (height, width) if _orientation(image) >= 5 else (width, height)


def _rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """As 8-bit RGB. Raises: ValueError for floating-point pixels."""
    import PIL.Image

    if image.mode.startswith("I"):  # 16 bits per pixel, in any of PIL's modes
        return image.convert("I").point(lambda value: value * (1 / 257)).convert("L").convert("RGB")
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers without a defined white")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        return PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), layered).convert("RGB")
    return image.convert("RGB")


def _rate(value: Any) -> float:
    try:
        rate = float(value)
    except (TypeError, ValueError):
        rate = 0.0
    if not 0 < rate < 1e4:
        raise BadMediaError(f"the fps of a video is a number of frames a second, not {value!r:.40}")
    return rate


def _natural(path: Path) -> list[tuple[int, str]]:
    """Sorts frame-2 before frame-10."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", path.name)]
