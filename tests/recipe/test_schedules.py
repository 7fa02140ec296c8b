"""What moves with the training step: values by step, what a recipe may schedule, and what the scorer makes of it."""

# ruff: noqa: E501 - a row of a table is one line

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from morl.cli.recipe_docs import json_schema
from morl.recipe.load import inspect_document, load_recipe
from morl.recipe.schedules import value_at
from morl.recipe.schema.objective_section import ObjectiveSpec, TermSpec
from morl.recipe.train_recipe import Recipe
from morl.rewards import reward
from morl.rewards.resource import Resource
from morl.rewards.reward import Verdict
from morl.rewards.scorer import Scorer
from morl.types import Prompt, Sample


@reward("scheduled_for_tests", runs="inline")
def scheduled(
    response: str,
    *,
    threshold: Annotated[float, Field(ge=0, le=1)],
    words: Annotated[int, Field(ge=1)] | None = None,
    eighths: Annotated[int, Field(multiple_of=8)] = 8,
    mode: Literal["a", "b"] = "a",
    strict: bool = False,
) -> Verdict:
    return Verdict(float(float(response) >= threshold), "ok", f"{threshold} {words}")


@reward("resource_for_tests_of_schedules", resource=Resource)
async def kept(response: str, resource: Resource, *, threshold: float = 0.5) -> float:
    return 1.0


points = st.lists(
    st.tuples(st.integers(0, 1000), st.floats(-1e9, 1e9)), min_size=1, max_size=6, unique_by=lambda p: p[0]
)


@given(points.map(sorted), st.integers(-5, 1100), st.sampled_from(["linear", "steps"]))
def test_a_value_lies_between_its_neighbours(points: list[tuple[int, float]], step: int, shape: Any) -> None:
    value = value_at(points, step, shape)
    before = [v for s, v in points if s <= step][-1:]
    after = [v for s, v in points if s > step][:1]
    assert min(before + after) <= value <= max(before + after)
    if step in dict(points):
        assert value == dict(points)[step]
    if before and (shape == "steps" or not after):
        assert value == before[0]


def test_a_line_is_straight() -> None:
    assert [value_at([(0, 1.0), (4, 3.0)], step, "linear") for step in range(6)] == [1.0, 1.5, 2.0, 2.5, 3.0, 3.0]


def term(**keys: Any) -> TermSpec:
    return TermSpec.model_validate({"use": "scheduled_for_tests", "threshold": 0.5, **keys})


def test_a_term_has_the_values_of_the_step() -> None:
    moving = TermSpec.model_validate(
        {
            "use": "scheduled_for_tests",
            "gate": {"term": "other"},
            "schedule": {
                "weight": {0: 1.0, 100: 0.5},
                "gate": {10: 0.1, 20: 0.9, "shape": "steps"},
                "threshold": {0: 0.5, 50: 0.75, 100: 0.95, "shape": "steps"},
                "words": {1: 100, 4: 51},
            },
        }
    )
    at_50 = moving.at(50)
    assert (at_50.weight, at_50.gate.at_least, at_50.options["threshold"]) == (0.75, 0.9, 0.75)
    assert [moving.at(step).options["words"] for step in (1, 2, 3, 4)] == [100, 84, 67, 51]
    assert [moving.at(step).gate.at_least for step in (9, 19, 20)] == [0.1, 0.1, 0.9]
    assert moving.at(10_000) == moving.at(100) == moving
    assert moving.options == {"threshold": 0.95, "words": 51}
    assert (moving.weight, moving.gate.at_least) == (0.5, 0.9)
    assert TermSpec.model_validate(moving.model_dump()) == moving


