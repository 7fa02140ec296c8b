"""Recipes: what is read, what is refused, and that every refusal names its line."""

# ruff: noqa: E501 - a row of a table is one line

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from morl.cli.recipe_docs import json_schema, reference
from morl.errors import RecipeError
from morl.recipe.eval_set_recipe import EvalSetRecipe
from morl.recipe.load import builtin_recipes, inspect_document, load_document, load_recipe
from morl.recipe.sft_recipe import SftRecipe
from morl.recipe.train_recipe import Recipe
from morl.registry import SOURCES

PLUGIN = """
from typing import Annotated, Literal
from pydantic import Field
from morl.rewards import reward

@reward("loud")
def loud(response: str, *, at_least: Annotated[int, Field(ge=1)] = 1, mode: Literal["upper", "title"] = "upper") -> float:
    return 1.0

@reward("strictly")
def strictly(response: str, *, pattern: str) -> float:
    return 1.0

@reward("heavy")
def heavy(response: str, *, weight: float = 1.0) -> float:
    return 1.0

@reward("graded")
def graded(response: str, gold: str) -> float:
    return 1.0
"""

LINES = """\
run: {name: test, steps: 10}
model: {path: model}
plugins: [PLUGIN]
objectives:
  shout:
    share: 1
    data: {source: jsonl, path: rows.jsonl}
    prompt: "Shout {{ word }}"
    rewards:
      - {use: loud}
      - use: strictly
        pattern: "!"
        name: bang
rollout:
  prompts_per_step: 4
  samples_per_prompt: 2
  max_new_tokens: 8
"""


@pytest.fixture(scope="session")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plugin") / "loud_rewards_for_test_recipe.py"
    path.write_text(PLUGIN)
    return path


@pytest.fixture
def write(tmp_path: Path, plugin: Path, monkeypatch: pytest.MonkeyPatch):
    """Writes the recipe above after replacing pieces of its text; returns its name in the working folder."""
    monkeypatch.chdir(tmp_path)

    def write(*replacements: tuple[str, str], text: str = LINES) -> str:
        for old, new in replacements:
            assert old in text, old
            text = text.replace(old, new, 1)
        Path("x.yaml").write_text(text.replace("PLUGIN", str(plugin)))
        return "x.yaml"

    return write


def problems(path: str, *overrides: str) -> list[str]:
    return [str(problem) for problem in inspect_document(Recipe, path, overrides)[1]]


def test_a_recipe_is_read_with_its_defaults(write):
    recipe = load_recipe(write())
    shout = recipe.objectives["shout"]
    assert [term.name for term in shout.rewards] == ["loud", "bang"]
    assert shout.rewards[0].options == {}
    assert shout.rewards[1].options == {"pattern": "!"}
    assert shout.data.options == {"path": "rows.jsonl"}
    assert recipe.algorithm.advantage.use == "group_std"
    assert recipe.rollout.engine == "auto"


def test_what_to_yaml_writes_is_the_same_recipe(write, tmp_path):
    recipe = load_recipe(
        write(),
        [
            "eval.sets.shout.data={source: csv, path: a.csv, skip: 3}",
            "algorithm.loss={use: ppo_clip}",
            "algorithm.importance={kind: masked}",
            "algorithm.kl={coef: 0.01}",
            "learner.lora={rank: 4, alpha: 8}",
            "objectives.shout.gold=[1, '{{ word }}', {a: null}]",
            "objectives.shout.rewards.1.gate={term: loud, at_least: 0.5}",
        ],
    )
    Path("again.yaml").write_text(recipe.to_yaml())
    assert load_recipe("again.yaml") == recipe
    assert Recipe.model_validate(recipe.model_dump()) == recipe


yaml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=60, deadline=None)
@example(prompt="a\x85b", gold="a \u2028\r\nb")
@given(prompt=st.text(min_size=1).filter(str.strip), gold=yaml_values)
def test_any_text_and_constant_survives_being_written(prompt: str, gold: Any, plugin, tmp_path_factory):
    recipe = Recipe.model_validate(
        {
            "run": {"name": "t", "steps": 1},
            "model": {"path": "m"},
            "plugins": [str(plugin)],
            "objectives": {
                "o": {
                    "share": 1,
                    "data": {"source": "jsonl", "path": "x"},
                    "prompt": without_templates(prompt),
                    "gold": without_templates(gold),
                    "rewards": [{"use": "loud"}],
                }
            },
            "rollout": {"prompts_per_step": 1, "samples_per_prompt": 2, "max_new_tokens": 1},
        }
    )
    path = tmp_path_factory.mktemp("written") / "r.yaml"
    path.write_text(recipe.to_yaml(), encoding="utf-8")
    assert load_recipe(path) == recipe


