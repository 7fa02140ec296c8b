"""The optimiser in the host's memory, the model on the GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from learner_groups import make_groups
from safetensors.torch import load_file

from morl.learner.master_weights import held_by

from .test_bf16 import NAME, start


@pytest.mark.parametrize("zero", [1, 2, 3])
def test_it_learns_the_same(tiny_model: Path, tmp_path: Path, zero: int) -> None:
    found = []
    for offload in (False, True):
        learner = start(tiny_model, "bfloat16", lr=1e-3, zero=zero, offload=offload)
        try:
            for step in range(3):
                learner.step(learner.batch(make_groups(step)))
            learner.publish(tmp_path / str(offload))
            masters = {piece.master.device.type for piece in held_by(learner._ranks._rank.engine)}
            assert masters == {"cpu" if offload else "cuda"}
        finally:
            learner.close()
        found.append(load_file(tmp_path / str(offload) / "model.safetensors")[NAME].float())
    torch.testing.assert_close(found[1], found[0], atol=2e-3, rtol=1e-2)
