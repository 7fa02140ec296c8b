"""Photographs with boxes through the recipe of `examples/photographs`: check, encoding, training and report.

The tests make images of odd sizes and formats. `MORL_PHOTOGRAPHS=FOLDER` also tests real ones: FOLDER replaces the
recipe's folder `photographs`.
"""

from __future__ import annotations

import base64
import io
import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from morl.cli.main import main
from morl.data.prompt_set import load_prompts
from morl.model.chat_codec import ChatCodec
from morl.preflight.recipe_check import check
from morl.recipe.load import load_document, load_recipe
from morl.recipe.sft_recipe import SftRecipe
from morl.registry import REWARDS, call_by_name
from morl.report.html_report import COLOURS, scale_of, write_report
from morl.run.folder import RunFolder
from morl.track.jsonl_files import read_rows, read_samples, write_samples
from morl.types import Encoded, Group, Prompt, Sample, Score, TermScore

RECIPE = Path(__file__).parents[1] / "examples" / "photographs" / "photographs.yaml"
REAL = os.environ.get("MORL_PHOTOGRAPHS")
BLUE = (0, 0, 255)
PAPER = (200, 200, 190)
MADE = {
    "odd.png": ((333, 251), [40, 61, 163, 190]),
    "turned.jpg": ((229, 341), [20, 200, 140, 300]),
    "palette.png": ((301, 199), [150, 30, 280, 120]),
    "plain.jpg": ((400, 113), [10, 8, 210, 100]),
}
"""Displayed width and height, and the box of the one blue thing in the image."""


def make_photographs(folder: Path) -> None:
    """Images with one blue thing each, in the recipe's layout: a folder to find in, and one to count in."""
    rows = []
    for name, (size, box) in MADE.items():
        image = Image.new("RGB", size, PAPER)
        ImageDraw.Draw(image).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=BLUE)
        options: dict[str, object] = {"quality": 95} if name.endswith("jpg") else {}
        if name == "turned.jpg":  # stored rotated, with the rotation in its metadata
            image = image.transpose(Image.Transpose.ROTATE_90)
            options["exif"] = Image.Exif()
            options["exif"][0x0112] = 6
        image = image.convert("P") if name == "palette.png" else image
        for place in ("raccoon", "bccd"):
            (folder / place / "img").mkdir(parents=True, exist_ok=True)
            image.save(folder / place / "img" / name, **options)
        objects = [{"label": "raccoon", "bbox_xyxy": box}]
        rows.append({"image": f"img/{name}", "size": size, "objects": objects, "counts": {"RBC": 1}})
    for place in ("raccoon", "bccd"):
        (folder / place / "annotations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module", params=["made", *([REAL] if REAL else [])])