def without_templates(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace("{", "(")
    if isinstance(value, list):
        return [without_templates(item) for item in value]
    if isinstance(value, dict):
        return {without_templates(key): without_templates(item) for key, item in value.items()}
    return value


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value of a document."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [place for key, value in items for place in [(*path, key), *places(value, (*path, key))]]


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_however_a_recipe_is_spoilt_its_problems_are_told(data, plugin, tmp_path_factory):
    document = YAML(typ="safe", pure=True).load(LINES.replace("PLUGIN", str(plugin)))
    document["eval"] = {"sets": {"shout": {"data": dict(document["objectives"]["shout"]["data"])}}}
    for _ in range(data.draw(st.integers(1, 4))):
        path = data.draw(st.sampled_from(places(document) or [("run",)]))
        parent = document
        for key in path[:-1]:
            parent = parent[key]
        change = data.draw(st.sampled_from(["remove", "rename", "replace"]))
        if change == "remove" or isinstance(parent, list):
            del parent[path[-1]]
        elif change == "rename":
            parent[data.draw(st.sampled_from(["shar", "us", "zzz", "name", "take"]))] = parent.pop(path[-1])
        else:
            parent[path[-1]] = data.draw(yaml_values)
    file = tmp_path_factory.mktemp("spoilt") / "r.yaml"
    YAML(typ="safe", pure=True).dump(document, file)
    recipe, told = inspect_document(Recipe, file)
    assert recipe is not None or told
    lines = len(file.read_text().splitlines())
    for problem in told:
        name, _, line = problem.where.rpartition(":")
        assert (name, 1 <= int(line) <= lines) == (str(file), True)
    if told:
        with pytest.raises(RecipeError) as raised:
            load_recipe(file)
        assert raised.value.problems == told
    else:
        assert load_recipe(file) == recipe


# What a user gets wrong, and the one line that is told.
WRONG = [
    (("max_new_tokens: 8", "max_new_tokens: 8\n  temprature: 1"), "x.yaml:18: rollout.temprature: unknown key; did you mean 'temperature'?"),
    (("  max_new_tokens: 8\n", ""), "x.yaml:14: rollout.max_new_tokens: required, and missing"),
    (("samples_per_prompt", "samples_per_promt"), "x.yaml:16: rollout.samples_per_promt: unknown key; did you mean 'samples_per_prompt'?"),
    (("steps: 10", "steps: ten"), "x.yaml:1: run.steps: should be a valid integer, unable to parse string as an integer, not 'ten'"),
    (("steps: 10", "steps: true"), "x.yaml:1: run.steps: should be a number, not true"),
    (("steps: 10", "steps: 0"), "x.yaml:1: run.steps: should be greater than or equal to 1, not 0"),
    (("name: test", "name: a/b"), "x.yaml:1: run.name: names a folder: letters, digits, '_', '-', '+' and '.' only, not 'a/b'"),
    (("model: {path: model}\n", ""), "x.yaml:1: model: required, and missing"),
    (("model: {path: model}", "model: here"), "x.yaml:2: model: should be a mapping (key: value), not 'here'"),
    (("share: 1", "share: .inf"), "x.yaml:6: objectives.shout.share: should be a finite number, not inf"),
    (("share: 1", "share: 0"), "x.yaml:6: objectives.shout.share: should be greater than 0, not 0"),
    (("  shout:", "  shout it:"), "x.yaml:5: objectives.shout it: a name has letters, digits, '_' and '-' only, not 'shout it'"),
    (("jsonl", "jsnl"), "x.yaml:7: objectives.shout.data.source: unknown data source 'jsnl'; did you mean 'jsonl'?"),
    (("path: rows", "pth: rows"), "x.yaml:7: objectives.shout.data.pth: unknown key; did you mean 'path'?"),
    ((", path: rows.jsonl", ""), "x.yaml:7: objectives.shout.data.path: required, and missing"),
    (("path: rows.jsonl", "path: [1]"), "x.yaml:7: objectives.shout.data.path: should be a valid string, not list"),
    (("use: loud", "use: lowd"), "x.yaml:10: objectives.shout.rewards.0.use: unknown reward 'lowd'; did you mean 'loud'?"),
    (("use: loud", "us: loud"), "x.yaml:10: objectives.shout.rewards.0.us: unknown key; did you mean 'use'?"),
    (("use: loud", "use: loud, at_lest: 2"), "x.yaml:10: objectives.shout.rewards.0.at_lest: unknown key; did you mean 'at_least'?"),
    (("use: loud", "use: loud, wieght: 2"), "x.yaml:10: objectives.shout.rewards.0.wieght: unknown key; did you mean 'weight'?"),
    (("use: loud", "use: loud, at_least: 0"), "x.yaml:10: objectives.shout.rewards.0.at_least: should be greater than or equal to 1, not 0"),
    (("use: loud", "use: loud, mode: lower"), "x.yaml:10: objectives.shout.rewards.0.mode: should be 'upper' or 'title', not 'lower'"),
    (('pattern: "!"', "pattern: 3"), "x.yaml:12: objectives.shout.rewards.1.pattern: should be a valid string, not 3"),
    (('        pattern: "!"\n', ""), "x.yaml:11: objectives.shout.rewards.1.pattern: required, and missing"),
    (("name: bang", "name: loud"), "x.yaml:13: objectives.shout.rewards.1.name: two terms are called 'loud': give this one another 'name'"),
    (("name: bang", "gate: {term: lowd, at_least: 1}"), "x.yaml:13: objectives.shout.rewards.1.gate.term: no term is called 'lowd'; did you mean 'loud'?"),
    (("use: loud", "use: heavy"), "x.yaml:10: objectives.shout.rewards.0.use: reward 'heavy' has an option 'weight', which means something else here: its author must rename it"),
    (("use: loud", "use: graded"), "x.yaml:10: objectives.shout.rewards.0.use: 'graded' compares with a gold answer, and there is none: add 'gold'"),
    (("model: ", "eval: {sets: {shout: {rewards: [{use: graded}], data: {source: jsonl, path: a}}}}\nmodel: "), "x.yaml:2: eval.sets.shout.rewards.0.use: 'graded' compares with a gold answer, and there is none: add 'gold'"),
    (('"Shout {{ word }}"', '"Shout"\n    gold: "{{ word }"'), "x.yaml:9: objectives.shout.gold: not a template: unexpected '}'"),
    (("name: bang", "scale: [1, 1]"), "x.yaml:13: objectives.shout.rewards.1.scale: low and high are both 1: make them differ"),
    (("name: bang", "weight: -1"), "x.yaml:13: objectives.shout.rewards.1.weight: should be greater than 0, not -1"),
    (("name: bang", "on_error: ignore"), "x.yaml:13: objectives.shout.rewards.1.on_error: should be 'mask', 'zero' or 'fail', not 'ignore'"),
    (('"Shout {{ word }}"', '"Shout {{ word }"'), "x.yaml:8: objectives.shout.prompt: not a template: unexpected '}'"),
    (('"Shout {{ word }}"', "{{ word }}"), "x.yaml:8: objectives.shout.prompt: a key cannot be a mapping or a list; a template must be quoted: \"{{ … }}\""),
    (('"Shout {{ word }}"', "[{imge: a}, b]"), "x.yaml:8: objectives.shout.prompt.0.imge: unknown key; did you mean 'image'?"),
    (('"Shout {{ word }}"', "[{role: usr, content: a}]"), "x.yaml:8: objectives.shout.prompt.0.role: should be one of system, user, assistant, tool, not 'usr'"),
    (('"Shout {{ word }}"', "''"), "x.yaml:8: objectives.shout.prompt: empty: write what the model is asked"),
    (("share: 1", "share: 1\n    share: 2"), "x.yaml:7: objectives.shout.share: written twice; the first is on line 6"),
    (("max_new_tokens: 8", "max_new_tokens: 8\n  engine: vlm"), "x.yaml:18: rollout.engine: unknown engine 'vlm'; did you mean 'vllm'?"),
    (("max_new_tokens: 8", "max_new_tokens: 8\n  options: {a: 1}"), "x.yaml:18: rollout.options: are options of one engine: name it with 'engine', because 'auto' may choose another"),
    (("model: ", "algorithm: {advantage: group_sd}\nmodel: "), "x.yaml:2: algorithm.advantage: unknown advantage 'group_sd'; did you mean 'group_std'?"),
    (("model: ", "algorithm: {loss: {use: on_policy, beta: 1}}\nmodel: "), "x.yaml:2: algorithm.loss.beta: unknown key; known: use"),
    (("model: ", "algorithm: {importance: {kind: masked, cap: 2}}\nmodel: "), "x.yaml:2: algorithm.importance.cap: 2 belongs to kind 'truncated', and the kind is 'masked': leave it out"),
    (("model: ", "algorithm: {importance: {high: 3}}\nmodel: "), "x.yaml:2: algorithm.importance.high: 3 belongs to kind 'masked', and the kind is 'truncated': leave it out"),
    (("model: ", "algorithm: {importance: {kind: masked, level: geometric, low: 0.9}}\nmodel: "), "x.yaml:2: algorithm.importance.high: required with level 'geometric': the default is for the ratio of a single token"),
    (("model: ", "algorithm: {importance: {kind: none, level: sequence}}\nmodel: "), "x.yaml:2: algorithm.importance.level: 'sequence' has no effect with kind 'none': leave it out"),
    (("model: ", "algorithm: {kl: {estimator: k4}}\nmodel: "), "x.yaml:2: algorithm.kl.estimator: should be 'k1', 'k2' or 'k3', not 'k4'"),
    (("objectives:\n  shout:\n", "algorithm: {advantage: gdpo}\nobjectives:\n  shout:\n    combine: product\n"), "x.yaml:7: objectives.shout.combine: 'product' has no effect with advantage 'gdpo', which normalises each term and adds them up: use 'sum', or another advantage"),
    (("model: ", "learner: {offload: true}\nmodel: "), "x.yaml:2: learner.offload: needs zero 1, 2 or 3, not 0"),
    (("model: ", "learner: {zero: 4}\nmodel: "), "x.yaml:2: learner.zero: should be less than or equal to 3, not 4"),
    (("model: ", "learner: {betas: [0.9, 1]}\nmodel: "), "x.yaml:2: learner.betas.1: should be less than 1, not 1"),
    (("model: ", "learner: {warmup_steps: 11}\nmodel: "), "x.yaml:2: learner.warmup_steps: warm-up of 11 steps in a run of 10"),
    (("model: ", "eval: {sets: {shout: {data: {source: csv, path: a, delimiter: ';;'}}}}\nmodel: "), "x.yaml:2: eval.sets.shout.data.delimiter: string should have at most 1 character, not ';;'"),
    (("model: ", "cluster: {address: here}\nmodel: "), "x.yaml:2: cluster.address: should be 'local', 'auto' or host:port, not 'here'"),
    (("model: ", "eval: {sets: {shot: {data: {source: jsonl, path: a}}}}\nmodel: "), "x.yaml:2: eval.sets.shot: no objective has this name: name one with 'objective', or give prompt and rewards"),
    (("model: ", "eval: {sets: {a: {objective: shot, data: {source: jsonl, path: a}}}}\nmodel: "), "x.yaml:2: eval.sets.a.objective: no objective is called 'shot'; did you mean 'shout'?"),
    (("model: ", "eval: {sets: {shout: {samples: 4, data: {source: jsonl, path: a}}}}\nmodel: "), "x.yaml:2: eval.sets.shout.samples: 4 greedy responses are all the same: set a temperature above 0"),
    (("plugins: [PLUGIN]", "plugins: [PLUGIN, no_such_module]"), "x.yaml:3: plugins.1: cannot be imported: ModuleNotFoundError: No module named 'no_such_module'"),
    (("plugins: [PLUGIN]", "plugins: [PLUGIN, gone.py]"), "x.yaml:3: plugins.1: no such file: gone.py"),
    (('"Shout {{ word }}"', '"Shout {{ word | boxd }}"'), "x.yaml:8: objectives.shout.prompt: no filter is called 'boxd'; did you mean 'boxed'?"),
    (("model: ", "algorithm: {advantage: grpo}\nmodel: "), "x.yaml:2: algorithm.advantage: unknown advantage 'grpo'; here it is called 'group_std'"),
]  # fmt: skip


@pytest.mark.parametrize(("replacement", "told"), WRONG, ids=[told.split(": ")[1] for _, told in WRONG])
def test_one_mistake_is_told_once_with_its_line(write, replacement, told):
    assert problems(write(replacement)) == [told]


def test_all_mistakes_are_told_at_once_in_the_order_of_lines(write):
    path = write(
        ("steps: 10", "steps: -1, sed: 3"),
        ("share: 1", "share: x"),
        ("use: loud", "use: loud, mode: 1"),
        ('pattern: "!"', "patern: a"),
        ("max_new_tokens: 8", "max_new_tokens: 0"),
    )
    told = problems(path, "learner.lr=-1", "nonsense")
    assert [line.split(": ")[:2] for line in told] == [
        ["x.yaml:1", "run.sed"],
        ["x.yaml:1", "run.steps"],
        ["x.yaml:6", "objectives.shout.share"],
        ["x.yaml:10", "objectives.shout.rewards.0.mode"],
        ["x.yaml:12", "objectives.shout.rewards.1.patern"],
        ["x.yaml:17", "rollout.max_new_tokens"],
        ["command line", "'nonsense' is not of the form key.path=value"],
        ["command line", "learner.lr"],
    ]
    with pytest.raises(RecipeError) as raised:
        load_recipe(path, ["learner.lr=-1", "nonsense"])
    assert str(raised.value).splitlines() == told


def test_what_depends_on_a_mistake_is_not_told(write):
    path = write(
        ("use: loud", "use: lowd"),
        ("name: bang", "gate: {term: loud, at_least: 1}"),
        ("model: ", "eval: {sets: {shout: {data: {source: nope, path: a}}, e: {data: {source: jsonl, path: b}, objective: shout}}}\nmodel: "),
    )  # fmt: skip
    assert [line.split(": ")[1] for line in problems(path)] == [
        "eval.sets.shout.data.source",
        "objectives.shout.rewards.0.use",
    ]


def test_a_missing_key_is_told_although_one_of_a_like_name_is_wrong(write):
    told = problems(write(("max_new_tokens: 8", "max_prompt_tokens: 0")))
    assert [line.split(": ")[1] for line in told] == ["rollout.max_new_tokens", "rollout.max_prompt_tokens"]


def test_what_is_left_of_a_wrong_recipe_can_be_used(write):
    path = write(("use: loud", "use: lowd"), ("steps: 10", "stps: 10"), ("share: 1", "share: -1"))
    recipe, _ = inspect_document(Recipe, path)
    assert recipe is not None
    assert recipe.run.name == "test"
    assert [term.name for term in recipe.objectives["shout"].rewards] == ["bang"]
    recipe, _ = inspect_document(Recipe, write(("use: loud", "use: lowd"), ("use: strictly", "use: strict")))
    assert recipe is not None
    assert recipe.objectives["shout"].rewards == []
    assert inspect_document(Recipe, write(("jsonl", "nope")))[0] is None


def test_paths_keep_the_indices_of_the_file(write):
    path = write(("{use: loud}", "{use: lowd}"), ("name: bang", "name: bang\n        gate: {term: bung, at_least: 1}"))
    told = problems(path)
    assert "objectives.shout.rewards.0.use" in told[0]
    assert problems(write(("- {use: loud}", "- {use: lowd}"), ('pattern: "!"', "pattern: 1")))[1].startswith(
        "x.yaml:12: objectives.shout.rewards.1.pattern"
    )


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("run.steps=3", lambda r: r.run.steps, 3),
        ("rollout.engine=hf", lambda r: r.rollout.engine, "hf"),
        ("objectives.shout.rewards.0.weight=2", lambda r: r.objectives["shout"].rewards[0].weight, 2.0),
        ("objectives.shout.rewards.0.at_least=2", lambda r: r.objectives["shout"].rewards[0].options, {"at_least": 2}),
        ("learner.lora={rank: 2, alpha: 1}", lambda r: r.learner.lora.rank, 2),
        ("objectives.shout.prompt=a: {{ word }} = b", lambda r: r.objectives["shout"].prompt, "a: {{ word }} = b"),
        ("objectives.shout.data.take=null", lambda r: r.objectives["shout"].data.take, None),
        ("objectives.shout.gold=12", lambda r: r.objectives["shout"].gold, 12),
        ("learner.lr=1e-5", lambda r: r.learner.lr, 1e-5),
        ("rollout.temperature=null", lambda r: r.rollout.temperature, 1.0),
        ("scoring.workers=null", lambda r: r.scoring.workers, None),
        ("rollout.engine=hf", lambda r: r.rollout.options, {}),
    ],
)
def test_overrides_are_set_by_path(write, override, read, value):
    assert read(load_recipe(write(), [override])) == value