# What a user gets wrong in the schedule of a term, where it is told, and how.
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"treshold": {0: 1, 9: 2}}, "schedule.treshold", "unknown key; did you mean 'threshold'?"),
    ({"wieght": {0: 1, 9: 2}}, "schedule.wieght", "unknown key; did you mean 'weight'?"),
    ({"on_error": {0: 1, 9: 2}}, "schedule.on_error", "unknown key; known: eighths, threshold, weight, words"),
    ({"mode": {0: 1, 9: 2}}, "schedule.mode", "only numbers can move, and this option is not a number"),
    ({"strict": {0: 0, 9: 1}}, "schedule.strict", "only numbers can move, and this option is not a number"),
    ({"gate": {0: 1, 9: 2}}, "schedule.gate", "there is no gate to move: add 'gate'"),
    ({"weight": {0: 1, 9: 0}}, "schedule.weight.9", "should be greater than 0, not 0"),
    ({"words": {0: 0, 9: 2}}, "schedule.words.0", "should be greater than or equal to 1, not 0"),
    ({"words": {0: 2.5, 9: 2}}, "schedule.words.0", "should be a valid integer, got a number with a fractional part"),
    ({"eighths": {0: 8, 9: 64}}, "schedule.eighths", "in step 1: should be a multiple of 8, not 14; 'shape: steps'"),
    ({"threshold": {0: 0.4, 9: 1.5}}, "schedule.threshold.9", "should be less than or equal to 1, not 1.5"),
    ({"threshold": {0: 0.4, 9: 0.6}}, "threshold", "its schedule ends at 0.6: leave this out, or write the same"),
    ({"weight": {0: 1, 9: float("nan")}}, "schedule.weight.9", "Input should be a finite number"),
    ({"weight": {0: 1, 9: True}}, "schedule.weight.9", "should be a number, not true"),
    ({"weight": {0: 1}}, "schedule.weight", "a schedule needs two points or more"),
    ({"weight": {}}, "schedule.weight", "a schedule needs two points or more"),
    ({"weight": {9: 1, 0: 2}}, "schedule.weight.0", "steps should ascend, and 0 comes after 9"),
    ({"weight": {-1: 1, 0: 2}}, "schedule.weight.-1", "should be a step (0, 1, 2, …) or 'shape'"),
    ({"weight": {0: 1, 1.5: 2}}, "schedule.weight.1.5", "should be a step (0, 1, 2, …) or 'shape'"),
    ({"weight": {0: 1, 9: 2, "shap": "steps"}}, "schedule.weight.shap", "should be a step (0, 1, 2, …) or 'shape'"),
    ({"weight": {0: 1, 9: 2, "shape": "step"}}, "schedule.weight.shape", "Input should be 'linear' or 'steps'"),
    ({"weight": 3}, "schedule.weight", "Input should be a valid dictionary"),
]


@pytest.mark.parametrize(
    ("schedule", "where", "told"), WRONG, ids=[f"{where}-{i}" for i, (_, where, _) in enumerate(WRONG)]
)
def test_a_wrong_schedule_is_refused_where_it_is_wrong(schedule: dict[str, Any], where: str, told: str) -> None:
    with pytest.raises(ValidationError) as raised:
        term(schedule=schedule)
    (item,) = raised.value.errors()
    assert ".".join(map(str, item["loc"])) == where
    assert item["msg"].startswith(told)


def test_options_of_a_resource_cannot_move_and_its_weight_can() -> None:
    moving = {"use": "resource_for_tests_of_schedules", "schedule": {"weight": {0: 1, 9: 2}}}
    assert TermSpec.model_validate(moving).at(3).weight == pytest.approx(1 + 1 / 3)
    with pytest.raises(ValidationError, match="only weight and gate can move"):
        TermSpec.model_validate(moving | {"schedule": {"threshold": {0: 1, 9: 2}}})


RECIPE = """\
run: {name: test, steps: 10}
model: {path: model}
objectives:
  brief:
    share: 1
    data: {source: jsonl, path: rows.jsonl}
    prompt: "{{ word }}"
    rewards:
      - use: length
        schedule:
          maximum: {0: 400, 100: 80}
          weight: {0: 1.0, 100: 0.2, shape: steps}
rollout: {prompts_per_step: 4, samples_per_prompt: 2, max_new_tokens: 8}
"""


def recipe(folder: Path, old: str = "", new: str = "") -> Path:
    assert old in RECIPE
    path = folder / "r.yaml"
    path.write_text(RECIPE.replace(old, new))
    return path


