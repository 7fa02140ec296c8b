"""A learner on a GPU in bfloat16, with the kernels that `auto` chooses there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from learner_groups import WEIGHT, make_groups, start_learner
from safetensors.torch import load_file

from morl.learner.master_weights import held_by


@pytest.mark.parametrize("zero", [0, 2, 3])
def test_updates_below_the_resolution_of_16_bits_add_up(tiny_model: Path, tmp_path: Path, zero: int) -> None:
    learner = start_learner(tiny_model, "bfloat16", lr=2e-5, zero=zero)
    try:
        before = load_file(tiny_model / "model.safetensors")[WEIGHT].bfloat16()
        batch = learner.batch(make_groups(0))
        for _ in range(50):
            learner.step(batch)
        learner.publish(tmp_path / "w")
        assert all(piece.master.dtype == torch.float32 for piece in held_by(learner._ranks._rank.engine))
    finally:
        learner.close()
    after = load_file(tmp_path / "w" / "model.safetensors")[WEIGHT]
    assert (after != before)[before.abs() > 0.0625].float().mean() > 0.5


@pytest.mark.parametrize("choice", [{"attention": "flex"}, {"activation_checkpointing": True}], ids=str)
def test_the_choice_of_kernels_does_not_change_the_update(tiny_model: Path, choice: dict[str, object]) -> None:
    norms = []
    for how in ({"attention": "sdpa"}, choice):
        learner = start_learner(tiny_model, "float32", lr=1e-3, liger="off", **how)
        norms.append([learner.step(learner.batch(make_groups(step)))["learner/grad_norm"] for step in range(3)])
        learner.close()
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)


def test_liger_kernels_compute_what_transformers_does(tiny_model: Path) -> None:
    pytest.importorskip("liger_kernel", reason="the extra 'liger' is not installed")
    norms = []
    for liger in ("off", "on"):
        learner = start_learner(tiny_model, "float32", lr=1e-3, liger=liger)
        norms.append([learner.step(learner.batch(make_groups(step)))["learner/grad_norm"] for step in range(3)])
        learner.close()
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)