def test_null_takes_an_objective_out(write):
    other = "  other:\n    share: 1\n    data: {source: jsonl, path: a}\n    prompt: b\n    rewards: [{use: loud}]\n"
    path = write(("rollout:", other + "rollout:"))
    assert list(load_recipe(path).objectives) == ["shout", "other"]
    assert list(load_recipe(path, ["objectives.shout=null"]).objectives) == ["other"]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("rolout.engine=hf", "command line: rolout: unknown key; did you mean 'rollout'?"),
        ("rollout.engine=hff", "command line: rollout.engine: unknown engine 'hff'; did you mean 'hf'?"),
        ("rollout.engine.x=1", "command line: rollout.engine: should be a valid string, not dict"),
        ("run.name.x=1", "command line: run.name.x: 'run.name' is not a mapping, so it has no 'x'"),
        ("objectives.shout.rewards.2.weight=1", "command line: objectives.shout.rewards.2.weight: 'objectives.shout.rewards' is a list of 2: number its items 0, 1, …"),
        ("objectives.shout.rewards.first.weight=1", "command line: objectives.shout.rewards.first.weight: 'objectives.shout.rewards' is a list of 2: number its items 0, 1, …"),
        ("objectives.shout.rewards.0.at_lest=1", "command line: objectives.shout.rewards.0.at_lest: unknown key; did you mean 'at_least'?"),
        ("run.steps=[1", "command line: run.steps: not valid YAML: expected ',' or ']', but got '<stream end>' while parsing a flow sequence"),
        ("run.steps", "command line: 'run.steps' is not of the form key.path=value"),
        ("run..steps=1", "command line: 'run..steps=1' is not of the form key.path=value"),
        ("run.steps=null", "x.yaml:1: run.steps: required, and missing"),
    ],
)  # fmt: skip
def test_a_wrong_override_is_told_as_such(write, override, told):
    assert problems(write(), override) == [told]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "x.yaml:1: the file is empty; a recipe has at least run, model, objectives and rollout"),
        ("# nothing\n", "x.yaml:1: the file is empty; a recipe has at least run, model, objectives and rollout"),
        ("- a\n", "x.yaml:1: a recipe is a mapping (key: value)"),
        ("just text", "x.yaml:1: a recipe is a mapping (key: value)"),
        ("run:\n\tname: x\n", "x.yaml:2: not valid YAML: found character '\\t' that cannot start any token while scanning for the next token"),
        ("a: 1\n---\nb: 2\n", "x.yaml:2: not valid YAML: but found another document expected a single document in the stream"),
        ("a: *b\n", "x.yaml:1: not valid YAML: found undefined alias 'b'"),
        ("a:\n " + 200 * "[" + 200 * "]", "x.yaml:2: not valid YAML: maximum depth of data structure exceeded (101), if necessary increase YAML().max_depth"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_recipe_is_refused(write, text, told):
    assert problems(write(text=text)) == [told]


def test_a_file_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = "no such file, and no built-in recipe"
    every = ", ".join(sorted(name for folder in ("", "evals", "mini") for name in builtin_recipes(folder)))
    assert problems("gone.yaml") == [f"gone.yaml: {message}; known: {every}"]
    assert problems("quickstrt") == [f"quickstrt: {message}; did you mean 'quickstart'?"]
    assert problems("mini/pretrian") == [f"mini/pretrian: {message}; did you mean 'mini/pretrain'?"]
    Path("folder").mkdir()
    assert problems("folder") == ["folder: is a folder, not a recipe"]
    Path("latin.yaml").write_bytes("a: é".encode("latin-1"))
    assert problems("latin.yaml") == ["latin.yaml: not UTF-8 text (byte 3); save it as UTF-8"]


def test_a_plugin_that_raises_is_named_with_its_line(write):
    Path("broken_plugin_for_test_recipe.py").write_text("import json\n\n\nvalue = json.loads('{')\n")
    (told,) = problems(write(("plugins: [PLUGIN]", "plugins: [PLUGIN, broken_plugin_for_test_recipe.py]")))
    place = Path("broken_plugin_for_test_recipe.py").resolve()
    assert told.startswith(f"x.yaml:3: plugins.1: cannot be imported: {place}:4: JSONDecodeError: ")


def test_a_plugin_that_ends_the_program_is_named_too(write):
    Path("ending_plugin_for_test_recipe.py").write_text("import sys\n\nsys.exit(3)\n")
    (told,) = problems(write(("plugins: [PLUGIN]", "plugins: [PLUGIN, ending_plugin_for_test_recipe.py]")))
    assert told.endswith("ending_plugin_for_test_recipe.py:3: SystemExit: 3")


def test_two_rewards_of_one_name_are_told_with_all_remedies(write):
    Path("second_loud_for_test_recipe.py").write_text(PLUGIN)
    (told,) = problems(write(("plugins: [PLUGIN]", "plugins: [PLUGIN, second_loud_for_test_recipe.py]")))
    assert "two rewards are called 'loud'" in told
    assert told.endswith("; rename one, uninstall its package, or take its file out of `plugins`")


@pytest.mark.parametrize(
    ("kind", "name", "told"),
    [
        (Recipe, "mini/pretrain", "a recipe of `morl sft`: run `morl sft mini/pretrain`"),
        (Recipe, "mini/judge", "a recipe of `morl rm`: run `morl rm mini/judge`"),
        (Recipe, "evals/gsm8k", "an evaluation set: run `morl eval evals/gsm8k --model PATH`"),
        (SftRecipe, "quickstart", "a recipe of `morl train`: run `morl train quickstart`"),
        (EvalSetRecipe, "mini/judge", "a recipe of `morl rm`: run `morl rm mini/judge`"),
    ],
)
def test_a_recipe_of_another_kind_is_told_in_one_line(kind, name, told):
    with pytest.raises(RecipeError) as raised:
        load_document(kind, name)
    assert str(raised.value) == f"{name}: this is {told}"


@pytest.mark.parametrize("value", ["!!int x", "!!int ''", "!!bool x", "!!float ''", "!other 3", "2020-13-45"])
def test_a_value_that_its_tag_does_not_allow_is_told_with_its_line(write, value):
    (told,) = problems(write(("seed: 1", f"seed: {value}"), text=LINES.replace("steps: 10", "steps: 10, seed: 1")))
    assert told.startswith("x.yaml:1: run.seed: not valid YAML: ")


@pytest.mark.parametrize("spoilt", ["", "run: 3\n"])
def test_a_section_that_is_missing_or_no_mapping_is_told_once(tmp_path, spoilt):
    path = tmp_path / "x.yaml"
    data = "{share: 1, data: {source: jsonl, path: x}, prompt: a, answer: b}"
    path.write_text(
        f"{spoilt}model: {{path: m}}\nstages: {{a: {{steps: 1, examples_per_step: 1, lr: 1, datasets: {{d: {data}}}}}}}\n"
    )
    assert [problem.path for problem in inspect_document(SftRecipe, path)[1]] == ["run"]


def test_a_merged_mapping_keeps_its_place_and_its_lines(write):
    other = "  other:\n    <<: *base\n    share: 0\n    rewards: [{use: lowd}]\n"
    path = write(("shout:\n", "shout: &base\n"), ("jsonl", "jsnl"), ("rollout:", other + "rollout:"))
    assert [line.split(": ")[:2] for line in problems(path)] == [
        ["x.yaml:7", "objectives.shout.data.source"],
        ["x.yaml:7", "objectives.other.data.source"],
        ["x.yaml:16", "objectives.other.share"],
        ["x.yaml:17", "objectives.other.rewards.0.use"],
    ]
    told = problems(
        write(("shout:\n", "shout: &base\n"), ("rollout:", other + "rollout:")), "objectives.other.data.take=0"
    )
    assert told[-1].startswith("command line: objectives.other.data.take: ")
    assert not any("objectives.shout" in line for line in told)


def test_an_alias_within_itself_is_refused(write):
    assert problems(write(("model: {path: model}", "model: &m {path: model, a: *m}")))[0] == (
        "x.yaml:2: model.a: an alias cannot refer to a value that contains it"
    )


def test_anchors_and_merge_keys_work(write):
    other = "  other: {<<: *base, share: 3}\n"
    recipe = load_recipe(write(("shout:\n", "shout: &base\n"), ("rollout:", other + "rollout:")))
    assert recipe.objectives["other"].share == 3
    assert recipe.objectives["other"].prompt == recipe.objectives["shout"].prompt


def test_evaluation_sets_inherit_from_their_objective(write):
    text = (
        "eval:\n  sets:\n"
        "    shout: {data: {source: jsonl, path: test.jsonl}}\n"
        "    hard: {objective: shout, data: {source: csv, path: hard.csv}, prompt: harder, pass_at: 0.5}\n"
        "    own: {data: {source: csv, path: a.csv}, prompt: own, rewards: [{use: loud}]}\n"
        "model: "
    )
    recipe = load_recipe(write(("model: ", text)))
    sets, trained = recipe.eval_objectives(), recipe.objectives["shout"]
    assert sets["shout"].rewards == sets["hard"].rewards == trained.rewards
    assert (sets["shout"].prompt, sets["hard"].prompt, sets["own"].prompt) == (trained.prompt, "harder", "own")
    assert sets["shout"].data.options == {"path": "test.jsonl"}
    assert (sets["shout"].pass_at, sets["hard"].pass_at) == (1.0, 0.5)


def test_the_shape_of_the_design_is_read(write):
    path = write(
        text="""\
run:      {name: mixed, seed: 0, steps: 200, checkpoint_every: 20}
model:    {path: ./mimo-vl-7b-sft, dtype: bfloat16}
plugins:  [PLUGIN]
objectives:
  math:
    share: 0.4                                    # of the prompts of a step
    data: {source: jsonl, path: data/math.jsonl}
    prompt: "{{ question }}\\nPut the final answer in \\\\boxed{}."
    gold: "{{ answer }}"
    rewards:
      - {use: math, deadline_s: 5}
  grounding:
    share: 0.3
    data: {source: huggingface, path: data/refcoco, split: train}
    prompt: [{image: "{{ image }}"}, "Locate {{ expression }}; answer in JSON with bbox_2d."]
    gold: "{{ bbox }}"
    rewards:
      - {use: loud, mode: title}
  helpful:
    share: 0.3
    data: {source: jsonl, path: data/queries.jsonl}
    prompt: "{{ query }}"
    rewards:
      - {use: strictly, pattern: x, weight: 0.8}
      - {use: length, maximum: 400, weight: 0.2}
      - {use: loud, weight: 0.2, gate: {term: strictly, at_least: 0.5}, on_error: mask}
algorithm: {advantage: group_std, loss: on_policy, aggregation: prompt_tokens, importance: {kind: truncated, cap: 2.0}}
rollout:  {engine: auto, engines: 4, prompts_per_step: 64, samples_per_prompt: 16, max_new_tokens: 4096, temperature: 1.0}
learner:  {ranks: 8, zero: 3, lr: 1.0e-6, tokens_per_microbatch: 16384}
eval:     {every: 20, sets: {math: {data: {source: jsonl, path: data/math_test.jsonl}}}}
track:    {wandb: null}
"""
    )
    recipe = load_recipe(path)
    assert recipe.objectives["math"].prompt.endswith("\\boxed{}.")
    assert recipe.objectives["helpful"].rewards[2].gate.term == "strictly"
    jsonschema.validate(recipe.model_dump(mode="json"), json_schema())


@pytest.mark.parametrize("name", builtin_recipes())
def test_every_recipe_of_morl_is_read_by_its_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(name)
    assert load_recipe(f"recipes/{name}.yaml") == load_recipe(f"{name}.yaml") == recipe
    assert problems(f"elsewhere/{name}.yaml")[0].startswith(f"elsewhere/{name}.yaml: no such file")


def test_the_schema_file_is_the_schema():
    path = Path(__file__).parents[2] / "recipes" / "morl.schema.json"
    assert json.loads(path.read_text(encoding="utf-8")) == json_schema(), (
        "write it anew: python -m morl.cli.recipe_docs --schema > recipes/morl.schema.json"
    )


def test_the_reference_is_that_of_the_schema():
    path = Path(__file__).parents[2] / "docs" / "recipe.md"
    text = path.read_text(encoding="utf-8")
    assert text == reference(), "write it anew: python -m morl.cli.recipe_docs > docs/recipe.md"
    for key in ("samples_per_prompt", "bad_media", "`algorithm.importance`", "`reasoning_gym`", "`boxed`"):
        assert key in text


def test_the_schema_names_every_data_source():
    told = json_schema()["$defs"]["DataSpec"]["properties"]["source"]["description"]
    built_in = [name for name, entry in SOURCES.entries().items() if entry.target.startswith("morl.")]
    assert set(built_in) <= set(re.findall(r"\w+", told))


def test_every_key_is_described():
    schema = json_schema()
    sections = [schema, *schema["$defs"].values(), *(s["anyOf"][1] for s in schema["$defs"].values() if "anyOf" in s)]
    for section in sections:
        for key, value in section.get("properties", {}).items():
            section_of = schema["$defs"].get(value.get("$ref", "").rpartition("/")[2], {})
            assert value.get("description") or section_of.get("description"), f"{section['title']}.{key}"


def test_reading_a_recipe_imports_nothing_heavy(write):
    code = "import sys; from morl.recipe.load import load_recipe; load_recipe('x.yaml'); print(*sys.modules)"
    write()
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "ray", "vllm", "transformers", "datasets", "deepspeed"} & set(modules)


def test_libraries_that_are_there_already_go_offline_too(write):
    code = (
        "import sys, morl.recipe.load as r; from huggingface_hub import constants; constants.HF_HUB_OFFLINE = False; "
        "r.go_offline(r.load_recipe(sys.argv[1])); print(constants.is_offline_mode())"
    )
    done = subprocess.run([sys.executable, "-c", code, str(write())], capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr
