"""`morl check`: all that is wrong is found in one run, each thing with its place, and nothing else is."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from morl.cli.check_command import print_report
from morl.preflight.recipe_check import check
from morl.registry import REWARDS
from morl.traits import traits_of

RECIPE = """\
run: {name: test, steps: 10}
model: {path: model}
scoring: {workers: 1}
objectives:
  sums:
    share: 1
    data: {source: jsonl, path: sums.jsonl}
    prompt: "{{ question }}"
    gold: "{{ answer }}"
    rewards:
      - {use: exact}
      - {use: length, maximum: 100}
rollout: {prompts_per_step: 4, samples_per_prompt: 2, max_new_tokens: 8}
"""
TEST_SET = "eval: {sets: {sums: {data: {source: jsonl, path: test.jsonl}}}}\n"


@pytest.fixture(autouse=True)
def _in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [{"question": f"{n} + {n}?", "answer": str(2 * n)} for n in range(20)]
    Path("sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("r.yaml").write_text(RECIPE)


def spoil(line: int, text: str) -> None:
    lines = Path("sums.jsonl").read_text().splitlines()
    lines[line - 1] = text
    Path("sums.jsonl").write_text("\n".join(lines) + "\n")


def test_a_good_recipe_has_no_problems(capsys):
    report = check("r.yaml")
    assert (report.recipe, report.data) == ((), [])
    assert print_report(report) == 0
    examples = sum(len(traits_of(REWARDS.load(name)).examples) for name in ("exact", "length"))
    held = f"20 golds and {examples} examples of rewards hold"
    assert capsys.readouterr().out == f"all is well: 20 rows of 1 set read, {held}\n"


def test_everything_is_found_in_one_run_although_the_recipe_is_wrong(capsys):
    spoil(3, '{"question": "1?", "answer": ""}')
    spoil(5, "{bad")
    spoil(17, '{"qestion": "1?", "answer": "1"}')
    Path("test.jsonl").touch()
    Path("r.yaml").write_text(RECIPE.replace("steps: 10", "stps: 10").replace("use: length", "use: lenght") + TEST_SET)
    report = check("r.yaml")
    assert [str(problem) for problem in report.recipe] == [
        "r.yaml:1: run.stps: unknown key; did you mean 'steps'?",
        "r.yaml:12: objectives.sums.rewards.1.use: unknown reward 'lenght'; did you mean 'length'?",
    ]
    told = [str(problem) for problem in report.data]
    assert told[0] == (
        "r.yaml:14: eval.sets.sums.data: test.jsonl: no rows; fill it, or remove its objective from the recipe"
    )
    assert told[1].startswith("sums.jsonl:3: objectives.sums: term 'exact': bad_gold: ")
    assert told[2].startswith("sums.jsonl:5: objectives.sums: not valid JSON: ")
    assert told[3] == "sums.jsonl:17: objectives.sums: the row has no field 'question'; did you mean 'qestion'?"
    assert len(told) == 4
    assert print_report(report) == 2
    printed = capsys.readouterr().out.splitlines()
    assert printed[:-1] == [str(problem) for problem in (*report.recipe, *report.data)]
    assert printed[-1] == "2 problems in the recipe, 4 in data and rewards; 18 rows of 1 set read"


def test_the_data_of_an_objective_without_a_right_reward_are_looked_at():
    spoil(17, '{"qestion": "1?", "answer": "1"}')
    Path("r.yaml").write_text(RECIPE.replace("use: exact", "use: exakt").replace("use: length", "use: lenght"))
    assert [problem.where for problem in check("r.yaml").data] == ["sums.jsonl:17"]


def test_data_that_are_not_there_are_told_apart_from_wrong_ones(capsys):
    spoil(17, '{"qestion": "1?", "answer": "1"}')
    Path("r.yaml").write_text(RECIPE + TEST_SET)
    report = check("r.yaml")
    assert [str(problem) for problem in report.missing] == ["r.yaml:14: eval.sets.sums.data: test.jsonl: no such file"]
    assert [problem.where for problem in report.data] == ["sums.jsonl:17"]
    assert print_report(report) == 2
    printed = capsys.readouterr().out
    assert "model.path: model: not on this machine\n" in printed
    assert ", 1 in data and rewards, 1 file of data, 1 model missing; " in printed


def test_a_model_that_is_not_there_is_noted_and_not_wanted(capsys):
    assert print_report(check("r.yaml")) == 0
    assert capsys.readouterr().err == "note: model.path: model: not on this machine\n"
    Path("model").mkdir()
    assert print_report(check("r.yaml")) == 0
    assert capsys.readouterr().err == ""


def test_bad_data_alone_is_exit_code_1():
    spoil(17, '{"qestion": "1?", "answer": "1"}')
    report = check("r.yaml")
    assert report.exit_code == 1
    assert [problem.where for problem in report.data] == ["sums.jsonl:17"]


def test_a_wrong_gold_template_is_not_blamed_on_the_data():
    Path("r.yaml").write_text(RECIPE.replace("{{ answer }}", "{{ answer }"))
    report = check("r.yaml")
    assert [problem.path for problem in report.recipe] == ["objectives.sums.gold"]
    assert report.data == []


def test_overrides_and_the_number_of_rows_are_heeded():
    spoil(17, '{"qestion": "1?", "answer": "1"}')
    assert check("r.yaml", rows=16).data == []
    assert check("r.yaml", ["objectives.sums.data.take=16"]).data == []
    assert check("r.yaml", rows=17).rows == 16
    assert [problem.where for problem in check("r.yaml", ["objectives.sums.data.skip=4"]).data] == ["sums.jsonl:17"]
    assert check("r.yaml", ["run.steps=0"]).exit_code == 2


def test_every_row_with_the_same_fault_is_counted_and_few_are_shown(capsys):
    Path("r.yaml").write_text(RECIPE.replace("{{ question }}", "{{ problem }}"))
    report = check("r.yaml")
    assert len(report.data) == 20
    assert print_report(report) == 1
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == 7
    assert printed[5] == (
        "objectives.sums: … and 15 more rows: the row has no field 'problem'; known: answer, question"
    )


def test_an_example_that_does_not_hold_is_told():
    Path("vain_reward_for_test_check.py").write_text(
        "from morl.rewards import Example, reward\n\n"
        "@reward('vain', examples=[Example('a', None, 1.0), Example('b', None, 0.0)])\n"
        "def vain(response: str) -> float:\n    return 1.0\n"
    )
    Path("r.yaml").write_text(
        RECIPE.replace("{use: exact}", "{use: vain}") + "plugins: [vain_reward_for_test_check.py]\n"
    )
    report = check("r.yaml")
    assert report.exit_code == 1
    assert [problem.path for problem in report.data] == ["reward 'vain'"]
    assert "example 1, response 'b': expected 0, got 1" in report.data[0].message


def test_what_nothing_was_scored_of_is_not_called_well(capsys):
    Path("bare_reward_for_test_check.py").write_text(
        "from morl.rewards import reward\n\n"
        "@reward('bare')\n"
        "def bare(response: str, gold: str) -> float:\n    return 0.0\n"
    )
    terms = "objectives.sums.rewards=[{use: bare}]"
    report = check("r.yaml", [terms, "plugins=[bare_reward_for_test_check.py]", "model.path=."])
    assert print_report(report) == 0
    printed = capsys.readouterr()
    assert printed.out == "all is well: 20 rows of 1 set read, 0 golds and 0 examples of rewards hold\n"
    assert printed.err.splitlines() == [
        "note: reward 'bare' has no examples",
        "note: reward 'bare' has no `answer`: its golds were not scored",
    ]


@pytest.mark.parametrize(("name", "command"), [("mini/pretrain", "sft"), ("mini/judge", "rm")])
def test_recipes_of_other_commands_are_checked_with_their_first_rows(name, command, capsys):
    assert print_report(check(name, rows=1)) == 0
    message = rf"the recipe of `morl {command}` is fine: (\d+) rows? of \1 sets? read, of each the first 1 \(.*\)\n"
    assert re.fullmatch(message, capsys.readouterr().out)
    assert [str(problem) for problem in check(name, ["model.pth=x"], rows=1).recipe] == [
        "command line: model.pth: unknown key; did you mean 'path'?"
    ]


SFT = """\
run: {name: test}
model: {path: model}
stages:
  one:
    steps: 1
    examples_per_step: 1
    lr: 1.0e-3
    datasets:
      sums:
        data: {source: jsonl, path: sums.jsonl}
        held_out: {source: jsonl, path: gone.jsonl}
        prompt: "{{ question }}"
        answer: "{{ answer }}"
