"""Images and videos of rows: what names them, what is wrong with them, and their pixels when they are wanted.

A row holds an image as a path or URL, as encoded bytes, as the `{"bytes", "path"}` of a Hugging Face
dataset, or as a PIL image. What flows through a run is a `Image` or a `Video`: a name and a size,
read from the header. Pixels are decoded where they are needed, and nowhere kept.
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
"""Pixels of a side, at least: less shows nothing, and is a slip of whoever made the data."""
MAX_RATIO = 200
"""Length over breadth, at most: processors of the Qwen-VL family refuse more."""
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""What is opened: formats that are decoded in this process, and reach for no other file or program."""

_ORIENTATION = 0x0112
# What undoes each EXIF orientation, by the names of PIL's transpositions.
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
    """How large things may be when the model sees them; None leaves it to the checkpoint's processor."""

    min_pixels: int | None = None
    max_pixels: int | None = None
    """Of an image, or of each frame of a video."""
    max_tokens: int | None = None
    """Of an image, or of a whole video."""
    fps: float = 2.0
    """Frames of a second of video that are shown."""
    max_frames: int = 256
    """Of a video; a longer one is shown with fewer a second."""


UNLIMITED = Limits()


@dataclass(frozen=True, slots=True)
class Image:
    """One image, undecoded."""

    source: Path | bytes | Any
    """A file, its bytes, or a PIL image."""
    width: int
    """Pixels, upright: after a rotation that its metadata ask for."""
    height: int
    limits: Limits = UNLIMITED

    @classmethod
    def of(
        cls, value: Any, folder: Path | None = None, limits: Limits = UNLIMITED, downloads: Path | None = None
    ) -> Image:
        """The image that a row's value names; its header is read, its pixels are not.

        Args:
            value: a path, URL, bytes, `{"bytes", "path"}`, a PIL image or an image.
            folder: what paths are relative to; the working folder when it is not given.
            limits: how large it may be when the model sees it.
            downloads: where what is named by URL is kept; URLs are refused when it is not given.

        Raises: BadMediaError when it is not there, no image, or of a size that no model takes.
        """
        if isinstance(value, Image):
            return value
        source = _source(value, folder, "image", downloads)
        with _opened(source) as image:
            return cls(source, *upright_size(image), limits)

    @property
    def name(self) -> str:
        """The path, or `sha256:` and the first half of the hash of what is in memory."""
        return _name(self.source)

    def load(self) -> PIL.Image.Image:
        """The pixels: upright and RGB, what is transparent on white, of an animation the first frame.

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
    """One video, undecoded: the frames that are shown of it."""

    source: Path | bytes | tuple[Image, ...]
    """A file, its bytes, or its frames."""
    width: int
    """Pixels of each frame."""
    height: int
    frames: int
    """All that there are."""
    recorded_fps: float
    """Frames a second, of all that there are."""
    limits: Limits = UNLIMITED

    @classmethod
    def of(
        cls, value: Any, folder: Path | None = None, limits: Limits = UNLIMITED, downloads: Path | None = None
    ) -> Video:
        """The video that a row's value names; of its frames only headers are read.

        Args:
            value: a file, its URL or its bytes (read by PyAV), a folder of frames, a list of images, `{"bytes",
                "path"}`, `{"frames", "fps"}` or a video. Frames without an `fps` were taken at `limits.fps`.
            folder: what paths are relative to; the working folder when it is not given.
            limits: how large it may be when the model sees it, and how many frames of it.
            downloads: where what is named by URL is kept; URLs are refused when it is not given.

        Raises: BadMediaError when it is not there, no video, or of a size that no model takes;
            MissingExtraError when PyAV is needed and not installed.
        """
        if isinstance(value, Video):
            return value
        recorded = limits.fps
        if isinstance(value, Mapping) and "frames" in value:
            value, recorded = value["frames"], _rate(value.get("fps") or limits.fps)
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            listed = list(value)
        else:
            source = _source(value, folder, "video", downloads)
            if not (isinstance(source, Path) and source.is_dir()):
                return cls._of_file(source, limits)
            listed = sorted((file for file in source.iterdir() if file.is_file()), key=_natural)
        return cls._of_frames([Image.of(frame, folder, limits, downloads) for frame in listed], recorded, limits)

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
        """The path of the file, or those of its first and last frame; a hash of what is in memory."""
        if not isinstance(self.source, tuple):
            return _name(self.source)
        if all(isinstance(frame.source, Path) for frame in self.source):
            return f"{self.source[0].name} … {self.source[-1].name}"
        return _name(" ".join(frame.name for frame in self.source).encode())

    @property
    def shown(self) -> list[int]:
        """Numbers of the frames that are shown: spread evenly, `limits.fps` a second, `limits.max_frames` at most."""
        wanted = self.frames / self.recorded_fps * self.limits.fps
        count = int(max(1, min(wanted, self.limits.max_frames, self.frames)))
        if count == 1:
            return [0]
        return [round(i * (self.frames - 1) / (count - 1)) for i in range(count)]

    @property
    def shown_fps(self) -> float:
        """Frames a second of those that are shown."""
        return len(self.shown) / self.frames * self.recorded_fps

    def load(self) -> NDArray[np.uint8]:
        """The frames that are shown, `(frames, height, width, 3)`.

        Raises: BadMediaError when one cannot be decoded, or there are too many to be held.
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
"""By the names that prompts have for them."""


