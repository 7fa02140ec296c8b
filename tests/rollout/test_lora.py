"""LoRA adapters served by vLLM without merging."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from morl.errors import CheckpointError, UsageError
from morl.learner.merged_weights import adapter_weights, write_adapter
from morl.rollout.engines.vllm_engine import VLLMEngine

from .conftest import answers, ask, publish, reference, worst_logprob_error

pytestmark = pytest.mark.parametrize("engine", ["vllm"], indirect=True)


def adapted(model: Path, seed: int, **config: object):
    """The model with a random adapter on every linear layer."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    config = {"r": 4, "lora_alpha": 6.0, "target_modules": "all-linear", **config}
    peft_model = get_peft_model(AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32), LoraConfig(**config))
    draw = torch.Generator().manual_seed(seed)
    for name, parameter in peft_model.named_parameters():
        if ".lora_" in name:
            parameter.data.normal_(0.0, 0.1, generator=draw)
    return peft_model.eval()


def publish_adapter(peft_model, folder: Path, version: int) -> str:
    write_adapter(peft_model, adapter_weights(peft_model, sharded=False, keep=True), folder, version)
    return str(folder)


def merged(peft_model, folder: Path) -> Path:
    """A checkpoint folder of the merged model."""
    peft_model.merge_and_unload().save_pretrained(folder)
    reference.cache_clear()
    return folder


REQUESTS = [ask("a", tuple(range(20, 70))), ask("b", (7, 8, 9), seed=9, temperature=0.7)]


def test_an_adapter_is_served_with_the_log_probs_of_the_merged_model(engine, run, tiny_model, tmp_path: Path):
    base = run(answers(engine, *REQUESTS))
    try:
        # A learner that went back to a checkpoint publishes the same version again with other weights.
        for seed, version in ((1, 3), (2, 4), (3, 4)):
            peft_model = adapted(tiny_model, seed)
            assert run(engine.load_weights(publish_adapter(peft_model, tmp_path / f"a{seed}", version))) == version
            landed = run(answers(engine, *REQUESTS))
            assert {c.policy_version for c in landed.values()} == {version}
            assert worst_logprob_error(merged(peft_model, tmp_path / f"m{seed}"), REQUESTS, landed) < 1e-4
            assert worst_logprob_error(tiny_model, REQUESTS, landed) > 0.1
    finally:
        # A whole model replaces the adapter.
        assert run(engine.load_weights(publish(tiny_model, tmp_path / "v0", 0))) == 0
    after = run(answers(engine, *REQUESTS))
    assert [after[key].token_ids_T for key in base] == [c.token_ids_T for c in base.values()]


def test_an_adapter_of_a_layer_that_vllm_cannot_adapt_is_refused(engine, run, tiny_model, tmp_path: Path):
    peft_model = adapted(tiny_model, 1)
    weights = adapter_weights(peft_model, sharded=False, keep=True)
    # A layer that the model lacks, with a name that vLLM accepts.
    weights |= {
        name.replace("layers.1.", "layers.7."): value.clone() for name, value in weights.items() if "layers.1." in name
    }
    write_adapter(peft_model, weights, tmp_path / "a", 3)
    with pytest.raises(CheckpointError, match=r"layers\.7\..*sync\.lora"):
        run(engine.load_weights(str(tmp_path / "a")))
    assert run(engine.policy_version()) == 0


def test_an_adapter_without_a_version_is_refused(engine, run, tiny_model, tmp_path: Path):
    adapted(tiny_model, 1).save_pretrained(tmp_path / "a")
    with pytest.raises(CheckpointError, match="policy_version"):
        run(engine.load_weights(str(tmp_path / "a")))


def test_a_rank_beyond_vllms_is_refused(engine, tiny_model):
    with pytest.raises(UsageError, match="512 at most, not 600"):
        VLLMEngine(str(tiny_model), dtype="float32", max_lora_rank=600)
