"""The miniature world: rows are functions of their key, golds hold, and images match their descriptions."""

from __future__ import annotations

import hashlib
import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import morl_mini
import numpy as np
import pytest
from morl_mini import KINDS, LEVELS, World, charts, draw, screens, taste
from morl_mini.answers import boxed, centre, listed, span
from morl_mini.sheet import main as write_sheet
from ruamel.yaml import YAML

from morl.data.preference_pairs import load_pairs
from morl.data.prompt_set import load_rows
from morl.data.templates import PromptTemplate
from morl.preflight.recipe_check import check
from morl.recipe.rm_recipe import PreferenceSpec
from morl.recipe.schema.data_section import DataSpec
from morl.registry import REWARDS, call_by_name
from morl.testing.conformance import check_reward

ROWS = 50


def rows(kind: str, level: int, split: str = "train", count: int = ROWS) -> Iterator[Mapping[str, Any]]:
    world = World(kind, split, level)
    return (world[index] for index in range(count))


def value(row: Mapping[str, Any], response: str) -> float | None:
    """The value from the verifier of the row's kind."""
    kind = KINDS[row["kind"]]
    media = [row[kind.media]] if kind.media else []
    known = {"response": response, "gold": row["gold"], "messages": [], "media": media, "meta": row}
    return call_by_name(REWARDS.load(kind.reward), known, kind.options).value


def wrong(row: Mapping[str, Any]) -> str:
    """A well-formed wrong answer."""
    gold = row["gold"]
    match KINDS[row["kind"]].reward:
        case "math" | "count":
            return boxed(gold + 1)
        case "box":
            first = gold[0]["bbox_2d"] if isinstance(gold[0], dict) else gold
            return row["answer"].replace(str(first), str([first[0] + 7, *first[1:]]), 1)
        case "choice":
            return "B" if gold == "A" else "A"
        case "point":
            return json.dumps({"point_2d": [gold[0] - 1, gold[1]]})
        case "temporal":
            return span(gold[0] + 1, gold[1] + 1)
        case "gui_action":
            return json.dumps({"action": "hover"})
        case "mini_taste":
            return row["answer"].replace(" ".join(gold[0]), "white cloud")
    return "nothing"


@pytest.mark.parametrize("split", ["train", "held_out"])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", KINDS)
def test_model_answers_score_1_and_wrong_ones_less(kind: str, level: int, split: str) -> None:
    for row in rows(kind, level, split):
        assert value(row, row["answer"]) == value(row, row["reasoned"]) == pytest.approx(1.0), row
        assert (value(row, wrong(row)) or 0.0) < 1.0, row


def digest(row: Mapping[str, Any]) -> str:
    """A hash of everything in a row, including pixels."""
    images = [row["image"]] if "image" in row else row.get("video", {"frames": []})["frames"]
    text = json.dumps({key: item for key, item in row.items() if key not in ("image", "video")})
    return hashlib.sha256(text.encode() + b"".join(image.tobytes() for image in images)).hexdigest()


BACKWARDS = """
import json, sys
sys.path.insert(0, sys.argv[1])
from test_world import KINDS, LEVELS, World, digest
worlds = {f"{kind}{level}": World(kind, "held_out", level, 3) for level in LEVELS for kind in KINDS}
print(json.dumps({name: [digest(world[index]) for index in (907, 5, 0)] for name, world in worlds.items()}))
"""


def test_a_row_is_the_same_in_another_process_and_another_order() -> None:
    command = [sys.executable, "-c", BACKWARDS, Path(__file__).parent]
    digests = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    for level in LEVELS:
        for kind in KINDS:
            world = World(kind, "held_out", level, 3)
            assert [digest(world[index]) for index in (0, 5, 907)] == digests[f"{kind}{level}"][::-1]


def test_another_seed_gives_other_rows() -> None:
    for kind in KINDS:
        assert [World(kind, seed=0)[i]["question"] + World(kind, seed=0)[i]["answer"] for i in range(20)] != [
            World(kind, seed=1)[i]["question"] + World(kind, seed=1)[i]["answer"] for i in range(20)
        ]


def test_a_held_out_scene_is_never_trained_on_whatever_is_asked_about_it() -> None:
    def seen(split: str, kind: str, level: int, seed: int) -> set[Any]:
        return {World(kind, split, level, seed).draft(index).content for index in range(400)}

    scenes = ("caption", "box", "locate", "read", "describe")
    trained = set().union(*(seen("train", kind, 1, seed=0) for kind in scenes))
    held = set().union(*(seen("held_out", kind, 1, seed=1) for kind in scenes))
    assert len(held) > 300
    assert not trained & held
    for kind in set(KINDS) - {*scenes, "count", "choice", "retell"}:
        for level in LEVELS:
            assert not seen("train", kind, level, 0) & seen("held_out", kind, level, 1)


