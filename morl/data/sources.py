"""Sources of rows: functions whose keyword-only options are keys of `data` in a recipe.

Plugins add sources through the entry point group `morl.sources`.
"""

from __future__ import annotations

import csv as csv_module
import io
import json
from array import array
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Protocol

from pydantic import Field

from morl.error_messages import did_you_mean
from morl.errors import AbsentDataError, DataError, MissingExtraError
from morl.files import PACKAGE, local_path
from morl.registry import SOURCES

_BOM = b"\xef\xbb\xbf"
_FOREIGN = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f": "zstd", b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


class Rows(Protocol):
    """Rows of data, each a mapping of field to value, read on access."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Mapping[str, Any]:
        """One row. Raises: DataError naming the row when it cannot be read."""
        ...

    def where(self, index: int) -> str:
        """The row for people, as `data/math.jsonl:17`."""
        ...


def folder_of(rows: Rows) -> Path | None:
    """The folder that paths in the rows are relative to: the rows' attribute `folder`, if any."""
    return getattr(rows, "folder", None)


class JsonLines:
    """Rows of a JSON lines file. Memory holds only the offset of each row, 8 bytes."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.folder = Path(path).parent
        self._offsets = array("Q")
        # For each blank line, the index of the next row: enough to compute a row's line.
        self._blanks = array("Q")
        with _open(path) as file:
            offset = _skip_bom(file)
            for line in file:
                if line.isspace():
                    self._blanks.append(len(self._offsets))
                else:
                    self._offsets.append(offset)
                offset += len(line)
        _refuse_empty(path, len(self._offsets))
        self._refuse_array()

    def _refuse_array(self) -> None:
        start = self._line(0)
        if start.startswith(b"[") and not start.rstrip().endswith(b"]"):
            raise DataError(
                f"{self.where(0)}: starts a JSON array, but jsonl needs one object per line: "
                f"jq -c '.[]' {self.path} > rows.jsonl"
            )

    def _line(self, index: int) -> bytes:
        with Path(self.path).open("rb") as file:
            file.seek(self._offsets[index])
            return file.readline()

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        try:
            row = json.loads(self._line(index).rstrip())
        except UnicodeDecodeError as error:
            raise DataError(f"{self.where(index)}: not UTF-8 text (byte {error.start} of the line)") from error
        except json.JSONDecodeError as error:
            raise DataError(f"{self.where(index)}: not valid JSON: {error.msg} (column {error.colno})") from error
        except (ValueError, RecursionError) as error:  # numbers of thousands of digits, deep nesting
            raise DataError(f"{self.where(index)}: cannot be read: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{self.where(index)}: a row is a JSON object, not {_json_type(row)}")
        return row

    def where(self, index: int) -> str:
        """`file:line`."""
        return f"{self.path}:{index + 1 + bisect_right(self._blanks, index)}"


class CsvRows:
    """Rows of a CSV file with a header; every value is text. Memory holds only offsets."""

    def __init__(self, path: str, delimiter: str) -> None:
        self.path = path
        self.folder = Path(path).parent
        self._delimiter = delimiter
        self._offsets = array("Q")
        self._lines = array("Q")
        with _open(path) as file:
            _skip_bom(file)
            lines = _CountedLines(file, path)
            reader = csv_module.reader(lines, delimiter=delimiter, strict=True)
            self._header: list[str] = []
            while True:
                offset, line = lines.offset, lines.line + 1
                try:
                    record = next(reader)
                except StopIteration:
                    break
                except csv_module.Error as error:
                    raise DataError(f"{path}:{line}: not valid CSV: {error}") from error
                if not record:
                    continue
                if not self._header:
                    self._header = record
                else:
                    self._offsets.append(offset)
                    self._lines.append(line)
        _refuse_empty(path, len(self._offsets))
        for name in self._header:
            if not name.strip() or self._header.count(name) > 1:
                raise DataError(f"{path}:1: column names must be non-empty and unique, but {name!r} is not")

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        with Path(self.path).open("rb") as file:
            file.seek(self._offsets[index])
            record = next(csv_module.reader(_CountedLines(file, self.path), delimiter=self._delimiter, strict=True))
        if len(record) != len(self._header):
            raise DataError(f"{self.where(index)}: {len(record)} values for {len(self._header)} columns")
        return dict(zip(self._header, record, strict=True))

    def where(self, index: int) -> str:
        """`file:line` of the row's first line."""
        return f"{self.path}:{self._lines[index]}"


class _CountedLines:
    """Lines of a file as text, counted, with the offset of the next one."""

    def __init__(self, file: BinaryIO, path: str) -> None:
        self._file = file
        self._path = path
        self.offset = file.tell()
        self.line = 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        raw = self._file.readline()
        if not raw:
            raise StopIteration
        self.offset += len(raw)
        self.line += 1
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"{self._path}:{self.line}: not UTF-8 text; save it as UTF-8") from error


class TableRows:
    """Rows of something with a length and items, such as a Hugging Face dataset."""

    def __init__(self, name: str, table: Any, folder: Path | None = None) -> None:
        self.folder = folder
        self._name = name
        self._table = table
        _refuse_empty(name, len(table))

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        row: Mapping[str, Any] = self._table[index]
        return row

    def where(self, index: int) -> str:
        """`name[index]`, counted from 0."""
        return f"{self._name}[{index}]"


@SOURCES.register("jsonl")
def jsonl(*, path: str) -> Rows:
    """One JSON object per line."""
    return JsonLines(_located(path))


