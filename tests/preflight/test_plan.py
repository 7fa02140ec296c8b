"""The plan of a recipe: exact arithmetic, memory in proportion to what must be held, and what does not fit said."""

from __future__ import annotations

from pathlib import Path

import pytest

from morl.cli.main import main
from morl.model.loading import load_policy
from morl.preflight.run_plan import GIB, Machines, Shape, _learner_memory, plan
from morl.recipe.load import load_recipe
from morl.recipe.train_recipe import Recipe

RECIPE = """
run: {{name: planned, steps: 100}}
model: {{path: {model}}}
objectives:
  a: {{share: 3, data: {{source: jsonl, path: a.jsonl}}, prompt: "{{{{ q }}}}", rewards: [{{use: length, maximum: 5}}]}}
  b: {{share: 1, data: {{source: jsonl, path: b.jsonl}}, prompt: "{{{{ q }}}}", rewards: [{{use: length, maximum: 5}}]}}
rollout:
  {{engine: vllm, engines: 4, prompts_per_step: 16, samples_per_prompt: 8, max_new_tokens: 100, max_prompt_tokens: 50}}
learner: {{ranks: 4, zero: 3}}
"""


@pytest.fixture
def path(tiny_model: Path, tmp_path: Path) -> Path:
    path = tmp_path / "planned.yaml"
    path.write_text(RECIPE.format(model=tiny_model))
    return path


def told(recipe: Recipe, machines: Machines | None = None) -> dict[str, str]:
    return {item.what: item.value for item in plan(recipe, machines)}


def test_the_arithmetic_of_a_step(path: Path) -> None:
    lines = told(load_recipe(path))
    assert lines["prompts x samples"] == "16 x 8 = 128"
    assert lines["tokens written, at most"] == "12,800"
    assert lines["tokens of a learner's row, at most"] == "850"
    assert (lines["prompts of a"], lines["prompts of b"]) == ("12.0", "4.0")


def test_sizes_are_those_of_the_model(tiny_model: Path, vision_model: Path) -> None:
    for folder in (tiny_model, vision_model):
        shape = Shape.of(folder, "float32")
        assert shape.parameters == sum(p.numel() for p in load_policy(folder, "float32").parameters())
    shape = Shape.of(tiny_model, "bfloat16")
    assert shape.kv_bytes == 2 * 2 * 1 * 32 * 2  # keys and values, layers, heads, their width, bytes


@pytest.mark.parametrize(
    ("learner", "parts"),
    [
        ("{zero: 0, ranks: 1}", (4, 4, 8)),
        ("{zero: 1, ranks: 4}", (4, 4, 3)),
        ("{zero: 2, ranks: 4}", (4, 1, 3)),
        ("{zero: 3, ranks: 4}", (1, 1, 3)),
        ("{zero: 3, ranks: 4, offload: true}", (1, 1, 0)),
    ],
)
def test_memory_is_parted_as_zero_says(path: Path, learner: str, parts: tuple[int, int, int]) -> None:
    recipe = load_recipe(path, [f"learner={learner}"])
    shape = Shape.of(Path(recipe.model.path), "float32")
    found = _learner_memory(recipe, shape)
    bytes_each = [found[name] / shape.parameters for name in ("weights", "gradients", "optimiser")]
    assert bytes_each == pytest.approx(parts)


def test_a_row_is_never_cut(path: Path) -> None:
    apart = load_recipe(path, ["learner.share_prefix=false", "learner.tokens_per_microbatch=1"])
    together = load_recipe(path, ["learner.tokens_per_microbatch=1"])
    assert told(apart)["tokens of a learner's row, at most"] == "150"
    shape = Shape.of(Path(apart.model.path), "float32")
    activations = [_learner_memory(recipe, shape)["activations"] for recipe in (apart, together)]
    assert activations[1] / activations[0] == pytest.approx(850 / 150)


def test_a_reward_model_takes_a_gpu_for_each_replica(path: Path) -> None:
    judge = "{use: reward_model, path: judge, replicas: 2}"
    shared = load_recipe(path, [f"objectives.{name}.rewards=[{judge}]" for name in "ab"])
    assert told(shared, Machines(10, 1, 80.0))["reward models"] == "2"
    assert told(shared, Machines(10, 1, 80.0))["together"] == "10 of 10"
    apart = load_recipe(
        path, [f"objectives.a.rewards=[{judge}]", "objectives.b.rewards=[{use: reward_model, path: b}]"]
    )
    assert told(apart)["reward models"] == "3"
    assert told(apart)["objectives.b.rewards.0.path"].startswith("b: not on this machine")


def test_what_does_not_fit_is_said(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = load_recipe(path)
    assert told(recipe, Machines(8, 1, 80.0))["together"] == "8 of 8"
    assert all(item.fits for item in plan(recipe, Machines(8, 1, 80.0)))
    small = [item for item in plan(recipe, Machines(4, 1, 64 * 2**20 / GIB)) if not item.fits]
    assert [item.what for item in small] == ["together", "a learner's GPU"]
    assert "add machines" in small[0].value
    assert main(["plan", str(path), "--gpus", "8"]) == 0
    assert main(["plan", str(path), "--gpus", "4"]) == 1
    assert main(["plan", str(path), "--gpus", "0"]) == 2
    capsys.readouterr()
    assert main(["plan", str(path), "model.path=/no/such/model"]) == 1
    assert "not estimated" in capsys.readouterr().out


def test_an_engine_without_room_for_one_sequence_does_not_fit(path: Path) -> None:
    recipe = load_recipe(path, ["learner.zero=3", "learner.ranks=64"])
    weights = 4 * Shape.of(Path(recipe.model.path), "float32").parameters / GIB
    what = "sequences that an engine holds at once"
    (full,) = (item for item in plan(recipe, Machines(72, 1, 1.05 * weights)) if item.what == what)
    assert not full.fits
    assert full.value.startswith("0 of 150 tokens; raise tensor_parallel_size")
    (roomy,) = (item for item in plan(recipe, Machines(72, 1, 80.0)) if item.what == what)
    assert roomy.fits
