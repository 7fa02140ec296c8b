"""Rows and samples survive being cut off, resumed and holding things that JSON does not know."""

from __future__ import annotations

import base64
import datetime
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from track.groups import make_group

from morl.errors import DataError
from morl.track.jsonl_files import JsonlTracker, plain, read_rows, read_samples, truncate, write_samples
from morl.types import TermScore


def test_a_row_is_on_the_disk_when_the_call_returns(tmp_path: Path) -> None:
    tracker = JsonlTracker(tmp_path / "metrics.jsonl", tmp_path / "eval.jsonl")
    tracker.log(1, {"b": 2.0, "a": np.float32(0.5), "lost": float("nan")})
    tracker.log_eval({"step": 1, "set": "math", "mean": 0.25})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"a": 0.5, "b": 2.0, "lost": null, "step": 1}\n'
    assert list(read_rows(tmp_path / "eval.jsonl")) == [{"step": 1, "set": "math", "mean": 0.25}]
    tracker.close()


def test_truncation_drops_later_rows_and_a_torn_one(tmp_path: Path, caplog) -> None:
    path = tmp_path / "metrics.jsonl"
    rows = [json.dumps({"step": step}) for step in (0, 1, 2, 3)]
    path.write_text("\n".join([*rows, '{"step": 4, "rew']))
    truncate(path, 2)
    assert [row["step"] for row in read_rows(path)] == [0, 1, 2]
    assert "metrics.jsonl:5" in caplog.text
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.jsonl"]

    tracker = JsonlTracker(path, tmp_path / "eval.jsonl")
    tracker.log(3, {})
    tracker.close()
    assert [row["step"] for row in read_rows(path)] == [0, 1, 2, 3]


def test_a_whole_row_without_its_newline_is_kept_whole(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2}')
    truncate(path, 2)
    assert path.read_text() == '{"step": 1}\n{"step": 2}\n'
    truncate(tmp_path / "never.jsonl", 2)
    assert not (tmp_path / "never.jsonl").exists()


def test_samples_come_back_exactly(tmp_path: Path) -> None:
    terms = [{"box": TermScore(0.5, "ok", "IoU 0.5", 0.25)}, {"box": TermScore(None, "timeout")}]
    group = make_group("boxes", [0.5, None], terms=terms, gold=[1, 2.5], meta={"id": 7, "text": "é\ud800"})
    path = tmp_path / "samples" / "step-000003.jsonl.zst"
    write_samples(path, 3, [group, make_group("math", [1.0])])
    first, second, third = read_samples(path)
    assert first == {
        "step": 3,
        "objective": "boxes",
        "prompt_id": "boxes/0",
        "index": 0,
        "prompt": [{"role": "user", "content": "2+2?"}],
        "media": [],
        "gold": [1, 2.5],
        "meta": {"id": 7, "text": "é\ud800"},
        "response": "answer 0 ✓\u2028",
        "token_ids": [0, 1, 2],
        "loss_mask": [1, 1, 1],
        "logprobs": [-0.1234567890123456] * 3,
        "policy_version": 4,
        "finish_reason": "stop",
        "value": 0.5,
        "terms": {"box": {"value": 0.5, "status": "ok", "detail": "IoU 0.5", "seconds": 0.25}},
    }
    assert second["value"] is None
    assert second["terms"]["box"]["status"] == "timeout"
    assert third["objective"] == "math"
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_folder_of_samples_is_read_in_the_order_of_its_steps(tmp_path: Path) -> None:
    for step in (10, 2):
        write_samples(tmp_path / f"step-{step:06d}.jsonl.zst", step, [make_group("math", [1.0])])
    assert [row["step"] for row in read_samples(tmp_path)] == [2, 10]


def test_what_is_no_file_of_samples_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"track\.samples"):
        list(read_samples(tmp_path))
    path = tmp_path / "step-000001.jsonl.zst"
    path.write_bytes(b"nonsense")
    with pytest.raises(DataError, match="step-000001"):
        list(read_samples(path))
    write_samples(path, 1, [make_group("math", [1.0] * 50)])
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(DataError, match="step-000001"):
        list(read_samples(path))


def test_media_are_named_and_never_embedded(tmp_path: Path) -> None:
    image = Image.new("RGB", (64, 48))
    encoded = base64.b64encode(os.urandom(3000)).decode()
    group = make_group(
        "boxes",
        [1.0],
        messages=({"role": "user", "content": [{"type": "image", "image": f"data:image/png;base64,{encoded}"}]},),
        media=(image,),
        meta={"image": {"bytes": os.urandom(3000), "path": "a.png"}, "raw": encoded},
    )
    path = tmp_path / "step-000001.jsonl.zst"
    write_samples(path, 1, [group])
    (row,) = read_samples(path)
    assert row["prompt"][0]["content"][0]["image"].startswith("<image/png: ")
    assert row["media"] == ["<PIL.Image.Image 64x48>"]
    assert row["meta"] == {"image": {"bytes": "<bytes: 3000>", "path": "a.png"}, "raw": "<base64: 4000 characters>"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.int64(3), 3),
        (np.array([1, 2]), [1, 2]),
        (np.zeros((100, 100)), "<numpy.ndarray 100x100>"),
        (datetime.date(2024, 5, 1), "2024-05-01"),
        ({1: {"b", "a"}}, {"1": ["a", "b"]}),
        (float("inf"), None),
        (object(), "<builtins.object>"),
        (True, True),
    ],
)
def test_foreign_values_become_plain_ones(value, expected) -> None:
    assert plain(value) == expected
    json.dumps(plain(value), allow_nan=False)