def overrides(request: pytest.FixtureRequest, vision_model: Path, tmp_path_factory) -> Iterator[list[str]]:
    """Overrides that give the recipe a small model and a learning signal, in a working folder with the photographs."""
    folder = tmp_path_factory.mktemp("work")
    if request.param == "made":
        make_photographs(folder / "photographs")
    else:
        (folder / "photographs").symlink_to(request.param, target_is_directory=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield [
            f"model.path={vision_model}",
            "objectives.find.rewards.0.min_pixels=784",  # its processor's
            "objectives.list.rewards.0.min_pixels=784",
            "objectives.count.rewards=[{use: count}, {use: length, unit: characters, maximum: 0, margin: 60}]",
            "run.steps=1",
            "rollout.max_new_tokens=8",
        ]


@pytest.fixture(scope="module")
def run(overrides: list[str]) -> Path:
    """The folder of a run of one step."""
    assert main(["train", str(RECIPE), *overrides, "--local"]) == 0
    return Path("runs/photographs").absolute()


def prompts(overrides: list[str]) -> list[Prompt]:
    return list(load_prompts(load_recipe(RECIPE, overrides).objectives["find"], "find"))


def resized(side: float) -> int:
    """A side of the resized image: the nearest multiple of 28."""
    return 28 * round(side / 28)


def test_gold_boxes_and_counts_hold(overrides: list[str]) -> None:
    report = check(RECIPE, overrides)
    assert (report.exit_code, report.skipped) == (0, 0), report
    assert report.rows >= 4 * len(MADE)  # three objectives and an evaluation set


def test_what_is_learnt_by_heart_is_what_the_reward_wants(overrides: list[str]) -> None:
    learnt = load_document(SftRecipe, RECIPE.with_name("by_heart.yaml")).stages["by_heart"].datasets["find"]
    options = load_recipe(RECIPE, overrides).objectives["find"].rewards[0].options
    for prompt, example in zip(prompts(overrides), load_prompts(learnt, "find"), strict=True):
        assert prompt.messages == example.messages
        known = {"response": example.gold, "gold": prompt.gold, "media": prompt.media, "meta": prompt.meta}
        assert call_by_name(REWARDS.load("box"), known, options).value > 0.97  # whole pixels


def test_the_model_sees_them_at_their_own_size(overrides: list[str], vision_model: Path) -> None:
    codec = ChatCodec.load(vision_model, 1024)
    for prompt in prompts(overrides):
        width, height = prompt.meta["size"]
        encoded = codec.encode(prompt)
        assert encoded.features is not None
        pieces = [1, resized(height) // 14, resized(width) // 14]
        assert encoded.features.tensors["image_grid_thw"].tolist() == [pieces]
        assert encoded.token_ids_T.count(codec.media.placeholder_ids["image"]) == pieces[1] * pieces[2] // 4


def test_a_step_scores_and_learns(run: Path) -> None:
    (step,) = read_rows(run / "metrics.jsonl")
    assert step["learner/grad_norm"] > 0
    assert step["policy/logprob_mismatch"] < 1e-4
    samples = list(read_samples(run / "samples"))
    assert Counter(row["objective"] for row in samples) == {"find": 8, "list": 4, "count": 4}
    assert all(term["value"] is not None for row in samples for term in row["terms"].values())


def shifted(prompt: Prompt, by: int) -> str:
    """The gold box, in pixels of the resized image, moved right and down."""
    (thing,) = prompt.gold
    box = [
        round(value / side * resized(side)) + by
        for value, side in zip(thing["bbox_xyxy"], prompt.meta["size"] * 2, strict=True)
    ]
    return f'```json\n[{{"bbox_2d": {box}, "label": "there"}}]\n```'


def extent(image: Image.Image, colour: tuple[int, ...], tolerance: int = 0) -> list[int]:
    """The smallest box around the pixels of a colour."""
    far = np.abs(np.asarray(image).astype(int) - colour).max(axis=-1)
    y, x = np.nonzero(far <= tolerance)
    return [int(x.min()), int(y.min()), int(x.max()), int(y.max())]


def test_the_report_draws_gold_and_answer_where_they_are(run: Path, overrides: list[str]) -> None:
    options = load_recipe(RECIPE, overrides).objectives["find"].rewards[0].options
    shown: list[tuple[float, int, Prompt]] = []
    groups = []
    for prompt in prompts(overrides):
        answers = {by: shifted(prompt, by) for by in (0, 12)}
        known = {"gold": prompt.gold, "media": prompt.media, "meta": prompt.meta}
        values = [call_by_name(REWARDS.load("box"), known | {"response": a}, options).value for a in answers.values()]
        samples = [Sample(prompt.id, i, (1,), (1,), (-1.0,), 1, "stop", a) for i, a in enumerate(answers.values())]
        scores = [Score(value, {"box": TermScore(value, "ok")}) for value in values]
        groups.append(Group(prompt, Encoded((1,)), tuple(samples), tuple(scores)))
        shown += [(value, by, prompt) for value, by in zip(values, answers, strict=True)]
    write_samples(RunFolder(run).samples(2), 2, groups)
    page = write_report(run, run / "drawn.html", samples=len(shown)).read_text().partition("training: find")[2]
    drawn = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    for encoded, (value, by, prompt) in zip(drawn, sorted(shown, key=lambda one: one[0]), strict=True):
        check_drawing(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"), prompt, by)
        w, h = box_as_seen(prompt)
        shared, hull = (w - by) * (h - by), (w + by) * (h + by)
        union = 2 * w * h - shared
        assert value == pytest.approx(shared / union - (hull - union) / hull, abs=0.05)


def box_as_seen(prompt: Prompt) -> tuple[float, float]:
    """Width and height of the gold box in the resized image."""
    x1, y1, x2, y2 = prompt.gold[0]["bbox_xyxy"]
    width, height = prompt.meta["size"]
    return (x2 - x1) / width * resized(width), (y2 - y1) / height * resized(height)


def check_drawing(image: Image.Image, prompt: Prompt, by: int) -> None:
    """Check the positions of the gold and of an answer shifted by `by` pixels of the resized image."""
    size, box = prompt.meta["size"], prompt.gold[0]["bbox_xyxy"]
    scale = scale_of(size)
    assert image.size == (round(size[0] * scale), round(size[1] * scale))
    gold, answer = (tuple(int(COLOURS[side][i : i + 2], 16) for i in (1, 3, 5)) for side in ("gold", "answer"))
    wanted = [value * scale for value in box]
    moved = [min(value + by * side / resized(side), side) * scale for value, side in zip(box, size * 2, strict=True)]
    # Of a gold that the answer covers, only what lies inside the answer's line is visible.
    assert extent(image, gold) == pytest.approx(wanted, abs=2 if by else 5)
    assert extent(image, answer) == pytest.approx(moved, abs=3)
    if Path(prompt.meta["image"]).name in MADE:
        assert extent(image, BLUE, tolerance=60) == pytest.approx(wanted, abs=8)  # inside the gold's line
