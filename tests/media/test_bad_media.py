"""Bad images and videos: `morl check` names row and reason, or skips and counts; none is held that is too large."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from morl.data.preference_pairs import load_pairs
from morl.errors import BadMediaError
from morl.preflight.check_report import CheckReport
from morl.preflight.recipe_check import check
from morl.recipe.rm_recipe import PreferenceSpec

RECIPE = """
run: {{name: bad, steps: 1}}
model: {{path: nowhere}}
objectives:
  image:
    share: 1
    data: {{source: jsonl, path: {folder}/image.jsonl, bad_media: {bad_media}}}
    prompt: [{{image: "{{{{ medium }}}}"}}, "What?"]
    gold: "{{{{ n }}}}"
    rewards: [{{use: exact}}]
  video:
    share: 1
    data: {{source: jsonl, path: {folder}/video.jsonl, bad_media: {bad_media}}}
    prompt: [{{video: "{{{{ medium }}}}"}}, "What?"]
    gold: "{{{{ n }}}}"
    rewards: [{{use: exact}}]
rollout: {{prompts_per_step: 1, samples_per_prompt: 2, max_new_tokens: 4}}
"""


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def animation() -> bytes:
    first, *rest = (Image.new("RGB", (20, 20), colour) for colour in ("red", "green", "blue"))
    return encoded(first, "GIF", save_all=True, append_images=rest)


def white_png(side: int) -> bytes:
    """A PNG of one bit a pixel, made without ever holding its pixels: small as a file, `side` squared when decoded."""
    packer = zlib.compressobj(1)
    row = b"\0" + b"\xff" * -(-side // 8)
    rows = b"".join(packer.compress(row * 100) for _ in range(side // 100)) + packer.flush()
    header = side.to_bytes(4, "big") * 2 + bytes([1, 0, 0, 0, 0])
    chunks = [(b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")]
    parts = [len(d).to_bytes(4, "big") + name + d + zlib.crc32(name + d).to_bytes(4, "big") for name, d in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def video(frames: int) -> bytes:
    av = pytest.importorskip("av", reason="reading video files needs the extra 'video'")
    file = io.BytesIO()
    with av.open(file, "w", format="avi") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
        for _ in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 128, dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        if frames:
            container.mux(stream.encode())
    return file.getvalue()


GOOD = ["cmyk.jpg", "palette.png", "animated.gif", "whole.avi"]
BAD = {
    "truncated.png": "truncated.png cannot be read: ",
    "text.png": "text.png cannot be read: cannot identify",
    "empty.jpg": "empty.jpg cannot be read: ",
    "dot.png": "dot.png: 1 x 1 pixels: too small to show anything; each side needs 4",
    "strip.png": "strip.png: 20000 x 10 pixels: one side is more than 200 times the other",
    "gone.png": "no such image: gone.png",
    "bomb.png": "bomb.png: more pixels than the limit of 89478485 (a decompression bomb?)",
    "large.png": "large.png: 10000 x 10000 pixels: more than the limit of 89478485",
    "no-frames.avi": "no-frames.avi",
    "truncated.avi": "truncated.avi cannot be read: ",
    "gone.avi": "no such video: gone.avi",
}
MAKE: dict[str, Callable[[], bytes]] = {
    "cmyk.jpg": lambda: encoded(noise(40, 30).convert("CMYK"), "JPEG"),
    "palette.png": lambda: encoded(noise(40, 30).convert("P")),
    "animated.gif": animation,
    "whole.avi": lambda: video(5),
    "truncated.png": lambda: encoded(noise(40, 30))[:2000],
    "text.png": lambda: b"not an image",
    "empty.jpg": lambda: b"",
    "dot.png": lambda: encoded(noise(1, 1)),
    "strip.png": lambda: encoded(noise(20_000, 10)),
    "bomb.png": lambda: white_png(30_000),
    "large.png": lambda: white_png(10_000),
    "no-frames.avi": lambda: video(0),
    "truncated.avi": lambda: video(50)[:7000],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every good and bad image and video, and a row of each in the data of two objectives."""
    folder = tmp_path_factory.mktemp("bad")
    for name, make in MAKE.items():
        (folder / name).write_bytes(make())
    for kind in ("image", "video"):
        rows = [{"medium": name, "n": n} for n, name in enumerate(own(kind))]
        (folder / f"{kind}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for bad_media in ("fail", "skip"):
        (folder / f"{bad_media}.yaml").write_text(RECIPE.format(folder=folder, bad_media=bad_media))
    return folder


def own(kind: str) -> list[str]:
    """Names of the images, or of the videos, in the order of their rows."""
    return [name for name in (*GOOD, *BAD) if name.endswith(".avi") == (kind == "video")]


@pytest.fixture(scope="module")
def failing(folder: Path) -> CheckReport:
    return check(folder / "fail.yaml")


@pytest.mark.parametrize("name", BAD)
def test_check_names_the_row_of_what_is_bad_and_the_reason(failing: CheckReport, folder: Path, name: str) -> None:
    kind = "video" if name.endswith(".avi") else "image"
    where = f"{folder / kind}.jsonl:{own(kind).index(name) + 1}"
    (problem,) = [problem for problem in failing.data if problem.where == where]
    assert problem.path == f"objectives.{kind}"
    assert BAD[name] in problem.message


def test_check_finds_nothing_else(failing: CheckReport) -> None:
    assert failing.exit_code == 1
    assert len(failing.data) == len(BAD)
    assert (failing.rows, failing.skipped) == (len(GOOD), 0)


def test_check_skips_and_counts_what_the_recipe_says_to_skip(folder: Path) -> None:
    report = check(folder / "skip.yaml")
    assert (report.exit_code, report.rows, report.skipped) == (0, len(GOOD), len(BAD))


@pytest.mark.parametrize("bad_media", ["fail", "skip"])
def test_pairs_of_answers_leave_out_what_the_recipe_says_to_skip(
    folder: Path, bad_media: str, caplog: pytest.LogCaptureFixture
) -> None:
    data = {"source": "jsonl", "path": str(folder / "image.jsonl"), "bad_media": bad_media}
    spec = PreferenceSpec(
        data=data, prompt=[{"image": "{{ medium }}"}, "What?"], chosen="{{ medium }}", rejected="no", pairs_per_step=1
    )
    if bad_media == "fail":
        with pytest.raises(BadMediaError, match=r"image\.jsonl:5: .*text\.png cannot be read"):
            load_pairs(spec)
        return
    assert [pair.chosen for pair in load_pairs(spec)] == GOOD[:3]
    assert f"8 of {len(own('image'))} pairs are left out: their images are bad" in caplog.text


PEAK = """
import resource, sys
from morl.preflight.recipe_check import check
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
only = lambda name: ["objectives.video=null", f"objectives.image.data.path={sys.argv[1]}/{name}.jsonl"]
assert check(f"{sys.argv[1]}/fail.yaml", only("harmless")).exit_code == 0
before = peak()
assert len(check(f"{sys.argv[1]}/fail.yaml", only("huge")).data) == 3
print(peak() - before)
"""


def test_an_image_too_large_costs_check_no_memory(folder: Path) -> None:
    for name, images in {"harmless": GOOD[:3], "huge": ["bomb.png", "large.png", "strip.png"]}.items():
        rows = (json.dumps({"medium": image, "n": n}) + "\n" for n, image in enumerate(images))
        (folder / f"{name}.jsonl").write_text("".join(rows))
    ran = subprocess.run([sys.executable, "-c", PEAK, str(folder)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert float(ran.stdout) < 20  # MB; decoded, the three would take gigabytes
