"""The optimiser in host memory, the model on the GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from learner_groups import WEIGHT, make_groups, start_learner
from safetensors.torch import load_file

from morl.learner.master_weights import held_by


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_it_learns_the_same(tiny_model: Path, tmp_path: Path, zero: int) -> None:
    updated = []
    for offload in (False, True):
        learner = start_learner(tiny_model, "bfloat16", lr=1e-3, zero=zero, offload=offload)
        try:
            for step in range(3):
                learner.step(learner.batch(make_groups(step)))
            learner.publish(tmp_path / str(offload))
            masters = {piece.master.device.type for piece in held_by(learner._ranks._rank.engine)}
            assert masters == {"cpu" if offload else "cuda"}
        finally:
            learner.close()
        updated.append(load_file(tmp_path / str(offload) / "model.safetensors")[WEIGHT].float())
    torch.testing.assert_close(updated[1], updated[0], atol=2e-3, rtol=1e-2)
