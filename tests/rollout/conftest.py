"""One engine of each kind for the whole session, and the reference for their answers."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from morl.compat import guard_torchvision
from morl.rollout.engine import Completion, Request, Sampling
from morl.rollout.engine_pool import EnginePool
from morl.types import Encoded

OPTIONS: dict[str, dict[str, Any]] = {
    "hf": {"max_sequences": 16},
    "vllm": {"max_model_len": 512, "kv_cache_gb": 0.25, "max_lora_rank": 4},
}


@pytest.fixture(scope="session")
def run():
    """Runs a coroutine on one event loop for the session, because engines are bound to the loop they started on."""
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture(scope="session", params=["hf", "vllm"])
def engine(request: pytest.FixtureRequest, tiny_model: Path, run: Callable[[Awaitable[Any]], Any]):
    """The transformers engine in this process; the vLLM engine in a Ray actor."""
    name: str = request.param
    if name == "vllm":
        request.getfixturevalue("ray_cluster")
    start = EnginePool.start(name, str(tiny_model), dtype="float32", options=OPTIONS[name], local=name == "hf")
    pool = run(start)
    yield pool
    run(pool.close())


@pytest.fixture(scope="session")
def hf(tiny_model: Path, run: Callable[[Awaitable[Any]], Any]):
    pool = run(EnginePool.start("hf", str(tiny_model), dtype="float32", options=OPTIONS["hf"], local=True))
    yield pool
    run(pool.close())


async def answers(engine: Any, *requests: Request) -> dict[tuple[str, int], Completion]:
    """Every completion by request and index; fails if one is missing or repeated."""
    landed: dict[tuple[str, int], Completion] = {}
    async for completion in engine.generate(requests):
        key = (completion.request_id, completion.index)
        assert key not in landed
        landed[key] = completion
    assert set(landed) == {(r.id, i) for r in requests for i in range(r.samples)}
    return landed


@functools.cache
def reference(model: Path) -> Any:
    guard_torchvision()
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()


@torch.no_grad()
def teacher_forced(model: Path, request: Request, token_ids: tuple[int, ...]) -> torch.Tensor:
    """(T, V) log-probs of the checkpoint in `model` at each position of the answer."""
    prompt = request.prompt.token_ids_T
    logits = reference(model)(torch.tensor([prompt + token_ids])).logits[0, len(prompt) - 1 : -1]
    logits[:, list(request.sampling.banned_token_ids)] = -torch.inf
    return torch.log_softmax(logits / request.sampling.scale, dim=-1)


def worst_logprob_error(model: Path, requests: list[Request], landed: dict[tuple[str, int], Completion]) -> float:
    worst = 0.0
    for request in requests:
        for index in range(request.samples):
            answer = landed[request.id, index]
            wanted = teacher_forced(model, request, answer.token_ids_T)
            wanted = wanted.gather(1, torch.tensor(answer.token_ids_T)[:, None])[:, 0]
            worst = max(worst, (wanted - torch.tensor(answer.logprobs_T)).abs().max().item())
    return worst


def publish(model: Path, folder: Path, version: int, without: str = "") -> str:
    """The checkpoint's weights as a learner publishes them; `without` names a parameter to leave out."""
    folder.mkdir(parents=True)
    tensors = {name: tensor for name, tensor in load_file(model / "model.safetensors").items() if name != without}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt", "policy_version": str(version)})
    return str(folder)


def ask(name: str, prompt: tuple[int, ...], samples: int = 4, seed: int = 0, new: int = 24, **sampling: Any) -> Request:
    options = Sampling(**{"temperature": 1.0, "max_new_tokens": new, **sampling})
    return Request(name, Encoded(prompt), samples, seed, options)