def without_media(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row with names in the place of encoded or decoded images, which are too big to be carried along."""
    return {key: _lighter(value) for key, value in row.items()}


def _lighter(value: Any) -> Any:
    if isinstance(value, bytes) or hasattr(value, "tobitmap"):  # a PIL image, told without importing PIL
        return _name(value)
    if isinstance(value, Mapping):
        if isinstance(value.get("bytes"), bytes):
            return value.get("path") or _name(value["bytes"])
        return {key: _lighter(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_lighter(item) for item in value]
    return value


def check_size(width: int, height: int) -> None:
    """Refuse what no model takes. Raises: BadMediaError."""
    import PIL.Image

    short, long = sorted((width, height))
    if short < MIN_SIDE:
        raise BadMediaError(f"{width} x {height} pixels: too small to show anything; each side needs {MIN_SIDE}")
    if long > MAX_RATIO * short:
        raise BadMediaError(f"{width} x {height} pixels: one side is more than {MAX_RATIO} times the other")
    most = PIL.Image.MAX_IMAGE_PIXELS
    if most is not None and width * height > most:
        raise BadMediaError(f"{width} x {height} pixels: more than the {most} that are decoded (a decompression bomb?)")


def _source(value: Any, folder: Path | None, kind: str, downloads: Path | None) -> Path | bytes | Any:
    """A value of a row as a file that exists, as bytes, or as it is. Raises: BadMediaError."""
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
                "http": "name a folder to keep it in, data.media.downloads, or download it and name the file",
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
    """The image behind a source, its size checked before anything is decoded.

    Raises: BadMediaError for whatever goes wrong with it, in the block too.
    """
    import PIL.Image

    name = str(source) if isinstance(source, Path) else "the image"
    try:
        with warnings.catch_warnings():
            # Of large sizes; ours are checked below, and are an error.
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            if isinstance(source, Path | bytes):
                PIL.Image.init()
                known = [kind for kind in FORMATS if kind in PIL.Image.OPEN]
                opened = PIL.Image.open(source if isinstance(source, Path) else io.BytesIO(source), formats=known)
            else:
                opened = source.copy()  # ours to close
        with opened as image:
            check_size(*image.size)
            yield image
    except BadMediaError as error:
        raise BadMediaError(f"{name}: {error}") from error
    except PIL.Image.DecompressionBombError as error:  # so large that even the header is not given
        most = PIL.Image.MAX_IMAGE_PIXELS
        raise BadMediaError(f"{name}: more pixels than the {most} that are decoded (a decompression bomb?)") from error
    except Exception as error:  # decoders raise anything on broken data
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise BadMediaError(f"{name} cannot be read: {reason:.200}") from error


def _orientation(image: PIL.Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 is upright. Only the header is read."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # PIL would decode the whole image to look behind it
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001  # broken metadata of an image that may be good
        return 1


def upright_size(image: PIL.Image.Image) -> tuple[int, int]:
    """Width and height in pixels, after a rotation that the image's metadata ask for."""
    width, height = image.size
    return (height, width) if _orientation(image) >= 5 else (width, height)


def _rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    """As 8-bit RGB. Raises: ValueError for numbers that are no brightness."""
    import PIL.Image

    if image.mode.startswith("I"):  # 16 bits a pixel, whatever PIL keeps them in
        return image.convert("I").point(lambda value: value * (1 / 257)).convert("L").convert("RGB")
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, and which of them is white it does not say")
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
