"""Frames, sizes, and every way in which an answer may write a box or a point."""

from __future__ import annotations

import io
import math
import os
import random
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morl.compat import guard_torchvision
from morl.rewards.parsing.coordinates import Frame, Transfer, transfer, units
from morl.rewards.parsing.image_size import MAX_PIXELS, MIN_PIXELS, Resize, Size, image_size, smart_resize
from morl.rewards.parsing.locations import explicitly_empty, point_from, read_boxes, read_points
from morl.rewards.parsing.stated_values import MAX_FOUND, NOT_JSON, decoded, finite

FRAMES: list[Frame] = ["absolute", "absolute_resized", "relative_1000", "relative_1"]


def test_resizing_is_that_of_the_processor() -> None:
    guard_torchvision()
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize as theirs

    drawn = random.Random(0)
    limits = [{}, {"max_pixels": 1_003_520}, {"min_pixels": 200_704}, {"factor": 32, "min_pixels": 4096}]
    sizes = [(drawn.randint(1, 5000), drawn.randint(1, 5000)) for _ in range(2000)]
    sizes += [(1, 1), (14, 14), (42, 70), (1, 200), (200, 1), (1, 201), (30000, 151), (28, 5600), (20000, 20000)]
    refused = 0
    for width, height in sizes:
        for limit in limits:
            try:
                expected = theirs(height, width, **{"min_pixels": MIN_PIXELS, "max_pixels": MAX_PIXELS, **limit})
            except ValueError:
                refused += 1
                with pytest.raises(ValueError, match="narrow"):
                    smart_resize(Size(width, height), **limit)
                continue
            assert smart_resize(Size(width, height), **limit) == Size(expected[1], expected[0])
    assert refused


@pytest.mark.parametrize("limits", [{"factor": 0}, {"min_pixels": 100, "max_pixels": 99}, {"min_pixels": 0}])
def test_limits_that_exclude_each_other_are_refused(limits: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="no size fits"):
        smart_resize(Size(100, 100), **limits)


def encoded(width: int, height: int, kind: str = "PNG") -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("1" if kind == "PNG" else "RGB", (width, height)).save(buffer, kind)
    return buffer.getvalue()


def test_the_size_is_read_from_any_kind_of_image(tmp_path: Path) -> None:
    from PIL import Image

    file = tmp_path / "a.jpg"
    file.write_bytes(encoded(30, 20, "JPEG"))
    for first in (
        str(file),
        file,
        {"path": str(file), "bytes": None},
        {"bytes": encoded(30, 20), "path": None},
        {"width": 30, "height": 20.0},
        Image.new("RGB", (30, 20)),
        SimpleNamespace(width=30, height=20),
        SimpleNamespace(size=(30, 20)),
    ):
        assert image_size([first], {}) == Size(30, 20)
    for first in (SimpleNamespace(size=600), {"frames": 3}, 7, b""):
        assert image_size([first], {}) is None
    assert image_size([], {}) is None


def test_an_image_that_was_replaced_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    for stamp, width in ((1, 30), (2, 60)):
        file.write_bytes(encoded(width, 20))
        os.utime(file, ns=(stamp, stamp))
        assert image_size([file], {}) == Size(width, 20)


def test_the_size_is_read_from_columns_first() -> None:
    for meta, columns in (
        ({"s": [30, 20]}, "s"),
        ({"s": (30, 20)}, ["s"]),
        ({"s": {"width": 30, "height": 20}}, "s"),
        ({"w": 30, "h": 20.0}, ["w", "h"]),
        ({"w": "30", "h": "20"}, ["w", "h"]),
        ({"s": "[30, 20]"}, "s"),
        ({"s": np.array([30, 20])}, "s"),
        ({"w": np.int64(30), "h": np.float32(20)}, ["w", "h"]),
    ):
        assert image_size([{"width": 1, "height": 1}], meta, columns) == Size(30, 20)


@pytest.mark.parametrize(
    "value",
    [0, [0, 20], [-1, 20], [math.nan, 20], [math.inf, 20], [True, 20], ["30", "x"], "30", [30], [30.5, 20], None, {}],
)
def test_a_size_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="size of an image"):
        image_size([], {"s": value}, "s")


def test_a_size_that_cannot_be_found_is_refused(tmp_path: Path) -> None:
    for columns in ("x", ["x", "y"], [], ["a", "a", "a"]):
        with pytest.raises(ValueError, match="size_from"):
            image_size([], {"a": 1}, columns)
    broken = tmp_path / "a.png"
    broken.write_bytes(b"no image")
    for first in (broken, {"bytes": b"no image"}):
        with pytest.raises(ValueError, match=r"cannot read the size .* \(size_from\)"):
            image_size([first], {})
    for path in (tmp_path / "none.png", "a\0b"):
        with pytest.raises(ValueError, match="cannot read the image"):
            image_size([path], {})


def test_without_pillow_the_size_has_another_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ValueError, match=r"pip install pillow.*size_from"):
        image_size([{"bytes": b"image"}], {})


def test_a_huge_image_is_measured_and_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    file = tmp_path / "a.png"
    file.write_bytes(encoded(400, 300))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
    assert image_size([file], {}) == Size(400, 300)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(ValueError, match="size_from"):
        image_size([{"bytes": file.read_bytes()}], {})


