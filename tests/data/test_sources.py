"""Sources: every row of a file, its place, and a plain word about what cannot be read."""

from __future__ import annotations

import csv
import io
import json
import pickle
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morl.data import sources
from morl.errors import DataError, MissingExtraError

json_values = st.none() | st.booleans() | st.integers() | st.text() | st.lists(st.text(), max_size=2)
json_rows = st.dictionaries(st.text(min_size=1), json_values, max_size=3)


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@settings(max_examples=60, deadline=None)
@given(
    lines=st.lists(st.tuples(json_rows, st.integers(0, 2)), min_size=1, max_size=6),
    newline=st.sampled_from(["\n", "\r\n"]),
    bom=st.booleans(),
    ends=st.booleans(),
)
def test_jsonl_gives_every_row_and_its_line(lines, newline, bom, ends, tmp_path_factory):
    text, places = "", []
    for row, blanks in lines:
        text += (" " + newline) * blanks
        places.append(text.count("\n") + 1)
        text += json.dumps(row, ensure_ascii=False) + newline
    path = tmp_path_factory.mktemp("rows") / "a.jsonl"
    path.write_bytes((b"\xef\xbb\xbf" if bom else b"") + (text if ends else text.rstrip()).encode())
    rows = sources.jsonl(path=str(path))
    assert [rows[i] for i in range(len(rows))] == [row for row, _ in lines]
    assert [rows.where(i) for i in range(len(rows))] == [f"{path}:{place}" for place in places]
    assert pickle.loads(pickle.dumps(rows))[0] == rows[0]


def test_jsonl_keeps_offsets_and_not_rows():
    Path("big.jsonl").write_text((json.dumps({"text": "x" * 1000}) + "\n") * 5000)
    tracemalloc.start()
    rows = sources.jsonl(path="big.jsonl")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(rows) == 5000
    assert peak < 0.2 * Path("big.jsonl").stat().st_size


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"a": 1}\n{"a": \n', "a.jsonl:2: not valid JSON: Expecting value (column 6)"),
        (b'{"a": 1}\n\n[1]\n', "a.jsonl:3: a row is a JSON object, not an array"),
        (b'{"a": 1}\n7\n', "a.jsonl:2: a row is a JSON object, not a number"),
        (b'{"a": 1}\nnull\n', "a.jsonl:2: a row is a JSON object, not null"),
        (b'{"a": 1}\n{"a": "\xe9"}\n', "a.jsonl:2: not UTF-8 text (byte 7 of the line)"),
        (b'{"a": 1}\n{"a": ' + b"[" * 100_000 + b"\n", "a.jsonl:2: cannot be read: maximum recursion depth exceeded"),
        (b'{"a": 1}\n{"a": ' + b"7" * 10_000 + b"}\n", "a.jsonl:2: cannot be read: Exceeds the limit (4300 digits)"),
    ],
    ids=["cut", "array", "number", "null", "latin", "deep", "long"],
)
def test_jsonl_tells_the_line_of_a_bad_row(content, told):
    Path("a.jsonl").write_bytes(content)
    rows = sources.jsonl(path="a.jsonl")
    assert rows[0] == {"a": 1}
    with pytest.raises(DataError) as raised:
        rows[1]
    assert str(raised.value).startswith(told)


@pytest.mark.parametrize("source", [sources.jsonl, sources.csv])
@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "a: no rows; fill it, or remove its objective from the recipe"),
        (b"\n  \r\n", "a: no rows; fill it, or remove its objective from the recipe"),
        (b"\x1f\x8b\x08\x00", "a: gzip data; store it as plain UTF-8 text"),
        (b"\xff\xfea\x00", "a: UTF-16 data; store it as plain UTF-8 text"),
    ],
)
def test_a_file_without_rows_is_refused(source, content, told):
    Path("a").write_bytes(content)
    with pytest.raises(DataError) as raised:
        source(path="a")
    assert str(raised.value) == told


@pytest.mark.parametrize("source", [sources.jsonl, sources.csv, sources.parquet])
def test_a_missing_file_is_refused(source, tmp_path):
    with pytest.raises(DataError) as raised:
        source(path="gone")
    assert str(raised.value) == f"gone: no such file; paths are relative to the working folder {tmp_path}"
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        source(path=str(tmp_path))


