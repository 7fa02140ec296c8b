"""What is exported from a checkpoint is what the learner published, by one process without a learner."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from learner_groups import make_groups
from safetensors import safe_open
from safetensors.torch import load_file

from morl.cli.main import main
from morl.cluster import Cluster
from morl.learner.learner import Learner
from morl.learner.policy import PolicySettings
from morl.recipe.load import load_recipe
from morl.recipe.schema.machine_sections import ClusterSpec
from morl.run.checkpoint import CheckpointStore, write_state
from morl.run.export_policy import export

RECIPE = """
run: {{name: tiny, steps: 3, dir: {folder}/runs}}
model: {{path: {model}}}
objectives:
  sums:
    share: 1.0
    data: {{source: jsonl, path: {folder}/rows.jsonl}}
    prompt: "{{{{ question }}}}"
    gold: "{{{{ answer }}}}"
    rewards: [{{use: exact}}]
rollout: {{engine: hf, prompts_per_step: 4, samples_per_prompt: 4, max_new_tokens: 8}}
learner: {{lr: 1.0e-2}}
"""
LORA = "learner.lora={rank: 4, alpha: 8}"


def make_run(folder: Path, model: Path, *overrides: str) -> Path:
    """A run after two steps; beside it `published` and, with LoRA, `adapter`, as its learner wrote them."""
    run = folder / "runs" / "tiny"
    run.mkdir(parents=True)
    (folder / "tiny.yaml").write_text(RECIPE.format(folder=folder, model=model))
    recipe = load_recipe(folder / "tiny.yaml", overrides)
    (run / "recipe.yaml").write_text(recipe.to_yaml())
    cluster = Cluster(ClusterSpec(), local=True)
    learner = Learner.start(PolicySettings.of(recipe, model, ()), cluster, total_steps=3, max_new_tokens=8)
    try:
        for seed in range(2):
            learner.step(learner.batch(make_groups(seed)))
        store = CheckpointStore(run / "checkpoints", 1)
        with store.writing(2, written=learner.saved) as draft:
            write_state(draft, {"step": 2, **learner.save(draft / "learner", background=True)})
        store.close()
        learner.publish(folder / "published")
        if recipe.learner.lora is not None:
            learner.publish_adapter(folder / "adapter")
    finally:
        learner.close()
    return run


def same(one: Path, other: Path) -> bool:
    ours, theirs = load_file(one), load_file(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(
    "overrides", [[], ["learner.zero=3", "model.dtype=bfloat16"], [LORA, "learner.zero=2"]], ids=str
)
def test_an_export_is_what_was_published(tiny_model: Path, tmp_path: Path, overrides: list[str]) -> None:
    run = make_run(tmp_path, tiny_model, *overrides)
    out = tmp_path / "out"
    export(run, out)
    assert same(out / "model.safetensors", tmp_path / "published" / "model.safetensors")
    assert not same(out / "model.safetensors", tiny_model / "model.safetensors")
    with safe_open(out / "model.safetensors", framework="pt") as file:
        assert file.metadata()["policy_version"] == "2"
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoModelForCausalLM.from_pretrained(out)
    AutoTokenizer.from_pretrained(out)


def test_an_adapter_is_exported_alone(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "lora", tiny_model, LORA)
    out = tmp_path / "out"
    assert main(["export", str(run), "--out", str(out), "--adapter"]) == 0
    assert same(out / "adapter_model.safetensors", tmp_path / "lora" / "adapter" / "adapter_model.safetensors")
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    merged = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), out).merge_and_unload()
    published = load_file(tmp_path / "lora" / "published" / "model.safetensors")
    for name, value in published.items():
        torch.testing.assert_close(merged.state_dict()[name], value, atol=1e-6, rtol=0)


def test_without_an_adapter_there_is_none_to_export(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path, tiny_model)
    assert main(["export", str(run), "--out", str(tmp_path / "out"), "--adapter"]) == 2
    assert "leave --adapter out" in capsys.readouterr().err
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    assert main(["export", str(run), "--out", str(tmp_path / "out")]) == 2
    assert "not empty" in capsys.readouterr().err