@SOURCES.register("json")
def json_array(*, path: str) -> Rows:
    """A JSON file with one array of objects, read into memory."""
    path = _located(path)
    with _open(path) as file:
        try:
            rows = json.load(file)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: not valid JSON: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path}: json needs one array of objects; for one object per line, use source: jsonl")
    return TableRows(path, rows, Path(path).parent)


@SOURCES.register("csv")
def csv(*, path: str, delimiter: Annotated[str, Field(min_length=1, max_length=1)] = ",") -> Rows:
    """Comma-separated values with a header line; values are text."""
    return CsvRows(_located(path), delimiter)


@SOURCES.register("parquet")
def parquet(*, path: str) -> Rows:
    """A Parquet file, converted once to a memory-mapped cache on disk."""
    path = _located(path)
    _open(path).close()
    library = _datasets()
    try:
        return TableRows(path, _undecoded(library.Dataset.from_parquet(path)), Path(path).parent)
    except Exception as error:
        raise DataError(f"{path}: cannot be read as Parquet: {_root_cause(error)}") from error


@SOURCES.register("huggingface")
def huggingface(*, path: str, split: str = "train", name: str | None = None) -> Rows:
    """A Hugging Face dataset: a folder of data files or of `save_to_disk`, or a name on the hub."""
    library = _datasets()
    label = f"{path}({name}, {split})" if name else f"{path}({split})"
    try:
        if (Path(path) / "state.json").is_file() or (Path(path) / "dataset_dict.json").is_file():
            loaded = library.load_from_disk(path)
        else:
            loaded = library.load_dataset(path, name, split=split)
    except Exception as error:
        message = f"{label}: cannot be loaded: {_root_cause(error)}"
        if library.config.HF_HUB_OFFLINE and not Path(path).exists():
            remedy = "no such folder here, and run.offline forbids fetching it"
            raise AbsentDataError(f"{message}; {remedy}") from error
        raise DataError(message) from error
    if isinstance(loaded, library.DatasetDict):
        if split not in loaded:
            raise DataError(f"{label}: no split '{split}'{did_you_mean(split, loaded)}")
        loaded = loaded[split]
    return TableRows(label, _undecoded(loaded), Path(path) if Path(path).is_dir() else None)


@SOURCES.register("reasoning_gym")
def reasoning_gym(*, dataset: str, size: int, seed: int = 0, config: dict[str, Any] | None = None) -> Rows:
    """Problems generated by the package reasoning_gym, with `question`, `answer` and `metadata`."""
    try:
        import reasoning_gym as gym
        from reasoning_gym.factory import DATASETS
    except ImportError as error:
        raise MissingExtraError("reasoning_gym", "reasoning-gym", "the data source 'reasoning_gym'") from error
    if dataset not in DATASETS:
        raise DataError(f"reasoning_gym has no dataset '{dataset}'{did_you_mean(dataset, DATASETS)}")
    label = f"reasoning_gym({dataset})"
    try:
        problems = gym.create_dataset(dataset, size=size, seed=seed, **(config or {}))
    except (TypeError, ValueError, AssertionError) as error:
        raise DataError(f"{label}: its config is refused: {error}") from error
    return TableRows(label, problems)


class _Undecoded:
    """Rows of a Hugging Face dataset as stored: images and videos as `{"bytes", "path"}`."""

    def __init__(self, table: Any) -> None:
        self._table = table.with_format("arrow")

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        row: Mapping[str, Any] = self._table[index].to_pylist()[0]
        return row


def _undecoded(table: Any) -> Any:
    """The dataset with images and videos left undecoded."""
    return _Undecoded(table) if _holds_media(dict(table.features)) else table


def _holds_media(feature: Any) -> bool:
    library = _datasets()
    if isinstance(feature, dict):
        return any(map(_holds_media, feature.values()))
    return isinstance(feature, library.Image | library.Video) or (
        hasattr(feature, "feature") and _holds_media(feature.feature)
    )


def _datasets() -> Any:
    """The library `datasets`, without its progress bars."""
    import datasets

    datasets.disable_progress_bars()
    return datasets


def _located(path: str) -> str:
    """The path of a file; `package:<module>/<file>` is in an installed package. Raises: AbsentDataError."""
    try:
        return str(local_path(path)) if path.startswith(PACKAGE) else path
    except FileNotFoundError as error:
        raise AbsentDataError(str(error)) from error


def _open(path: str) -> io.BufferedReader:
    """Raises: AbsentDataError when the file does not exist, DataError when it cannot be opened."""
    try:
        return Path(path).open("rb")
    except FileNotFoundError as error:
        raise AbsentDataError(f"{path}: no such file; paths are relative to the working folder {Path.cwd()}") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _skip_bom(file: io.BufferedReader) -> int:
    """Skip a byte order mark. Returns: the offset of the text."""
    start = file.read(3)
    for magic, kind in _FOREIGN.items():
        if start.startswith(magic):
            raise DataError(f"{file.name}: {kind} data; store it as plain UTF-8 text")
    file.seek(len(_BOM) if start == _BOM else 0)
    return file.tell()


def _refuse_empty(name: str, rows: int) -> None:
    if rows == 0:
        raise DataError(f"{name}: no rows; fill it, or remove its objective from the recipe")


def _json_type(value: Any) -> str:
    names = {list: "an array", str: "a string", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")


def _root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error).splitlines()[0] if str(error) else type(error).__name__


__all__ = [
    "CsvRows",
    "JsonLines",
    "Rows",
    "TableRows",
    "csv",
    "folder_of",
    "huggingface",
    "jsonl",
    "parquet",
    "reasoning_gym",
]