def like(image: Any, colour: str) -> np.ndarray:
    """The mask of a colour in an image, up to its jitter."""
    away = np.abs(np.asarray(image).astype(int) - np.array(draw.COLOURS[colour]))
    return (away <= 12).all(axis=2)


@pytest.mark.parametrize("level", LEVELS)
def test_boxes_hold_what_was_drawn_and_nothing_of_it_is_outside(level: int) -> None:
    for row in rows("caption", level):
        outside = np.ones((draw.SIDE, draw.SIDE), dtype=bool)
        for item in row["gold"]:
            x1, y1, x2, y2 = item["bbox_2d"]
            assert 0 <= x1 < x2 <= draw.SIDE
            assert 0 <= y1 < y2 <= draw.SIDE
            inside = like(row["image"], item["label"].split()[0])[y1:y2, x1:x2]
            assert inside[0].any()
            assert inside[-1].any()
            assert inside[:, 0].any()
            assert inside[:, -1].any()
            outside[y1:y2, x1:x2] = False
        for colour in draw.COLOURS:
            assert not (like(row["image"], colour) & outside).any()


def test_shapes_of_a_kind_differ_from_those_of_another() -> None:
    masks = []
    for shape in draw.SHAPES:
        image = draw.Image.new("RGB", (28, 28), (255, 255, 255))
        draw.shape(image, shape, (0, 0, 28, 28), (0, 0, 0))
        masks.append(np.asarray(image)[..., 0] == 0)
    for index, mask in enumerate(masks):
        assert all((mask != other).mean() > 0.05 for other in masks[:index])


def contrast(image: Any, box: tuple[int, int, int, int]) -> int:
    """The number of pixels in a box that differ clearly from its most common colour."""
    x1, y1, x2, y2 = box
    pixels = np.asarray(image).astype(int)[y1:y2, x1:x2].reshape(-1, 3)
    colours, counts = np.unique(pixels, axis=0, return_counts=True)
    return int((np.abs(pixels - colours[counts.argmax()]).max(axis=1) > 70).sum())


@pytest.mark.parametrize("level", LEVELS)
def test_text_can_be_read_where_it_is_said_to_be(level: int) -> None:
    for row in rows("ocr", level):
        for box in row["ink"]:
            assert box[0] >= 0
            assert box[2] <= draw.SIDE
            assert box[3] <= draw.SIDE
            assert contrast(row["image"], box) > 30


@pytest.mark.parametrize("level", LEVELS)
def test_another_name_changes_the_image_of_an_element_and_nothing_else(level: int) -> None:
    for index in range(ROWS):
        draft = World("point", level=level).draft(index)
        x1, y1, x2, y2 = draft.gold
        assert all(side % draw.STEP == 0 for side in centre(draft.gold))
        elements = [replace(e, name="zzz") if list(e.box) == draft.gold else e for e in draft.content.elements]
        other = replace(draft.content, elements=tuple(elements))
        before, after = (np.asarray(screens.paint(shown, Random(1))).astype(int) for shown in (draft.content, other))
        changed = np.abs(before - after).max(axis=2) > 70
        assert changed[y1:y2, x1:x2].sum() == changed.sum() > 10


@pytest.mark.parametrize("level", LEVELS)
def test_bars_are_as_long_as_their_values_and_labelled(level: int) -> None:
    for index in range(ROWS):
        chart = World("chart", level=level).draft(index).content
        image = World("chart", level=level)[index]["image"]
        lengths = []
        for colour, box in zip(chart.colours, charts.bar_boxes(chart, level), strict=True):
            x1, y1, x2, y2 = box
            assert like(image, colour)[y1:y2, x1:x2].all()
            label = (0, y1, 26, y2) if chart.lying else (max(0, x1 - 4), 99, x2 + 4, draw.SIDE)
            assert contrast(image, label) > 15
            lengths.append(x2 - x1 if chart.lying else y2 - y1)
        assert [sorted(lengths).index(n) for n in lengths] == [sorted(chart.values).index(n) for n in chart.values]


@pytest.mark.parametrize("level", LEVELS)
def test_a_clip_changes_where_its_span_begins_and_ends(level: int) -> None:
    for index in range(ROWS):
        row = World("temporal", level=level)[index]
        start, end = row["gold"]
        frames = [np.asarray(frame) for frame in row["video"]["frames"]]
        changes = {second for second in range(1, len(frames)) if (frames[second] != frames[second - 1]).any()}
        assert len(frames) == {1: 4, 2: 8, 3: 8}[level]
        assert {second for second in (start, end) if 0 < second < len(frames)} <= changes
        assert all(start <= second <= end for second in changes)


