"""LoRA in the learner: adapters alone learn, from where the model stands, and are published whole or merged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from learner_groups import make_groups
from safetensors.torch import load_file

from morl.cluster import Cluster
from morl.learner.learner import Learner
from morl.learner.merged_weights import adapted_layers, adapted_outside
from morl.learner.packing import microbatch
from morl.learner.policy import Policy, PolicySettings
from morl.learner.rank import add_lora
from morl.model.loading import load_policy
from morl.recipe.schema.algorithm_section import AlgorithmSpec
from morl.recipe.schema.learner_section import LearnerSpec, LoraSpec
from morl.recipe.schema.machine_sections import ClusterSpec

LORA = {"rank": 4, "alpha": 8}


def start(model: Path, **learner: object) -> Learner:
    settings = PolicySettings(
        model=model,
        dtype="float32",
        learner=LearnerSpec(lr=1e-2, **learner),
        algorithm=AlgorithmSpec(),
        temperature=1.0,
        banned_token_ids=(),
        seed=0,
    )
    local = settings.learner.ranks == 1
    return Learner.start(settings, Cluster(ClusterSpec(), local=local), total_steps=2, max_new_tokens=8)


def test_a_new_adapter_changes_nothing(tiny_model: Path) -> None:
    learner = start(tiny_model)
    batch = learner.batch(make_groups(0))
    learner.close()
    micro = microbatch(batch, range(batch.rows))
    base = load_policy(tiny_model, "float32").train()
    logprobs = Policy(base, temperature=1.0, banned_token_ids=())(micro)[0]
    adapted = add_lora(load_policy(tiny_model, "float32").train(), LoraSpec(**LORA))
    assert torch.equal(Policy(adapted, temperature=1.0, banned_token_ids=())(micro)[0], logprobs)


def test_only_adapters_are_in_the_optimiser(tiny_model: Path) -> None:
    learner = start(tiny_model, lora=LORA)
    try:
        engine = learner._ranks._rank.engine
        adapters = {name for name, _ in engine.module.named_parameters() if ".lora_" in name}
        held = {id(p) for group in engine.optimizer.param_groups for p in group["params"]}
        base = {name: p.clone() for name, p in engine.module.named_parameters() if name not in adapters}
        assert {name for name, p in engine.module.named_parameters() if id(p) in held} == adapters
        assert len(adapters) == 2 * 14
        learner.step(learner.batch(make_groups(0)))
        now = dict(engine.module.named_parameters())
        assert all(torch.equal(now[name], value) for name, value in base.items())
    finally:
        learner.close()


@pytest.mark.parametrize("layout", [{}, {"ranks": 2, "zero": 3}], ids=str)
def test_the_adapter_on_the_model_is_the_merged_model(
    ray_cluster, tiny_model: Path, tmp_path: Path, layout: dict[str, int]
) -> None:
    from peft import PeftModel

    learner = start(tiny_model, lora=LORA, **layout)
    try:
        for step in range(2):
            learner.step(learner.batch(make_groups(step)))
        learner.publish(tmp_path / "merged")
        learner.publish_adapter(tmp_path / "adapter")
    finally:
        learner.close()
    base = load_policy(tiny_model, "float32")
    untouched = {name: value.clone() for name, value in base.state_dict().items()}
    again = PeftModel.from_pretrained(base, tmp_path / "adapter").merge_and_unload().state_dict()
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    for name, value in merged.items():
        torch.testing.assert_close(again[name], value, atol=1e-6, rtol=0)
    name = "model.layers.1.mlp.down_proj.weight"
    assert (merged[name] - untouched[name]).abs().max() > 1e-3
    sizes = [
        sum(file.stat().st_size for file in (tmp_path / kind).glob("*.safetensors")) for kind in ("adapter", "merged")
    ]
    assert sizes[0] < sizes[1] / 4


def test_frozen_layers_get_no_adapter(vision_model: Path) -> None:
    model = load_policy(vision_model, "float32")
    everywhere = add_lora(load_policy(vision_model, "float32"), LoraSpec(**LORA)).get_base_model()
    assert {name.split(".")[1] for name in adapted_outside(everywhere)} == {"visual"}
    model.model.visual.requires_grad_(False)
    partly = add_lora(model, LoraSpec(**LORA)).get_base_model()
    assert adapted_outside(partly) == []
    assert len(adapted_layers(partly)) == 14
