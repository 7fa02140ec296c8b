"""Evaluation sets in files of their own, and answers that were written elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from morl.cli.main import main
from morl.recipe.eval_set_recipe import EvalSetRecipe
from morl.recipe.load import builtin_recipes, is_eval_set, load_document

# A row of each set as its source writes it, an answer that is right and one that is wrong.
ROWS = {
    "gsm8k": ({"question": "1+1?", "answer": "1+1=<<1+1=2>>2\n#### 1,002"}, r"So \boxed{1002}.", r"\boxed{2}"),
    "aime24": ({"problem": "?", "answer": "073"}, r"\boxed{73}", r"\boxed{74}"),
    "amc23": ({"problem": "?", "answer": 27.0}, r"\boxed{27}", r"\boxed{28}"),
    "minerva_math": (
        {"problem": "?", "solution": r"First \boxed{no}; $x=\boxed{\frac{1}{2}}$."},
        r"\boxed{0.5}",
        r"\boxed{2}",
    ),
    "college_math": ({"question": "Simplify", "answer": "$10-4 n$"}, r"\boxed{-4n + 10}", r"\boxed{4n+10}"),
    "aqua": (
        {"question": "?", "options": ["A)5(√3 + 1)", "B)6 days", "C)7", "D)8", "E)None of these"], "correct": "B"},
        "The answer is B.",
        "The answer is C.",
    ),
    "screenspot": (
        {"image": "gone.png", "instruction": "close", "bbox": [910, 78, 44, 34]},
        '{"point_2d": [930, 100]}',
        '{"point_2d": [900, 100]}',
    ),
    "screenspot_v2": (
        {"img_filename": "gone.png", "instruction": "close", "bbox": [910, 78, 954, 112], "img_size": [960, 540]},
        '{"point_2d": [930, 100]}',
        '{"point_2d": [960, 100]}',
    ),
    "android_control": (
        {"image": "gone.png", "task": "read on", "gt": {"action_type": "scroll", "direction": "down"}},
        '{"action": "scroll", "direction": "up"}',
        '{"action": "scroll", "direction": "down"}',
    ),
    "mind2web": (
        {
            "task": "rent",
            "previous_actions": [],
            "blocks_path": "gone",
            "operation": "TYPE",
            "value": "08817",
            "bbox": [[534.0, 45.0, 151.0, 22.0]],
        },
        '{"action": "input", "start_point": [600, 50], "text": "08817"}',
        '{"action": "input", "start_point": [600, 50], "text": "08818"}',
    ),
}


def test_every_set_has_a_row_here() -> None:
    assert {f"evals/{name}" for name in ROWS} == set(builtin_recipes("evals"))


def write(folder: Path, name: str) -> Path:
    """The data of a set: its row twice."""
    row = ROWS[name][0]
    source = load_document(EvalSetRecipe, f"evals/{name}").data.source
    path = folder / f"rows.{source}"
    path.write_text(json.dumps([row, row]) if source == "json" else 2 * (json.dumps(row) + "\n"))
    return path


def test_right_answers_score_and_wrong_ones_do_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, (_, right, wrong) in ROWS.items():
        data, answers, out = write(tmp_path, name), tmp_path / "answers.jsonl", tmp_path / f"{name}.out"
        answers.write_text("".join(json.dumps({"response": text}) + "\n" for text in (right, wrong)))
        code = main(["eval", f"evals/{name}", f"data.path={data}", "--responses", str(answers), "--out", str(out)])
        assert code == 0, capsys.readouterr().err
        (row,) = [json.loads(line) for line in out.read_text().splitlines()]
        assert row["values"] == [1.0, 0.0], name
        assert (row["set"], row["n"], row["reward"]) == (name, 2, 0.5)


def test_several_answers_to_a_row_are_samples_of_it(tmp_path: Path) -> None:
    data, answers, out = write(tmp_path, "gsm8k"), tmp_path / "answers.jsonl", tmp_path / "out.jsonl"
    told = [(1, r"\boxed{1002}"), (1, r"\boxed{1}"), (1, "?"), (1, r"\boxed{1002}")]
    answers.write_text("".join(json.dumps({"row": row, "response": text}) + "\n" for row, text in told))
    assert main(["eval", "evals/gsm8k", f"data.path={data}", "--responses", str(answers), "--out", str(out)]) == 0
    row = json.loads(out.read_text())
    assert row["values"] == [0.5]
    assert row["pass_at_4"] == 1.0


def test_rows_without_an_answer_are_counted_and_lengths_have_a_unit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    data, answers = write(tmp_path, "gsm8k"), tmp_path / "answers.jsonl"
    answers.write_text(json.dumps({"row": 1, "response": "\\boxed{1002}"}) + "\n")
    assert main(["eval", "evals/gsm8k", f"data.path={data}", "--responses", str(answers)]) == 0
    assert [record.getMessage() for record in caplog.records] == ["1 of 2 rows has no response"]
    assert "length, characters" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"row": 2, "response": "x"}, "a response to row 2, but the set 'gsm8k' has 2 rows"),
        ({"row": -1, "response": "x"}, "answers.jsonl:1: a line is an object with 'response'"),
        ({"row": 0, "answer": "x"}, "answers.jsonl:1: a line is an object with 'response'"),
    ],
)
def test_what_is_wrong_with_answers_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], line: dict[str, object], said: str
) -> None:
    data, answers = write(tmp_path, "gsm8k"), tmp_path / "answers.jsonl"
    answers.write_text(json.dumps(line) + "\n")
    assert main(["eval", "evals/gsm8k", f"data.path={data}", "--responses", str(answers)]) == 1
    assert said in capsys.readouterr().err


def test_what_is_wrong_with_the_command_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "evals/gsm8k"]) == 2
    assert "--model PATH or --responses FILE" in capsys.readouterr().err
    assert main(["eval", "evals/gsm9k", "--responses", "x"]) == 2
    assert "evals/gsm8k" in capsys.readouterr().err
    assert main(["eval", "evals/gsm8k", "--responses", "x", "--compare", "nosuch"]) == 2
    assert "--compare goes with --model PATH" in capsys.readouterr().err
    assert main(["eval", "evals/gsm8k", "--model", "x", "--set", "nix"]) == 2
    assert "--set goes with --responses FILE" in capsys.readouterr().err
    assert main(["eval", "evals/gsm8k", "--responses", "x", "reward=1"]) == 2
    assert "did you mean 'rewards'" in capsys.readouterr().err


def test_a_recipe_of_a_run_is_told_from_a_set() -> None:
    assert is_eval_set("evals/gsm8k")
    assert not is_eval_set("arithmetic")


def test_a_set_is_asked_of_a_model(tiny_model: Path, tmp_path: Path) -> None:
    data, out = write(tmp_path, "gsm8k"), tmp_path / "out.jsonl"
    asked = ["eval", "evals/gsm8k", f"data.path={data}", "max_new_tokens=4", "--model", str(tiny_model)]
    assert main([*asked, "--local", "--out", str(out)]) == 0
    assert json.loads(out.read_text())["n"] == 2


def test_a_torn_line_moves_no_answer_to_another_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, answers = write(tmp_path, "gsm8k"), tmp_path / "answers.jsonl"
    answers.write_text('{"response": "1"}\n{"respon\n')
    assert main(["eval", "evals/gsm8k", f"data.path={data}", "--responses", str(answers)]) == 1
    assert "answers.jsonl:2: not valid JSON" in capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's /dev/full, which has no space left")
def test_a_full_disk_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, answers = write(tmp_path, "gsm8k"), tmp_path / "answers.jsonl"
    answers.write_text('{"response": "1"}\n')
    asked = ["eval", "evals/gsm8k", f"data.path={data}", "--responses", str(answers), "--out", "/dev/full"]
    assert main(asked) == 1
    assert "No space left on device; free some space" in capsys.readouterr().err
