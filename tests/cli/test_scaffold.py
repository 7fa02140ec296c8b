"""`morl rewards new`: what it writes is installed and used like any other reward, and nothing is overwritten."""

from __future__ import annotations

import ast
import json
import shutil
import tomllib
from pathlib import Path

import pytest
from beside import Environment
from ruamel.yaml import YAML

from morl.cli.main import main
from morl.cli.scaffold import new_reward
from morl.errors import UsageError
from morl.registry import REWARDS
from morl.rewards import reward

RECIPE = """\
run: {{name: tiny, steps: 1, dir: {folder}/runs}}
model: {{path: {model}}}
objectives:
  capitals:
    share: 1
    data: {{source: jsonl, path: {folder}/rows.jsonl}}
    prompt: "{{{{ question }}}}"
    gold: "{{{{ answer }}}}"
    rewards: [{{use: capital_city, ignore_case: false}}]
rollout: {{engine: hf, prompts_per_step: 2, samples_per_prompt: 2, max_new_tokens: 4}}
scoring: {{workers: 1}}
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with a new reward `capital_city`, in the folder `package` beside it."""
    folder = tmp_path_factory.mktemp("scaffold")
    package = new_reward("capital_city", folder / "package")
    environment = Environment.make(folder / "venv")
    environment.install(package)
    return environment


def write_recipe(folder: Path, *answers: str, model: Path | str = "none") -> Path:
    rows = [{"question": f"Question {i}?", "answer": answer} for i, answer in enumerate(answers)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(folder=folder, model=model))
    return path


def test_the_new_reward_is_listed_and_explained(installed: Environment) -> None:
    listed = installed.run("-m", "morl", "rewards").stdout
    assert "\ncapital_city\n" in listed
    assert "morl-capital-city 0.1.0 (morl_capital_city:capital_city)" in listed
    told = installed.run("-m", "morl", "rewards", "capital_city").stdout
    assert "ignore_case: bool = true\n      Whether case does not matter." in told
    assert "rewards: [{use: capital_city}]" in told


def test_it_passes_its_own_test(installed: Environment) -> None:
    done = installed.run("-m", "pytest", "-q", "-p", "no:cacheprovider", installed.folder.parent / "package")
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout


def test_a_recipe_that_uses_it_is_checked(installed: Environment, tmp_path: Path) -> None:
    good = installed.run("-m", "morl", "check", write_recipe(tmp_path, "Paris", "Rome"))
    assert (good.returncode, good.stdout.split(":")[0]) == (0, "all is well"), good.stdout + good.stderr
    bad = installed.run("-m", "morl", "check", write_recipe(tmp_path, "Paris", " "))
    assert bad.returncode == 1
    assert (
        "rows.jsonl:2: objectives.capitals: term 'capital_city': bad_gold: the gold must be non-empty text"
        in bad.stdout
    )
    wrong = installed.run("-m", "morl", "check", write_recipe(tmp_path, "a"), "objectives.capitals.rewards.0.ignor=1")
    assert wrong.returncode == 2


def test_it_scores_a_file(installed: Environment, tmp_path: Path) -> None:
    rows = [{"response": "<think>Rome?</think>paris", "gold": "Paris"}, {"response": "Rome", "gold": "Paris"}]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    files = ("--in", tmp_path / "in.jsonl", "--out", tmp_path / "out.jsonl")
    done = installed.run("-m", "morl", "score", "capital_city", *files)
    assert done.returncode == 0, done.stderr
    scored = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [(row["value"], row["detail"]) for row in scored] == [(1.0, "paris"), (0.0, "Rome")]


def test_it_trains_a_model(installed: Environment, tmp_path: Path, tiny_model: Path) -> None:
    recipe = write_recipe(tmp_path, "Paris", "Rome", model=tiny_model)
    done = installed.run("-m", "morl", "train", recipe, "--local")
    assert done.returncode == 0, done.stdout + done.stderr
    metrics = json.loads((tmp_path / "runs" / "tiny" / "metrics.jsonl").read_text())
    assert metrics["objective/capitals/reward"] == metrics["objective/capitals/no_score_rate"] == 0.0


def test_what_is_written_is_consistent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["rewards", "new", "two_words"]) == 0
    folder = tmp_path / "morl-two-words"
    written = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert written == ["README.md", "morl_two_words.py", "pyproject.toml", "tests/test_two_words.py"]
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert project["project"]["name"] == "morl-two-words"
    assert project["project"]["entry-points"]["morl.rewards"] == {"two_words": "morl_two_words:two_words"}
    for path in folder.rglob("*"):
        if path.is_file():
            assert "$" not in path.read_text()
    for path in folder.rglob("*.py"):
        ast.parse(path.read_text())
    (line,) = YAML(typ="safe").load((folder / "README.md").read_text().split("```yaml\n")[1].split("```")[0])["rewards"]
    assert line == {"use": "two_words", "ignore_case": True}


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("new", "is reserved in Python or in morl"),
        ("class", "is reserved in Python or in morl"),
        ("match", "is reserved in Python or in morl"),
        ("str", "is reserved in Python or in morl"),
        ("reward", "is reserved in Python or in morl"),
        ("math", "there is a reward 'math' already, from morl-rl"),
        ("decorated_for_scaffold", "there is a reward 'decorated_for_scaffold' already"),
        ("My-Reward", "did you mean 'my_reward'?"),
        ("two words", "did you mean 'two_words'?"),
        ("3d_boxes", "did you mean 'd_boxes'?"),
        ("../escape", "did you mean 'escape'?"),
        ("a__b", "lower-case letters, digits and '_'"),
        ("trailing_", "did you mean 'trailing'?"),
        ("größe", "lower-case letters, digits and '_'"),
        ("", "lower-case letters, digits and '_'"),
        ("a" * 51, "lower-case letters, digits and '_'"),
    ],
)
def test_a_name_that_would_not_do_is_refused(name: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as raised:
        new_reward(name, tmp_path / "package")
    assert told in str(raised.value)
    assert not (tmp_path / "package").exists()


@reward("decorated_for_scaffold")
def decorated(response: str) -> float:
    return 1.0


def test_a_module_of_the_same_name_is_not_shadowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "morl_sonnet.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="there is a module 'morl_sonnet' already"):
        new_reward("sonnet", tmp_path / "package")


def test_nothing_is_overwritten(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "pyproject.toml").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "full", tmp_path / "file"):
        assert main(["rewards", "new", "sonnet", "--out", str(out)]) == 2
        assert "nothing is overwritten" in capsys.readouterr().err
    assert (tmp_path / "full" / "pyproject.toml").read_text() == (tmp_path / "file").read_text() == "mine"
    assert main(["rewards", "new", "sonnet", "--out", str(tmp_path / "file" / "below")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["rewards", "new", "sonnet", "--out", str(tmp_path / "empty")]) == 0


@pytest.mark.parametrize("arguments", [["new"], ["math", "x"], ["math", "--out", "x"], ["--out", "x"]])
def test_a_wrong_command_is_refused(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["rewards", *arguments]) == 2
    assert list(tmp_path.iterdir()) == []


def test_no_reward_of_morl_is_called_like_the_command() -> None:
    assert "new" not in REWARDS.entries()


def test_the_example_passes_its_own_tests(tmp_path: Path) -> None:
    shutil.copytree(Path(__file__).parents[2] / "examples" / "custom_verifier", tmp_path / "package")
    environment = Environment.make(tmp_path / "venv")
    environment.install(tmp_path / "package")
    done = environment.run("-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path / "package")
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
