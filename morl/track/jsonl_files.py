"""JSONL files of every run: metrics, evaluations and samples."""

from __future__ import annotations

import json
import logging
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from morl.errors import AbsentDataError, DataError
from morl.files import replacing
from morl.media import Image, Video
from morl.types import Group, Sample, Score

logger = logging.getLogger(__name__)

_DATA_URI = re.compile(r"data:([\w.+-]+/[\w.+-]+)?[^,]*;base64,")
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{1024,}={0,2}")


class JsonlTracker:
    """Writes `metrics.jsonl`, one row per step, and `eval.jsonl`; each row is on the disk when the call returns."""

    def __init__(self, metrics: Path, evaluations: Path) -> None:
        self._metrics = metrics.open("ab")
        self._evaluations = evaluations.open("ab")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one step's row."""
        _append(self._metrics, {"step": step, **metrics})

    def log_eval(self, row: Mapping[str, Any]) -> None:
        """Append one evaluation's row."""
        _append(self._evaluations, row)

    def close(self) -> None:
        """Close both files."""
        self._metrics.close()
        self._evaluations.close()


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL file; torn lines are skipped with a warning, and a missing file has no rows."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise ValueError("not an object")
            except ValueError:
                logger.warning("%s:%d: a torn row is dropped", path, number)
            else:
                yield row


def truncate(path: Path, after_step: int) -> None:
    """Drop the rows of later steps, which a resumed run repeats, and a torn last line."""
    if not path.exists():
        return
    with replacing(path) as file:
        for row in read_rows(path):
            if row.get("step", 0) <= after_step:
                file.write(_line(row))


def write_samples(path: Path, step: int, groups: Iterable[Group]) -> None:
    """Write every sample of a step with its score, atomically.

    Images and videos are named, never embedded.
    """
    import zstandard

    with (
        replacing(path) as file,
        zstandard.ZstdCompressor(level=3, write_checksum=True).stream_writer(file, closefd=False) as stream,
    ):
        for group in groups:
            for sample, score in zip(group.samples_G, group.scores_G, strict=True):
                stream.write(_line(sample_row(step, group, sample, score)))


def read_samples(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a samples file, or of all such files of a folder in order of their steps.

    Raises: AbsentDataError when `path` does not exist; DataError when it holds no samples, or an unreadable file.
    """
    import zstandard

    if not path.exists():
        raise AbsentDataError(f"{path}: no such file or folder of samples")
    files = sorted(path.glob("step-*.jsonl.zst")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: no samples (step-….jsonl.zst) here; track.samples: true keeps them")
    for file in files:
        try:
            with file.open("rb") as raw:
                yield from map(json.loads, _decompressed_lines(raw))
        except (OSError, ValueError, zstandard.ZstdError) as error:
            raise DataError(f"{file}: not a readable file of samples: {error}") from error


def _decompressed_lines(raw: BinaryIO) -> Iterator[bytes]:
    import zstandard

    # Not zstandard's stream reader: it does not notice a truncated file.
    frame, rest = zstandard.ZstdDecompressor().decompressobj(), b""
    while chunk := raw.read(1 << 16):
        *lines, rest = (rest + frame.decompress(chunk)).split(b"\n")
        yield from lines
    if not frame.eof:
        raise ValueError("it is truncated")


def sample_row(step: int, group: Group, sample: Sample, score: Score) -> dict[str, Any]:
    """One sample as JSON values."""
    prompt = group.prompt
    return {
        "step": step,
        "objective": prompt.objective,
        "prompt_id": prompt.id,
        "index": sample.index,
        "prompt": plain(prompt.messages),
        "media": plain(prompt.media),
        "gold": plain(prompt.gold),
        "meta": plain(prompt.meta),
        "response": sample.text,
        "token_ids": sample.token_ids_T,
        "loss_mask": sample.loss_mask_T,
        "logprobs": [value if math.isfinite(value) else None for value in sample.logprobs_T],
        "policy_version": sample.policy_version,
        "finish_reason": sample.finish_reason,
        **score.as_json(),
    }


def plain(value: Any) -> Any:
    """Convert `value` to JSON types; values that JSON cannot hold or that are too large become short names.

    >>> plain({"at": Path("a.png"), "raw": b"12", "box": (1, 2)})
    {'at': 'a.png', 'raw': '<bytes: 2>', 'box': [1, 2]}
    """
    if isinstance(value, str):
        return _without_media(value)
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, bytes | bytearray):
        return f"<bytes: {len(value)}>"
    if isinstance(value, set | frozenset):
        return sorted((plain(item) for item in value), key=str)
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, Image | Video):
        return value.name
    return _foreign(value)


def _foreign(value: Any) -> Any:
    """A number of another library as a number, a small array as a list, anything else as its type name."""
    if hasattr(value, "isoformat"):
        return value.isoformat()
    size = getattr(value, "size", None)
    if hasattr(value, "tolist") and (not isinstance(size, int) or size <= 1024):
        return plain(value.tolist())
    shape = getattr(value, "shape", size)
    shown = f" {'x'.join(map(str, shape))}" if isinstance(shape, tuple) else ""
    return f"<{type(value).__module__}.{type(value).__qualname__}{shown}>"


def _without_media(text: str) -> str:
    uri = _DATA_URI.match(text)
    if uri is not None:
        return f"<{uri[1] or 'data'}: {len(text)} characters>"
    if _BASE64.fullmatch(text):
        return f"<base64: {len(text)} characters>"
    return text


def _append(file: BinaryIO, row: Mapping[str, Any]) -> None:
    file.write(_line(plain(row)))
    file.flush()
    os.fsync(file.fileno())


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, sort_keys=True, allow_nan=False).encode() + b"\n"
