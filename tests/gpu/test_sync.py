"""Weight sync to a vLLM engine on a GPU: merged or as adapters, through files or from GPU to GPU."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch
from learner_groups import make_groups
from tiny import make_tiny_model

from morl.cluster import Cluster
from morl.learner.learner import Learner
from morl.learner.policy import PolicySettings
from morl.model.loading import load_policy
from morl.recipe.schema.algorithm_section import AlgorithmSpec
from morl.recipe.schema.learner_section import LearnerSpec
from morl.recipe.schema.machine_sections import ClusterSpec
from morl.rollout.engine import Request, Sampling
from morl.rollout.engine_pool import EnginePool
from morl.sync.disk_sync import DiskSync
from morl.sync.nccl_sync import NcclSync
from morl.types import Encoded

REQUESTS = [
    Request(
        f"r{i}", Encoded(tuple(range(20 + i, 60 + 3 * i))), 4, 100 * i, Sampling(temperature=1.0, max_new_tokens=32)
    )
    for i in range(4)
]


async def mismatch(pool: EnginePool, model: Path) -> float:
    """The largest difference between the engine's log-probs and those of the checkpoint in `model`."""
    reference, worst = load_policy(model, "float32").eval(), 0.0
    async for completion in pool.generate(REQUESTS):
        prompt = REQUESTS[int(completion.request_id[1:])].prompt.token_ids_T
        with torch.no_grad():
            logits = reference(input_ids=torch.tensor([prompt + completion.token_ids_T])).logits[
                0, len(prompt) - 1 : -1
            ]
        wanted = logits.log_softmax(-1).gather(1, torch.tensor(completion.token_ids_T)[:, None])[:, 0]
        worst = max(worst, float((wanted - torch.tensor(completion.logprobs_T)).abs().max()))
    return worst


async def follow(model: Path, folder: Path, sync: Any, learner: Learner, options: dict[str, Any]) -> None:
    pool = await EnginePool.start(
        "vllm", str(model), dtype="float32", options={"max_model_len": 512, **options}, num_gpus=1
    )
    try:
        for step in range(3):
            learner.step(learner.batch(make_groups(step)))
            await sync.publish(learner, pool)
            assert await pool.policy_version() == step + 1
            learner.publish(folder / f"{step}")
            # Kernels differ: float32 on a GPU against the CPU.
            assert await mismatch(pool, folder / f"{step}") < 1e-2
        assert await mismatch(pool, model) > 0.1
    finally:
        await pool.close()
        sync.close()


@pytest.mark.parametrize("kind", ["disk", "adapter", "nccl"])
def test_the_engine_follows_the_learner(ray_cluster, tmp_path: Path, kind: str) -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("learner and engine need a GPU each, and there is one")
    model = make_tiny_model(tmp_path / "model", seed=0)
    settings = PolicySettings(
        model=model,
        dtype="float32",
        learner=LearnerSpec(lr=1e-2, zero=3, lora={"rank": 8, "alpha": 16} if kind == "adapter" else None),
        algorithm=AlgorithmSpec(),
        temperature=1.0,
        banned_token_ids=(),
        seed=0,
    )
    learner = Learner.start(settings, Cluster(ClusterSpec(), local=False), total_steps=3, max_new_tokens=8)
    sync: Any = NcclSync(tmp_path / "sync", workers=1)
    if kind != "nccl":
        sync = DiskSync(tmp_path / "sync", adapter=kind == "adapter")
    options = {"disk": {}, "adapter": {"max_lora_rank": 8}, "nccl": {"weight_transfer": "nccl"}}[kind]
    try:
        asyncio.run(follow(model, tmp_path, sync, learner, options))
    finally:
        learner.close()