def test_a_recipe_with_a_schedule_is_read_written_and_known_to_editors(tmp_path: Path) -> None:
    read = load_recipe(recipe(tmp_path))
    (brief,) = read.objectives["brief"].rewards
    assert (brief.at(50).weight, brief.at(50).options) == (1.0, {"maximum": 240})
    (tmp_path / "again.yaml").write_text(read.to_yaml())
    assert load_recipe(tmp_path / "again.yaml") == read
    schema = json_schema()
    jsonschema.validate(json.loads(json.dumps(read.model_dump(mode="json"))), schema)
    for wrong in ({"one": 1.0}, {"0": "x"}, {"0": 1, "shape": "curved"}):
        document = read.model_dump(mode="json")
        document["objectives"]["brief"]["rewards"][0]["schedule"]["weight"] = wrong
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(document, schema)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("maximum: {", "maxmum: {", "r.yaml:11: objectives.brief.rewards.0.schedule.maxmum: unknown key; did you mean 'maximum'?"),
        ("100: 80", "100: -80", "r.yaml:11: objectives.brief.rewards.0.schedule.maximum.100: should be greater than or equal to 0, not -80"),
        ("100: 80", "1OO: 80", "r.yaml:11: objectives.brief.rewards.0.schedule.maximum.1OO: should be a step (0, 1, 2, …) or 'shape'"),
        ("0: 400, 100", "100: 400, 0", "r.yaml:11: objectives.brief.rewards.0.schedule.maximum.0: steps should ascend, and 0 comes after 100"),
        ("{0: 400, 100: 80}", "80", "r.yaml:11: objectives.brief.rewards.0.schedule.maximum: should be a mapping (key: value), not 80"),
        ("shape: steps", "shape: step", "r.yaml:12: objectives.brief.rewards.0.schedule.weight.shape: should be 'linear' or 'steps', not 'step'"),
        ("use: length", "use: lenght", "r.yaml:9: objectives.brief.rewards.0.use: unknown reward 'lenght'; did you mean 'length'?"),
    ],
)  # fmt: skip
def test_one_mistake_is_told_once_with_its_line(tmp_path: Path, old: str, new: str, told: str) -> None:
    path = recipe(tmp_path, old, new)
    problems = [str(problem).removeprefix(f"{tmp_path}/") for problem in inspect_document(Recipe, path)[1]]
    assert problems == [told]


def test_a_schedule_can_be_overridden(tmp_path: Path) -> None:
    here = "objectives.brief.rewards.0"
    read = load_recipe(
        recipe(tmp_path), [f"{here}.schedule.maximum.100=60", f"{here}.schedule.weight=null", f"{here}.weight=3"]
    )
    (brief,) = read.objectives["brief"].rewards
    assert (brief.options, brief.weight, list(brief.schedule)) == ({"maximum": 60}, 3.0, ["maximum"])


def objective(**more: Any) -> ObjectiveSpec:
    moving = {
        "use": "scheduled_for_tests",
        "schedule": {"threshold": {0: 0.2, 10: 0.8}, "weight": {0: 1.0, 10: 3.0}},
    }
    still = {"use": "length", "maximum": 0}
    data = {"source": "jsonl", "path": "none.jsonl"}
    return ObjectiveSpec.model_validate({"share": 1, "data": data, "prompt": "x", "rewards": [moving, still], **more})


def score(scorer: Scorer, name: str, text: str) -> float | None:
    prompt = Prompt(f"{name}/0", name, ({"role": "user", "content": "x"},))
    return asyncio.run(scorer.score(prompt, Sample(prompt.id, 0, (1,), (1,), (0.0,), 0, "stop", text))).value


def test_training_follows_the_schedule_and_measurements_stand_at_its_end() -> None:
    with Scorer({"trained": objective()}, measured={"eval": objective()}) as scorer:
        assert score(scorer, "trained", "0.5") == 0.0
        assert score(scorer, "trained", "0.8") == 0.75
        for step, threshold, share in ((1, 0.26, 1.2 / 2.2), (5, 0.5, 2 / 3), (10, 0.8, 0.75), (99, 0.8, 0.75)):
            scorer.begin_step(step)
            assert score(scorer, "trained", str(threshold)) == pytest.approx(share)
            assert score(scorer, "trained", str(threshold - 0.01)) == 0.0
            assert score(scorer, "eval", "0.8") == 0.75
            assert score(scorer, "eval", "0.79") == 0.0


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=1, max_size=5), st.floats(0, 1))
def test_scores_depend_on_the_step_alone(steps: list[int], value: float) -> None:
    with Scorer({"o": objective()}) as long, Scorer({"o": objective()}) as resumed:
        for step in steps:
            long.begin_step(step)
        resumed.begin_step(steps[-1])
        assert score(long, "o", str(value)) == score(resumed, "o", str(value))


def test_a_gate_opens_later() -> None:
    rewards = [
        {"use": "scheduled_for_tests", "name": "judge", "threshold": 0.5},
        {
            "use": "length",
            "maximum": 9,
            "gate": {"term": "judge"},
            "schedule": {"gate": {0: 0.0, 5: 1.0, "shape": "steps"}},
        },
    ]
    with Scorer({"o": objective(rewards=rewards)}) as scorer:
        scorer.begin_step(4)
        assert score(scorer, "o", "0.1") == 0.5
        scorer.begin_step(5)
        assert score(scorer, "o", "0.1") == 0.0