def test_an_image_has_its_extent_in_each_frame() -> None:
    size = Size(640, 480)
    assert units("absolute", size) == (640, 480)
    assert units("absolute_resized", size) == (644, 476)
    assert units("absolute_resized", size, Resize(max_pixels=100_000)) == (364, 252)
    assert units("relative_1000", None) == (1000, 1000)
    assert units("relative_1", None) == (1, 1)
    for frame in ("absolute", "absolute_resized"):
        with pytest.raises(ValueError, match="size_from"):
            units(frame, None)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(FRAMES),
    st.sampled_from(FRAMES),
    st.builds(Size, st.integers(20, 3000), st.integers(20, 3000)),
    st.lists(st.floats(-10, 5000, width=32), min_size=2, max_size=2),
)
def test_frames_convert_there_and_back(one: Frame, other: Frame, size: Size, numbers: list[float]) -> None:
    there = transfer(one, other, [size])(numbers)
    assert transfer(other, one, [size])(there) == pytest.approx(numbers, rel=1e-9, abs=1e-9)
    if one == other:
        assert there == tuple(numbers)
        assert transfer(one, other) == Transfer((1, 1), (1, 1))
    # The corner of the image is the corner of the image.
    assert transfer(one, other, [size])(units(one, size)) == pytest.approx(units(other, size))


def test_a_size_is_asked_for_only_where_it_is_needed() -> None:
    assert transfer("relative_1", "relative_1000", ["no such file"])([0.5, 0.25]) == (500, 250)
    assert transfer("absolute", "absolute", ["no such file"])([3, 4]) == (3, 4)
    with pytest.raises(ValueError, match="no such file"):
        transfer("relative_1", "absolute", ["no such file"])


def test_one_value_is_a_point() -> None:
    assert point_from([10, 20]) == point_from("<point>10 20</point>") == point_from({"x": 10, "y": 20}) == (10, 20)
    assert point_from([0, 0, 20, 40]) == point_from([10, 20, 10, 20]) == (10, 20)
    for value in (None, True, 7, [], {}, "", "none", [1, 2, 3], [[1, 2, 3, 4], [1, 2, 3, 4]], [1, 2, 1, 4]):
        assert point_from(value) is None


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (3, 3.0), (-0.5, -0.5), ("3.5", 3.5), (" 1e3 ", 1000.0), (True, None), (None, None), (math.nan, None),
        (math.inf, None), ("NaN", None), ("1e999", None), (10**400, None), ("9" * 5000, None), ("three", None),
        ("", None), ("1_000", None), ([3], None),
    ],
)  # fmt: skip
def test_finite(value: Any, number: float | None) -> None:
    assert finite(value) == number


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("null", None),
        ("", NOT_JSON),
        ("[1, 2] {", NOT_JSON),
        ("[" * 100_000, NOT_JSON),
        ('{"a": ' * 100_000, NOT_JSON),
        ("[" + "9" * 5000 + "]", [math.inf]),
        ("[Infinity, 1e999]", [math.inf, math.inf]),
        ('{"a": "line\nbreak"}', {"a": "line\nbreak"}),
    ],
)
def test_json_text_is_decoded_leniently(text: str, value: Any) -> None:
    assert decoded(text) == value


def test_no_more_than_so_many_boxes_are_read() -> None:
    one = '{"bbox_2d": [1, 2, 3, 4]}'
    for text in (f"[{','.join([one] * 11_000)}]", one * 11_000, "[1, 2, 3, 4]" * 11_000):
        assert len(read_boxes(text)) == MAX_FOUND


PIECES = [
    "[", "]", "(", ")", "{", "}", ",", " ", '"', "'", "1", "2.5", "-3", "1e999", "NaN", "true", "null", '"bbox_2d":',
    '"point":', '"x":', '"y":', '"label":', "<point>", "</point>", "<|box_start|>", "<|box_end|>", "<points x1=", "```",
    "```json\n", r"\boxed{", "answer is ", " or ", "no wait, ", "<answer>", "</answer>", "\n", "[1, 2, 3, 4]", "(5, 6)",
    "<ref>", "</ref>", "é", "\ud800", "\x00", "<|image_pad|>", "\u202e",
]  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=25).map("".join) | st.text(max_size=80), st.booleans())
def test_any_text_is_read(text: str, one: bool) -> None:
    for box in read_boxes(text, one=one):
        assert (box.box is None) == bool(box.problem)
        assert box.box is None or (box.box[0] < box.box[2] and box.box[1] < box.box[3])
    for point in read_points(text, one=one):
        assert (point.point is None) == bool(point.problem)
    explicitly_empty(text)


PUMPS = [
    "9", "[", "{", "(", '{"a":', "[9,", "[9 ", "[ ", "1 ", '"', '{"', '{"\\"', "{ {a} ", "```",
    "```json\n[1,2,3,4]\n```",
    "<box>", "<point>", '<points x1="1" y1="2" ', "<points ", "<ref>", "<ref>a</ref><box>(1,2),(3,4)</box>", "(1,2),",
    "[1,2,3,4]", '{"bbox_2d":[1,2,3,4]},', "{'bbox_2d': [1,2,3,4]}", r"\boxed{", r"\boxed{[1,2,3,4]}", "<answer>",
    "answer is [1,2,", "x1=1 ", "x=", "is ", ": 1, ", "x is ", "x coordinate", "，", "\u200b",
]  # fmt: skip


@pytest.mark.parametrize("pump", PUMPS, ids=range(len(PUMPS)))
@pytest.mark.timeout(60)
def test_a_megabyte_is_read_in_linear_time(pump: str) -> None:
    def seconds(size: int) -> float:
        text = pump * (size // len(pump))
        start = time.process_time()
        read_boxes(text, one=True)
        read_points(text)
        return time.process_time() - start

    assert seconds(1 << 20) < 10
