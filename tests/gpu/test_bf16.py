"""A learner on a GPU in bfloat16, with the kernels that `auto` chooses there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from learner_groups import make_groups
from safetensors.torch import load_file

from morl.cluster import Cluster
from morl.learner.learner import Learner
from morl.learner.master_weights import held_by
from morl.learner.policy import PolicySettings
from morl.recipe.schema.algorithm_section import AlgorithmSpec
from morl.recipe.schema.learner_section import LearnerSpec
from morl.recipe.schema.machine_sections import ClusterSpec

NAME = "model.layers.0.mlp.up_proj.weight"


def start(model: Path, dtype: str, lr: float, **learner: object) -> Learner:
    settings = PolicySettings(
        model=model,
        dtype=dtype,
        learner=LearnerSpec(lr=lr, eps=1e-12, **learner),
        algorithm=AlgorithmSpec(),
        temperature=1.0,
        banned_token_ids=(),
        seed=0,
    )
    return Learner.start(settings, Cluster(ClusterSpec(), local=True), total_steps=50, max_new_tokens=8)


@pytest.mark.parametrize("zero", [0, 2, 3])
def test_updates_below_the_resolution_of_16_bits_add_up(tiny_model: Path, tmp_path: Path, zero: int) -> None:
    learner = start(tiny_model, "bfloat16", lr=2e-5, zero=zero)
    try:
        before = load_file(tiny_model / "model.safetensors")[NAME].bfloat16()
        batch = learner.batch(make_groups(0))
        for _ in range(50):
            learner.step(batch)
        learner.publish(tmp_path / "w")
        assert all(piece.master.dtype == torch.float32 for piece in held_by(learner._ranks._rank.engine))
    finally:
        learner.close()
    after = load_file(tmp_path / "w" / "model.safetensors")[NAME]
    assert (after != before)[before.abs() > 0.0625].float().mean() > 0.5


@pytest.mark.parametrize("choice", [{"attention": "flex"}, {"activation_checkpointing": True}], ids=str)
def test_the_choice_of_kernels_does_not_change_the_update(tiny_model: Path, choice: dict[str, object]) -> None:
    norms = []
    for how in ({"attention": "sdpa"}, choice):
        learner = start(tiny_model, "float32", lr=1e-3, liger="off", **how)
        norms.append([learner.step(learner.batch(make_groups(step)))["learner/grad_norm"] for step in range(3)])
        learner.close()
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)


def test_liger_kernels_compute_what_transformers_does(tiny_model: Path) -> None:
    pytest.importorskip("liger_kernel", reason="the extra 'liger' is not installed")
    norms = []
    for liger in ("off", "on"):
        learner = start(tiny_model, "float32", lr=1e-3, liger=liger)
        norms.append([learner.step(learner.batch(make_groups(step)))["learner/grad_norm"] for step in range(3)])
        learner.close()
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)