def test_jsonl_refuses_an_array_with_the_remedy():
    Path("a.json").write_text('[\n{"a": 1}\n]\n')
    with pytest.raises(DataError, match=r"a\.json:1: starts a JSON array.*jq -c"):
        sources.jsonl(path="a.json")


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), min_size=1)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(cells, cells), min_size=1, max_size=6), delimiter=st.sampled_from(",;\t"))
def test_csv_gives_every_row(rows, delimiter, tmp_path_factory):
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer.writerows([("q", "a"), *rows])
    path = tmp_path_factory.mktemp("rows") / "a.csv"
    path.write_bytes(b"\xef\xbb\xbf" + text.getvalue().encode())
    read = sources.csv(path=str(path), delimiter=delimiter)
    assert [read[i] for i in range(len(read))] == [{"q": q, "a": a} for q, a in rows]


def test_csv_tells_the_line_of_a_bad_row():
    Path("a.csv").write_text('q,a\n"two\nlines",2\n\n3\n')
    rows = sources.csv(path="a.csv")
    assert rows[0] == {"q": "two\nlines", "a": "2"}
    assert rows.where(0) == "a.csv:2"
    with pytest.raises(DataError) as raised:
        rows[1]
    assert str(raised.value) == "a.csv:5: 1 values for 2 columns"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("q,q\n1,2\n", "a.csv:1: column names must be non-empty and unique, but 'q' is not"),
        ("q,\n1,2\n", "a.csv:1: column names must be non-empty and unique, but '' is not"),
        ('q,a\n"1,2\n', "a.csv:2: not valid CSV: unexpected end of data"),
        ("q,a\n", "a.csv: no rows; fill it, or remove its objective from the recipe"),
    ],
)
def test_csv_refuses_a_bad_file(content, told):
    Path("a.csv").write_text(content)
    with pytest.raises(DataError) as raised:
        sources.csv(path="a.csv")
    assert str(raised.value) == told


@pytest.fixture
def datasets(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    return datasets


ROWS = [{"q": "one", "box": [1, 2]}, {"q": "two", "box": [3]}]


def test_parquet_and_hugging_face_folders_give_their_rows(datasets):
    table = datasets.Dataset.from_list(ROWS)
    table.to_parquet("folder/train.parquet")
    table.save_to_disk("disk")
    datasets.DatasetDict({"test": table}).save_to_disk("disks")
    for rows in (
        sources.parquet(path="folder/train.parquet"),
        sources.huggingface(path="folder"),
        sources.huggingface(path="disk"),
        sources.huggingface(path="disks", split="test"),
    ):
        assert [rows[i] for i in range(len(rows))] == ROWS
    assert sources.parquet(path="folder/train.parquet").where(1) == "folder/train.parquet[1]"
    assert sources.huggingface(path="disks", split="test").where(0) == "disks(test)[0]"
    with pytest.raises(DataError, match=r"disks\(tst\): no split 'tst'; did you mean 'test'\?"):
        sources.huggingface(path="disks", split="tst")
    with pytest.raises(DataError, match=r"folder\(dev\): cannot be loaded: .*dev"):
        sources.huggingface(path="folder", split="dev")


def test_what_is_no_dataset_is_refused(datasets):
    Path("a.parquet").write_text("not parquet")
    with pytest.raises(DataError, match=r"^a\.parquet: cannot be read as Parquet: "):
        sources.parquet(path="a.parquet")
    with pytest.raises(DataError, match=r"^nobody/nothing\(train\): cannot be loaded: .*run\.offline"):
        sources.huggingface(path="nobody/nothing")


def test_reasoning_gym_makes_the_same_problems_each_time():
    made = [sources.reasoning_gym(dataset="basic_arithmetic", size=4, seed=1) for _ in range(2)]
    assert [dict(made[0][i]) for i in range(4)] == [dict(made[1][i]) for i in range(4)]
    assert {"question", "answer", "metadata"} <= set(made[0][0])
    assert made[0].where(3) == "reasoning_gym(basic_arithmetic)[3]"
    easy = sources.reasoning_gym(dataset="basic_arithmetic", size=1, config={"min_terms": 2, "max_terms": 2})
    assert easy[0]["metadata"]["num_terms"] == 2


def test_reasoning_gym_refuses_what_it_does_not_know():
    with pytest.raises(DataError, match="no dataset 'basic_arithmetc'; did you mean 'basic_arithmetic'"):
        sources.reasoning_gym(dataset="basic_arithmetc", size=1)
    with pytest.raises(DataError, match=r"reasoning_gym\(basic_arithmetic\): its config is refused: .*'terms'"):
        sources.reasoning_gym(dataset="basic_arithmetic", size=1, config={"terms": 2})


def test_a_missing_package_names_the_extra_that_has_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "reasoning_gym", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'morl-rl\[reasoning-gym\]'"):
        sources.reasoning_gym(dataset="basic_arithmetic", size=1)
