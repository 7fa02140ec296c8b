from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from morl.cli.main import main
from morl.recipe.load import builtin_recipes, load_recipe


def morl(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "morl", *arguments], capture_output=True, text=True, timeout=120)


def test_help_names_every_command() -> None:
    said = morl("--help")
    assert said.returncode == 0
    for command in ("train", "eval", "check", "score", "rewards", "rm", "serve", "export"):
        assert command in said.stdout


@pytest.mark.parametrize("arguments", [("trian",), ("train",), ("score", "math"), ("train", "no-such-recipe")])
def test_a_wrong_command_is_exit_code_2(arguments: tuple[str, ...]) -> None:
    said = morl(*arguments)
    assert said.returncode == 2
    assert "Traceback" not in said.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("score --recipe arithmetic", "--recipe RECIPE needs --samples DIR"),
        ("score math --recipe arithmetic --samples x", "the reward 'math' goes with --in FILE"),
        ("score --recipe arithmetic --samples x --in y", "--in goes with the name of a reward"),
        ("score --recipe arithmetic --samples x --option a=3", "--option goes with the name of a reward"),
        ("score math --in x --samples y", "--samples goes with --recipe RECIPE"),
    ],
)
def test_an_option_that_nothing_would_read_is_refused(
    arguments: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments.split(), "--out", "never"]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("check", "the following arguments are required: RECIPE\n"),
        ("check arithmetic --rows 0", "argument --rows: should be a whole number above 0, not '0'"),
        ("check arithmetic --rows -3", "argument --rows: should be a whole number above 0, not '-3'"),
        ("report x --samples -1", "argument --samples: should be a whole number above 0, not '-1'"),
    ],
)
def test_a_command_line_that_does_not_parse_says_why(
    arguments: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as raised:
        main(arguments.split())
    assert raised.value.code == 2
    assert told in capsys.readouterr().err


def test_resume_leaves_the_recipe_alone(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["--resume", "gone.yaml", "run.steps=3"], ["gone.yaml", "--resume", "run.steps=3"]):
        assert main(["train", *arguments]) == 2
        assert capsys.readouterr().err.startswith("gone.yaml: no such file")


def test_data_that_are_not_there_are_exit_code_2_for_every_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in (["check", "arithmetic"], ["train", "arithmetic"]):
        assert main(arguments) == 2
        said = capsys.readouterr()
        assert "data/arithmetic.jsonl: no such file" in said.out + said.err


def test_data_that_are_not_there_are_told_with_the_line_that_names_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.yaml").write_text(
        "run: {name: x, steps: 1}\nmodel: {path: none}\nobjectives:\n  math:\n    share: 1\n    data:\n"
        "      source: jsonl\n      path: gone.jsonl\n    prompt: x\n    rewards: [{use: length, maximum: 1}]\n"
        "rollout: {prompts_per_step: 1, samples_per_prompt: 2, max_new_tokens: 1}\n"
    )
    assert main(["train", "x.yaml"]) == 2
    assert capsys.readouterr().err.startswith("x.yaml:8: objectives.math.data: gone.jsonl: no such file")
    assert main(["train", "x.yaml", "run.name=y", "objectives.math.data.path=lost.jsonl"]) == 2
    assert capsys.readouterr().err.startswith("command line: objectives.math.data: lost.jsonl: no such file")


def test_a_mistyped_key_names_file_line_and_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = tmp_path / "x.yaml"
    text = Path(__file__).parents[2] / "recipes" / "arithmetic.yaml"
    recipe.write_text(text.read_text().replace("temperature:", "temprature:"))
    line = next(i for i, row in enumerate(recipe.read_text().splitlines(), 1) if "temprature" in row)
    assert main(["train", str(recipe)]) == 2
    assert f"{recipe}:{line}: rollout.temprature: unknown key; did you mean 'temperature'?" in capsys.readouterr().err


def test_score_returns_a_row_for_every_row(tmp_path: Path) -> None:
    rows = [
        {"response": "\\boxed{4}", "gold": "4"},
        {"response": "9^{9^{9^{9^9}}}", "gold": "4"},
        {"response": "1" * 1_000_000, "gold": "4"},
        {"response": "\\frac{\\boxed{{{4", "gold": "4"},
        {"response": None, "gold": "4"},
        {"response": "4", "gold": None},
        {"response": "\\boxed{5}", "gold": "4"},
    ]
    source, target = tmp_path / "rows.jsonl", tmp_path / "scored.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = morl("score", "math", "--in", str(source), "--out", str(target))
    assert said.returncode == 0, said.stderr
    scored = [json.loads(line) for line in target.read_text().splitlines()]
    assert len(scored) == len(rows)
    assert [row["value"] for row in scored] == [1.0, 0.0, 0.0, 0.0, None, None, 0.0]
    assert all(row["status"] for row in scored)
    assert said.stdout == f"wrote {target}: 7 rows: 4 ok, 1 error, 1 bad_gold, 1 no_answer\n"


