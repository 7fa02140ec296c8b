"""The recipes for models of the real size: they pass `morl check` and `morl plan`, and say all that is not there."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from morl.cli.main import main
from morl.compat import guard_torchvision
from morl.errors import Problem
from morl.preflight.check_report import CheckReport
from morl.preflight.recipe_check import check
from morl.preflight.run_plan import plan
from morl.recipe.load import load_recipe

NODES = {"mimo_vl_7b": 1, "mimo_vl_7b_multinode": 4, "qwen2_5_vl_3b": 1}
"""Of 8 GPUs of 80 GiB each."""
SHOWN: dict[str, Any] = {"image": "image.png"}
ROWS: dict[str, dict[str, Any]] = {
    "math": {"problem": "What is $1 + 1$?", "answer": "2"},
    "visual_math": {**SHOWN, "problem": "How long is the side of the square?", "answer": "\\frac{1}{2}"},
    "choice": {**SHOWN, "question": "Which colour is it?", "options": ["red", "white"], "answer": "B"},
    "grounding": {**SHOWN, "expression": "the left half", "bbox": [0, 0, 150, 200]},
    "pointing": {**SHOWN, "instruction": "Open the settings", "bbox": [10, 10, 60, 40]},
    "gui_action": {**SHOWN, "instruction": "Go on", "action": {"action_type": "scroll", "direction": "down"}},
    "counting": {**SHOWN, "label": "cats", "count": 3},
    "temporal": {"video": {"frames": ["image.png"] * 4, "fps": 2}, "query": "the door opens.", "span": [0.5, 1.5]},
    "helpful_text": {"query": "Why is the sky blue?"},
    "helpful_image": {**SHOWN, "query": "What is to be seen?"},
}
TEXT = {"num_hidden_layers": 36, "intermediate_size": 11008}
VISION = {"depth": 32, "hidden_size": 1280, "num_heads": 16}
SIZES = {
    "MiMo-VL-7B-SFT": (
        {"hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 151680},
        {"intermediate_size": 3456, "out_hidden_size": 4096},
        False,
    ),
    "Qwen2.5-VL-3B-Instruct": (
        {"hidden_size": 2048, "num_attention_heads": 16, "num_key_value_heads": 2, "vocab_size": 151936},
        {"intermediate_size": 3420, "out_hidden_size": 2048},
        True,
    ),
}
"""What differs of language model and vision encoder, and whether embeddings are tied."""


def write_model(folder: Path, processor: Path) -> None:
    """A checkpoint without weights: a config of the real size, and a small processor."""
    guard_torchvision()
    from transformers import Qwen2_5_VLConfig

    text, vision, tied = SIZES[folder.name]
    shutil.copytree(processor, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    Qwen2_5_VLConfig(
        text_config={**TEXT, **text, "tie_word_embeddings": tied},
        vision_config={**VISION, **vision},
        tie_word_embeddings=tied,
    ).save_pretrained(folder)


@pytest.fixture
def written(tmp_path: Path, vision_model: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Moves to a folder and writes there what a recipe wants, and the recipe, its absolute paths made relative."""

    def write(name: str) -> str:
        monkeypatch.chdir(tmp_path)
        text = (Path(__file__).parents[2] / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
        Path(f"{name}.yaml").write_text(text.replace("/shared/", ""), encoding="utf-8")
        for objective, row in ROWS.items():
            folder = Path("data") / objective
            folder.mkdir(parents=True)
            Image.new("RGB", (300, 200), "white").save(folder / "image.png")
            for split in ("train", "test"):
                (folder / f"{split}.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
        for judge in ("judge-text", "judge-image"):
            Path("runs", judge, "model").mkdir(parents=True)
        write_model(Path(load_recipe(f"{name}.yaml").model.path), vision_model)
        return f"{name}.yaml"

    return write


def wrong_rows(report: CheckReport) -> list[Problem]:
    """What is wrong with the recipe's data and terms; the rewards' own examples are tested with the rewards."""
    return [problem for problem in report.data if not problem.path.startswith("reward '")]


@pytest.mark.parametrize("name", NODES)
def test_the_recipe_is_right_where_everything_is_there(
    name: str, written: Callable[[str], str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(name)
    report = check(path, ["scoring.workers=1"])
    assert (report.recipe, report.missing, report.checkpoints) == ((), [], [])
    assert wrong_rows(report) == []
    assert (report.sets, report.rows) == (18, 18)
    assert main(["plan", path, "--gpus", "8", "--nodes", str(NODES[name])]) == 0
    planned = capsys.readouterr().out
    assert f"{8 * NODES[name]} of {8 * NODES[name]}" in planned
    assert "reward models" in planned
    assert "missing" not in planned


@pytest.mark.parametrize("name", NODES)
def test_all_that_is_not_there_is_said_at_once(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(name)
    files = {f"objectives.{label}.data: {spec.data.options['path']}" for label, spec in recipe.objectives.items()}
    files |= {f"eval.sets.{label}.data: {spec.data.options['path']}" for label, spec in recipe.eval.sets.items()}
    judges = {
        f"objectives.{label}.rewards.0.path: {recipe.objectives[label].rewards[0].options['path']}"
        for label in ("helpful_text", "helpful_image")
    }
    assert len(files) == 18
    assert main(["check", name, "scoring.workers=1"]) == 2
    *lines, folder, counted = capsys.readouterr().out.splitlines()
    told = {f"{file}: no such file" for file in files} | {f"model.path: {recipe.model.path}: not on this machine"}
    lines, placed = zip(*(re.subn(rf"^{name}:\d+: ", "", line) for line in lines), strict=True)
    assert sum(placed) == len(files)
    assert set(lines) >= told | {f"{judge}: not on this machine; `morl rm` makes one" for judge in judges}
    assert folder == f"paths are relative to the working folder, {tmp_path}"
    assert counted.startswith("0 problems in the recipe, ")
    assert ", 18 files of data, 3 models missing; " in counted
    planned = plan(recipe, None)
    assert [item.what for item in planned if item.section == "missing"] == [
        "model.path",
        "objectives.helpful_text.rewards.0.path",
        "objectives.helpful_image.rewards.0.path",
    ]
    assert [item.what for item in planned if not item.fits] == ["not estimated"]


def test_rewards_count_in_the_pixels_that_the_model_sees(written: Callable[[str], str]) -> None:
    path = written("qwen2_5_vl_3b")
    other = ["objectives.pointing.rewards.0.max_pixels=802816", "eval.sets.grounding.rewards.0.min_pixels=784"]
    found = wrong_rows(check(path, ["scoring.workers=1", *other]))
    assert [problem.path for problem in found] == [
        "objectives.pointing.rewards.0",
        "eval.sets.grounding.rewards.0",
        "eval.sets.pointing.rewards.0",
    ]
    assert [problem.message.rpartition("; ")[2] for problem in found] == [
        "set max_pixels: 1003520",
        "set min_pixels: 3136",
        "set max_pixels: 1003520",
    ]


@pytest.mark.parametrize("name", NODES)
def test_every_setting_says_whose_it_is(name: str) -> None:
    text = (Path(__file__).parents[2] / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    sections = re.split(r"^(?=\w)", text, flags=re.MULTILINE)
    for section in sections:
        if section.startswith(("algorithm:", "rollout:", "learner:")):
            for line in re.findall(r"^  \w.*", section, flags=re.MULTILINE):
                assert re.search(r"# .*(our choice|\[VL|\[7B\])", line), line
