"""Weights in 16 bits learn as those in 32 do: the optimiser keeps float32 copies, wherever they lie."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from learner_groups import WEIGHT, make_groups, start_learner
from safetensors.torch import load_file

from morl.learner.learner import Learner
from morl.learner.master_weights import held_by


def published(learner: Learner, folder: Path) -> torch.Tensor:
    learner.publish(folder)
    return load_file(folder / "model.safetensors")[WEIGHT]


@pytest.mark.parametrize("zero", [0, 2, 3])
def test_updates_below_the_resolution_of_16_bits_add_up(tiny_model: Path, tmp_path: Path, zero: int) -> None:
    learner = start_learner(tiny_model, zero=zero)
    try:
        before = published(learner, tmp_path / "0")
        assert before.dtype == torch.bfloat16
        batch = learner.batch(make_groups(0))
        learner.step(batch)
        # A step of 2e-5 is less than a tenth of the distance to the next number of 16 bits.
        large = before.abs() > 0.0625
        assert torch.equal(published(learner, tmp_path / "1")[large], before[large])
        for _ in range(49):
            learner.step(batch)
        after = published(learner, tmp_path / "50")
        assert (after != before)[large].float().mean() > 0.5
        pieces = [piece for piece in held_by(learner._ranks._rank.engine) if piece.name.endswith(WEIGHT)]
        master = torch.cat([piece.of(piece.master) for piece in pieces]).view_as(after)
        assert master.dtype == torch.float32
        assert torch.equal(master.to(torch.bfloat16), after)
        assert not torch.equal(master, after.float())
    finally:
        learner.close()


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_an_optimiser_in_host_memory_learns_the_same(tiny_model: Path, tmp_path: Path, zero: int) -> None:
    found = []
    for offload in (False, True):
        learner = start_learner(tiny_model, "float32", lr=1e-3, zero=zero, offload=offload)
        try:
            for step in range(2):
                learner.step(learner.batch(make_groups(step)))
            found.append(published(learner, tmp_path / str(offload)))
        finally:
            learner.close()
    torch.testing.assert_close(found[1], found[0], atol=1e-7, rtol=1e-6)
    assert (found[0] - load_file(tiny_model / "model.safetensors")[WEIGHT]).abs().max() > 1e-4


@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_the_gradient_of_many_microbatches_is_that_of_one(tiny_model: Path, zero: int) -> None:
    found = []
    for budget in (1, 10**6):
        # With betas of 0 Adam's first moment is the gradient.
        options = {"betas": (0.0, 0.0), "max_grad_norm": 1e9, "share_prefix": False, "tokens_per_microbatch": budget}
        learner = start_learner(tiny_model, lr=0.0, zero=zero, **options)
        try:
            learner.step(learner.batch([group for seed in range(40) for group in make_groups(seed % 3)]))
            engine = learner._ranks._rank.engine
            found.append(torch.cat([p.of(engine.optimizer.state[p.master]["exp_avg"]) for p in held_by(engine)]))
        finally:
            learner.close()
    assert (found[0] - found[1]).norm() < 0.025 * found[1].norm()
