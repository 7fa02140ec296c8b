"""What travels from GPU to GPU: the tensors of the published checkpoint, announced before they are gathered."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from learner_groups import make_groups
from safetensors.torch import load_file

from morl.cluster import Cluster
from morl.learner.learner import Learner
from morl.learner.merged_weights import CheckpointSource
from morl.learner.policy import PolicySettings
from morl.recipe.schema.algorithm_section import AlgorithmSpec
from morl.recipe.schema.learner_section import LearnerSpec
from morl.recipe.schema.machine_sections import ClusterSpec


@pytest.mark.parametrize(
    ("kind", "learner"),
    [("text", {}), ("text", {"zero": 3, "lora": {"rank": 4, "alpha": 8}}), ("images", {})],
    ids=["text", "text-lora-zero3", "images"],
)
def test_the_stream_is_the_checkpoint(tiny_model: Path, vision_model: Path, tmp_path: Path, kind, learner) -> None:
    settings = PolicySettings(
        model=tiny_model if kind == "text" else vision_model,
        dtype="bfloat16",
        learner=LearnerSpec(lr=1e-2, **learner),
        algorithm=AlgorithmSpec(),
        temperature=1.0,
        banned_token_ids=(),
        seed=0,
    )
    made = Learner.start(settings, Cluster(ClusterSpec(), local=True), total_steps=1, max_new_tokens=8)
    try:
        made.step(made.batch(make_groups(0)))
        model = made._ranks._rank.engine.module.language_model
        if settings.learner.zero == 3:
            # Small parameters stay whole by default; here they are spread, as large ones are.
            for parameter in model.parameters():
                parameter.partition()
            assert {parameter.numel() for parameter in model.parameters()} == {0}
        source = CheckpointSource(model, sharded=settings.learner.zero == 3)
        announced = source.metadata()
        sent = list(source)
        made.publish(tmp_path / "w")
    finally:
        made.close()
    assert [(info.name, info.dtype, info.shape) for info in announced] == [
        (name, tensor.dtype, tuple(tensor.shape)) for name, tensor in sent
    ]
    published = load_file(tmp_path / "w" / "model.safetensors")
    assert dict(sent).keys() == published.keys()
    assert all(torch.equal(tensor, published[name]) for name, tensor in sent)
    size = sum(info.dtype.itemsize * torch.Size(info.shape).numel() for info in announced)
    assert size == sum(tensor.nbytes for tensor in published.values())