"""
RM = """\
run: {name: test, steps: 1}
model: {path: model}
preference:
  data: {source: jsonl, path: sums.jsonl}
  prompt: "{{ question }}"
  chosen: "{{ answer }}"
  rejected: "no idea"
  pairs_per_step: 1
"""


@pytest.mark.parametrize(("recipe", "key"), [(SFT, "stages.one.datasets.sums"), (RM, "preference")])
def test_answers_that_are_learnt_are_text_and_there(recipe, key, capsys):
    Path("r.yaml").write_text(recipe)
    spoil(3, '{"question": "1?", "answer": 7}')
    spoil(5, '{"question": "1?"}')
    spoil(7, '{"question": "1?", "answer": " "}')
    assert print_report(check("r.yaml")) == (2 if "gone.jsonl" in recipe else 1)
    told = capsys.readouterr().out.splitlines()
    assert told[:3] == [
        f"sums.jsonl:3: {key}.data: an answer must be text, not of type int; convert it with the filter `string`",
        f"sums.jsonl:5: {key}.data: the row has no field 'answer'; known: question",
        f"sums.jsonl:7: {key}.data: an answer is empty",
    ]
    if "gone.jsonl" in recipe:
        assert told[3] == f"r.yaml:11: {key}.held_out: gone.jsonl: no such file"
        Path("gone.jsonl").write_text('{"question": "1?", "answer": "1"}\n')
    for line in (3, 5, 7):
        spoil(line, '{"question": "1?", "answer": "1"}')
    assert print_report(check("r.yaml", rows=15)) == 0
    assert ", of each the first 15 (--rows N reads more)" in capsys.readouterr().out


def test_an_evaluation_set_is_checked_as_those_of_a_recipe(capsys):
    path = ["data.path=sums.jsonl", "gold={{ answer }}"]
    report = check("evals/gsm8k", path)
    assert (report.sets, report.rows, report.golds) == (1, 20, 20)
    assert print_report(report) == 0
    assert capsys.readouterr().err == ""
    spoil(17, '{"qestion": "1?", "answer": "1"}')
    assert [problem.where for problem in check("evals/gsm8k", path).data] == ["sums.jsonl:17"]


def test_a_source_of_a_plugin_that_fails_is_told_by_row():
    Path("faulty_source_for_test_check.py").write_text(
        "from morl.data import SOURCES\n\n"
        "class Faulty:\n"
        "    def __len__(self): return 3\n"
        "    def __getitem__(self, i): return {'question': 'q', 'answer': 1 // i}\n"
        "    def where(self, i): return f'faulty[{i}]'\n\n"
        "@SOURCES.register('faulty')\n"
        "def faulty(*, broken: bool = False):\n"
        "    return 1 // 0 if broken else Faulty()\n"
    )
    path = "objectives.sums.data={source: faulty}"
    plugins = "plugins=[faulty_source_for_test_check.py]"
    assert [str(problem) for problem in check("r.yaml", [path, plugins]).data] == [
        "faulty[0]: objectives.sums: cannot be read: ZeroDivisionError: integer division or modulo by zero"
    ]
    path = "objectives.sums.data={source: faulty, broken: true}"
    assert "cannot be opened: ZeroDivisionError" in str(check("r.yaml", [path, plugins]).data[0])


def test_nothing_but_the_recipe_is_told_when_nothing_of_it_is_left():
    Path("r.yaml").write_text("run: {name: test")
    report = check("r.yaml")
    assert (len(report.recipe), report.data, report.exit_code) == (1, [], 2)


def test_checking_imports_nothing_heavy():
    learned = "objectives.sums.rewards=[{use: number}, {use: reward_model, path: ./judge}]"
    code = (
        "import sys; from morl.preflight import check;"
        f"assert not check('r.yaml', [{learned!r}]).exit_code; print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "ray", "vllm", "transformers", "datasets", "deepspeed"} & set(done.stdout.split())


def test_prompts_that_are_too_long_are_found_where_the_tokenizer_is_there(tiny_model: Path, capsys):
    spoil(3, json.dumps({"question": "9" * 300 + "?", "answer": "1"}))
    model = [f"model.path={tiny_model}", "rollout.max_prompt_tokens=100"]
    assert check("r.yaml", ["rollout.max_prompt_tokens=100"]).data == []
    (problem,) = check("r.yaml", model).data
    assert problem.where == "sums.jsonl:3"
    assert "tokens, more than rollout.max_prompt_tokens=100; allow more" in problem.message
    report = check("r.yaml", [*model, "rollout.too_long=skip"])
    assert (report.data, report.skipped, report.rows) == ([], 1, 19)
    assert print_report(report) == 0
    assert "1 row skipped" in capsys.readouterr().out