def test_rewards_lists_and_explains(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rewards"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("math", "choice", "exact", "number", "regex", "length"))
    assert main(["rewards", "length"]) == 0
    assert "maximum" in capsys.readouterr().out
    assert main(["rewards", "lenght"]) == 2
    assert "did you mean 'length'" in capsys.readouterr().err


@pytest.mark.parametrize("name", builtin_recipes())
def test_every_recipe_that_ships_parses(name: str) -> None:
    recipe = load_recipe(name)
    assert load_recipe(name, [f"run.name={name}-2"]).run.name == f"{name}-2"
    assert recipe.eval.sets


@pytest.mark.parametrize("name", ["quickstart", "smollm2"])
def test_a_recipe_that_runs_as_it_is_passes_its_own_check(name: str) -> None:
    said = morl("check", name, "--rows", "40")
    assert said.returncode == 0, said.stdout + said.stderr


def test_no_recipe_trains_on_what_it_measures() -> None:
    from morl_mini import World

    from morl.data.prompt_set import load_prompts

    recipe = load_recipe("smollm2")
    for name, held_out in recipe.eval_objectives().items():
        trained = {prompt.messages[-1]["content"] for prompt in load_prompts(recipe.objectives[name], name)}
        asked = {prompt.messages[-1]["content"] for prompt in load_prompts(held_out, name)}
        assert len(asked) >= 50
        assert not trained & asked
    recipe = load_recipe("quickstart")
    assert {eval_set.objective or name for name, eval_set in recipe.eval.sets.items()} == set(recipe.objectives)
    for name, eval_set in recipe.eval.sets.items():
        datas = (recipe.objectives[eval_set.objective or name].data, eval_set.data)
        rows = [(World(**{k: v for k, v in data.options.items() if k != "count"}), data) for data in datas]
        trained, asked = ({repr(world.draft(i).content) for i in range(data.options["count"])} for world, data in rows)
        assert len(asked) >= 50
        assert not trained & asked


def test_export_refuses_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path), "--out", str(tmp_path / "model")]) == 2
    assert "neither a run's folder" in capsys.readouterr().err


def test_the_recipes_in_the_readme_are_recipes(tmp_path: Path) -> None:
    from ruamel.yaml import YAML

    from morl.recipe.load import load_document
    from morl.recipe.rm_recipe import PreferenceRecipe
    from morl.recipe.sft_recipe import SftRecipe

    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    blocks = [block.split("```")[0] for block in text.split("```yaml\n")[1:]]
    files = [tmp_path / f"{number}.yaml" for number in range(len(blocks))]
    for file, block in zip(files, blocks, strict=True):
        file.write_text(block)
    mixture, images, update, preferences, stages = files
    assert set(load_recipe(mixture).objectives) == {"math", "brief"}
    whole = YAML(typ="safe").load(mixture)
    for part in (images, update):  # sections of a recipe
        YAML().dump({key: whole[key] for key in ("run", "model", "objectives", "rollout")} | YAML().load(part), part)
    assert set(load_recipe(images).objectives) == {"grounding", "clips"}
    assert load_recipe(update).algorithm.importance.level == "geometric"
    assert load_document(PreferenceRecipe, preferences).preference.held_out == 0.1
    assert load_document(SftRecipe, stages).steps == 1000


def test_what_the_readme_asks_of_a_service_is_there() -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    recipe = re.findall(r"^morl serve (\w+)", text, re.MULTILINE)
    asked = re.findall(r'"objective": "(\w+)", "response"', text) + re.findall(r"use: remote, .*objective: (\w+)", text)
    assert len(recipe) == 1
    assert len(asked) == 2
    assert set(asked) <= set(load_recipe(recipe[0]).objectives)


def test_the_verifier_of_the_readme_is_short_and_reads_the_answer_alone(tmp_path: Path) -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    (block,) = [block.split("```")[0] for block in text.split("```python\n")[1:] if "@reward" in block]
    assert len([line for line in block.splitlines() if line.strip()]) <= 10
    (tmp_path / "palindrome.py").write_text(block)
    code = (
        "import palindrome; from morl.testing import check_reward; check_reward('palindrome');"
        "print(palindrome.palindrome('<think>hm</think>Anna'))"
    )
    said = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert said.stdout == "1.0\n", said.stderr


def test_what_the_readme_and_the_recipes_install_is_an_extra_of_a_checkout() -> None:
    root = Path(__file__).parents[2]
    extras = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for file in (root / "README.md", *(root / "recipes").rglob("*.yaml")):
        text = file.read_text(encoding="utf-8")
        assert "morl-rl[" not in text, file
        assert set(re.findall(r"'\.\[([\w-]+)\]'", text)) <= set(extras), file


def test_the_readme_names_every_option() -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    for command in ("train", "eval", "check", "plan", "score", "rm", "sft", "serve", "report", "export"):
        options = re.findall(r"--[a-z-]+", morl(command, "--help").stdout)
        assert {option for option in options if option != "--help" and option not in text} == set(), command


def test_the_readme_names_every_reward() -> None:
    from morl.registry import REWARDS

    text = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    table = text.split("## Rewards\n")[1].split("\n\n`morl rewards NAME`")[0]
    built_in = {name for name, entry in REWARDS.entries().items() if entry.target.startswith("morl.rewards.")}
    assert {name for name in built_in if f"`{name}`" not in table} == set()