def test_what_is_preferred_is_liked_better_and_manners_do_not_save_a_lie() -> None:
    for level in LEVELS:
        for row in rows("describe", level):
            assert taste.taste(row["chosen"], row["gold"]) > taste.taste(row["rejected"], row["gold"])
    assert taste.taste("a red star.", [("red", "star")]) > taste.taste("sure: a blue star.", [("red", "star")])
    long = "i think that there may be a lot to see in here and so i say it is " * 3
    assert taste.taste("a red star.", [("red", "star")]) > taste.taste(f"{long} a red star.", [("red", "star")])


def test_the_reward_of_the_hidden_taste_keeps_to_what_a_run_relies_on() -> None:
    check_reward("mini_taste")


@pytest.mark.parametrize("prompt", [[{"image": "{{ image }}"}, "{{ question }}"], "{{ question }}"])
def test_rows_of_pairs_train_a_reward_model(prompt: Any) -> None:
    kind = "retell" if isinstance(prompt, str) else "describe"
    data = DataSpec(source="mini", kind=kind, level=2, count=20)
    spec = PreferenceSpec(data=data, prompt=prompt, chosen="{{ chosen }}", rejected="{{ rejected }}", pairs_per_step=4)
    assert len(load_pairs(spec)) == 20


def test_a_recipe_uses_the_world_as_it_would_a_strangers(tmp_path: Path) -> None:
    objectives = {}
    for name, kind in KINDS.items():
        objectives[name] = {
            "share": 1,
            "data": {"source": "mini", "kind": name, "level": 2, "count": 1_000_000_000},
            "prompt": [*([{kind.media: f"{{{{ {kind.media} }}}}"}] if kind.media else []), "{{ question }}"],
            "gold": "{{ gold }}",
            "rewards": [{"use": kind.reward, **kind.options}],
        }
    readme = (Path(morl_mini.__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    shown = YAML(typ="safe").load(re.search(r"```yaml\n(.*?)```", readme, re.DOTALL)[1])
    recipe = {
        "run": {"name": "all", "steps": 1},
        "model": {"path": "none"},
        "plugins": shown["plugins"],
        "objectives": {**shown["objectives"], **objectives},
        "rollout": {"prompts_per_step": 14, "samples_per_prompt": 2, "max_new_tokens": 8},
    }
    (tmp_path / "all.yaml").write_text(json.dumps(recipe))
    report = check(tmp_path / "all.yaml", rows=3)
    assert [str(problem) for problem in (*report.recipe, *report.data)] == []
    assert report.rows == 3 * (len(KINDS) + 2)


def test_rows_are_drawn_only_when_they_are_read_and_say_where_they_stand() -> None:
    rows = load_rows(DataSpec(source="mini", kind="box", split="held_out", level=3, seed=2, count=10**9))
    assert len(rows) == 10**9
    assert len(list(load_rows(DataSpec(source="mini", kind="math", count=3)))) == 3
    for beyond in (-1, 10**9):
        with pytest.raises(IndexError):
            rows[beyond]
    row = rows[10**9 - 1]
    assert rows.where(7) == "mini(box, held_out, level 3, seed 2)[7]"
    prompt = PromptTemplate([{"image": "{{ image }}"}, "{{ question }}"], "{{ gold }}").render(row, "box/0", "box")
    assert (prompt.media[0].width, prompt.media[0].height) == (draw.SIDE, draw.SIDE)
    assert listed([{"label": row["question"][8:-1], "bbox_2d": prompt.gold}]) == row["answer"]


def test_rows_of_several_levels_come_in_turn() -> None:
    rows = load_rows(DataSpec(source="mini", kind="math", level=[3, 1], seed=4, count=5))
    assert [rows.where(index) for index in range(3)] == [
        f"mini(math, train, level {level}, seed 4)[{index}]" for index, level in enumerate((3, 1, 3))
    ]
    assert list(rows) == [World("math", level=(3, 1)[index % 2], seed=4)[index] for index in range(5)]


@pytest.mark.parametrize("level", [0, 4, [], [1, 4], "easy"])
def test_a_level_that_is_none_is_refused(level: Any) -> None:
    with pytest.raises(ValueError, match="level"):
        DataSpec(source="mini", kind="math", level=level)


def test_a_sheet_shows_36_rows(tmp_path: Path) -> None:
    write_sheet([str(tmp_path / "sheet.png"), "--level", "2"])
    sheet = draw.Image.open(io.BytesIO((tmp_path / "sheet.png").read_bytes()))
    assert sheet.size == (6 * 230, 6 * 294)
    assert len(sheet.getcolors(maxcolors=2**24)) > 100
