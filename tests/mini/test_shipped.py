"""The shipped checkpoint and reward model: what they can do, and a run that starts from them."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

import pytest
from morl_mini import World
from morl_mini.untrained_model import build

from morl.cli.main import main
from morl.learner.reward_model_server import RewardModelServer, ServerSettings
from morl.media.items import Image
from morl.preflight.recipe_check import check
from morl.recipe.load import load_recipe
from morl.run.evaluation_run import evaluate_models
from morl.run.folder import RunFolder
from morl.track.jsonl_files import read_rows

SFT = Path(str(files("morl_mini") / "sft"))
LEAST = {"math": 0.5, "count": 0.25, "listing": 0.5, "grounding": 0.5, "pointing": 0.7, "action": 0.6, "clips": 0.3}
"""Greedy rewards far above those of chance or of a broken checkpoint."""
SHOWN = ("grounding", "clips", "describe")


def test_the_checkpoint_has_the_tokenizer_and_the_processor_that_are_built(tmp_path: Path) -> None:
    built = build(tmp_path)
    for name in ("tokenizer.json", "processor_config.json", "chat_template.jinja"):
        assert (SFT / name).read_bytes() == (built / name).read_bytes(), name


def test_the_checkpoint_knows_what_it_was_taught(tmp_path: Path) -> None:
    recipe = load_recipe("quickstart")
    rows = {name: recipe.eval.sets[f"{name}_greedy"].data.options | {"count": 32} for name in LEAST}
    sets = {name: {"data": {"source": "mini", **row}} for name, row in rows.items()}
    recipe = load_recipe("quickstart", [f"eval.sets={sets!r}"])
    (evaluations,) = evaluate_models(recipe, [recipe.model.path], local=True)
    assert {row["set"]: row["reward"] for row in evaluations if row["reward"] < LEAST[row["set"]]} == {}


def test_the_reward_model_prefers_what_is_liked() -> None:
    judge = RewardModelServer(ServerSettings("package:morl_mini/judge"))
    world = World("describe", "held_out", level=2)
    rows = [world[index] for index in range(60)]
    content = [{"type": "image"}, {"type": "text", "text": "what do you see? /no_think"}]
    questions = [(({"role": "user", "content": content},), (Image.of(row["image"]),)) for row in rows]
    chosen, rejected = (judge.score(questions, [row[side] for row in rows]) for side in ("chosen", "rejected"))
    right = sum(float(a) > float(b) for a, b in zip(chosen, rejected, strict=True))
    assert right >= 42


def test_answers_about_one_image_score_in_one_row_what_they_score_alone() -> None:
    judge = RewardModelServer(ServerSettings("package:morl_mini/judge"))
    row = World("describe", "held_out", level=2)[0]
    content = [{"type": "image"}, {"type": "text", "text": "what do you see? /no_think"}]
    question = (({"role": "user", "content": content},), (Image.of(row["image"]),))
    answers = [row["chosen"], row["rejected"], "a cat."]
    alone = judge.score([question] * len(answers), answers)
    prompt = judge._encode(*question)
    together = judge._forward([(prompt, [judge._codec.encode_answer(answer) for answer in answers])])[0]
    assert together == pytest.approx(alone, abs=1e-5)
    assert len(set(alone)) == len(answers)


def test_check_reports_boxes_in_other_pixels_than_a_packaged_model_sees() -> None:
    wrong = "objectives.grounding.rewards=[{use: box, frame: absolute_resized}]"
    problems = {str(problem) for problem in check("quickstart", [wrong], rows=1).data}
    assert any(one.startswith("objectives.grounding.rewards.0") and "max_pixels: 50176" in one for one in problems)


@pytest.mark.parametrize(
    ("level", "messages"),
    [
        ("[1, 4]", ["objectives.math.data.level.1: should be less than or equal to 3, not 4"]),
        ("4", ["objectives.math.data.level: should be less than or equal to 3, not 4"]),
    ],
)
def test_a_problem_of_an_option_of_several_types_does_not_name_them(level: str, messages: list[str]) -> None:
    problems = check("quickstart", [f"objectives.math.data.level={level}"], rows=1).recipe
    assert [str(problem).partition(": ")[2] for problem in problems] == messages


def test_a_step_of_the_quickstart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe("quickstart")
    fewer = {name: {"data": {"source": "mini", **recipe.eval.sets[name].data.options, "count": 4}} for name in SHOWN}
    steps = ["run.steps=1", "learner.warmup_steps=0", f"eval.sets={fewer!r}"]
    assert main(["train", "quickstart", "--local", *steps]) == 0
    output = capsys.readouterr().out
    assert all(name in output for name in SHOWN)
    run = RunFolder(tmp_path / "runs" / "quickstart")
    (row,) = read_rows(run.metrics)
    assert row["policy/logprob_mismatch"] < 1e-4
    assert {name for name in recipe.objectives if f"objective/{name}/reward" in row} == set(recipe.objectives)
    assert "data:image/" in (run.path / "report.html").read_text()
