"""Reward model inference: messages and responses in, scores out, in Ray actors or in this process."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

from morl.model import read_calibration, resolve_model
from morl.types import Encoded, Prompt

Question = tuple[tuple[Mapping[str, Any], ...], tuple[Any, ...]]
"""Messages up to the response, and their images."""
ScoreOrReason = float | str
"""A score, or why there is none."""

START_S = 600.0
"""Timeout for loading a model."""
RESTARTS = 3
"""How often Ray restarts an actor that died; its pending calls are retried."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Which model, and how to run it; equal settings share one server."""

    path: str
    dtype: str = "float32"
    max_tokens: int = 4096
    """Largest number of tokens of a prompt with its response; longer ones get no score."""
    tokens_per_batch: int = 16384
    """Tokens of one forward pass on a GPU. On a CPU every response is alone in its row."""
    replicas: int = 1


class RewardModelServer:
    """Holds the model. On a CPU a score depends only on prompt and response, bit for bit."""

    def __init__(self, settings: ServerSettings) -> None:
        from morl.compat import guard_torchvision

        guard_torchvision()
        import torch

        from morl.learner.attention_kernel import use_shared_prefix
        from morl.learner.reward_rank import RewardModel
        from morl.model import ChatCodec, load_reward_model, resolve_model

        folder = resolve_model(settings.path)
        self._settings = settings
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._codec = ChatCodec.load(folder, settings.max_tokens)
        model = load_reward_model(folder, settings.dtype)
        use_shared_prefix(model)
        self._module = RewardModel(model).to(self._device).eval()

    def ready(self) -> bool:
        """Return once the model is loaded."""
        return True

    def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[ScoreOrReason]:
        """The score of each response to its question, or the reason why there is none."""
        results: list[ScoreOrReason] = [""] * len(responses)
        prompts: dict[Any, Encoded | str] = {}
        rows: dict[Any, tuple[Encoded, dict[tuple[int, ...], list[int]]]] = {}
        for index, (question, response) in enumerate(zip(questions, responses, strict=True)):
            # Responses to one prompt share the same message and image objects: encode them once.
            identity = tuple(map(id, question))
            if identity not in prompts:
                prompts[identity] = self._encode(*question)
            prompt = prompts[identity]
            if isinstance(prompt, str):
                results[index] = prompt
                continue
            response_T = self._codec.encode_answer(response)
            length = len(prompt.token_ids_T) + len(response_T)
            if length > self._settings.max_tokens:
                most = self._settings.max_tokens
                results[index] = f"prompt and response have {length} tokens, more than max_tokens={most}"
                continue
            # Prompts with images may differ although their tokens are equal.
            prompt_key = identity if prompt.features else prompt.token_ids_T
            # On a CPU each response gets its own row; a GPU is faster with shared prompts.
            key = (prompt_key, response_T) if self._device.type == "cpu" else prompt_key
            _, indices = rows.setdefault(key, (prompt, {}))
            indices.setdefault(response_T, []).append(index)
        scores = self._forward([(prompt, list(indices)) for prompt, indices in rows.values()])
        for row, (_, indices) in enumerate(rows.values()):
            for duplicates, score in zip(indices.values(), scores[row], strict=True):
                for index in duplicates:
                    results[index] = score
        return results

    def _encode(self, messages: tuple[Mapping[str, Any], ...], media: tuple[Any, ...]) -> Encoded | str:
        """The prompt, or why there is none."""
        try:
            return self._codec.encode(Prompt("of this response", "reward", messages, media), limit=False)
        except ValueError as error:  # no messages, unreadable images, roles that the template refuses
            return str(error)

    def _forward(self, rows: list[tuple[Encoded, list[tuple[int, ...]]]]) -> dict[int, list[float]]:
        import torch

        from morl.learner.packing import microbatch, plan_microbatches
        from morl.learner.rank import to_device
        from morl.learner.reward_rank import response_batch

        if not rows:
            return {}
        batch = response_batch(rows)
        budget = 1 if self._device.type == "cpu" else self._settings.tokens_per_batch
        (plan,) = plan_microbatches(batch.lengths_B, budget, ranks=1)
        scored: dict[int, list[float]] = {}
        with torch.inference_mode():
            for chosen in plan:
                scores = iter(self._module(to_device(microbatch(batch, chosen), self._device)).tolist())
                scored |= {row: [next(scores) for _ in rows[row][1]] for row in chosen}
        return scored


class Server(Protocol):
    """Access to a reward model, wherever it runs."""

    async def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[ScoreOrReason]:
        """As `RewardModelServer.score`."""

    def close(self) -> None:
        """Stop the server."""


class _RayServer:
    """Replicas as actors; each call goes to the least busy one."""

    def __init__(self, settings: ServerSettings) -> None:
        import ray

        from morl.learner.rank import CPU_ENVIRONMENT

        gpu = ray.cluster_resources().get("GPU", 0) > 0
        environment = {"TOKENIZERS_PARALLELISM": "false"}
        if not gpu:
            threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            environment |= {"OMP_NUM_THREADS": str(threads)} | CPU_ENVIRONMENT
        kind = ray.remote(RewardModelServer).options(
            num_cpus=0.01,
            num_gpus=1 if gpu else 0,
            max_restarts=RESTARTS,
            max_task_retries=RESTARTS,
            runtime_env={"env_vars": environment},
        )
        self._actors = [kind.remote(settings) for _ in range(settings.replicas)]
        self._busy = [0] * settings.replicas
        from morl.cluster import gather

        gather([actor.ready.remote() for actor in self._actors], f"starting reward model '{settings.path}'", START_S)

    async def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[ScoreOrReason]:
        replica = self._busy.index(min(self._busy))
        self._busy[replica] += 1
        try:
            results: list[ScoreOrReason] = await self._actors[replica].score.remote(list(questions), list(responses))
            return results
        finally:
            self._busy[replica] -= 1

    def close(self) -> None:
        import ray

        if ray.is_initialized():
            for actor in self._actors:
                ray.kill(actor)


class _LocalServer:
    """The model in this process, one call at a time, in a thread next to the event loop."""

    def __init__(self, settings: ServerSettings) -> None:
        self._server = RewardModelServer(settings)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="morl-reward-model")

    async def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[ScoreOrReason]:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._server.score, list(questions), list(responses))

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)


_open: dict[ServerSettings, tuple[Server, int]] = {}
"""This process's servers, with their numbers of users."""
_lock = threading.Lock()


def open_server(settings: ServerSettings) -> Server:
    """The server of these settings, started on first use. Blocks while the model loads.

    Raises: UsageError when there is no such model; RunError when it does not start.
    """
    import sys

    with _lock:  # a run's terms may start concurrently
        server, users = _open.get(settings, (None, 0))
        if server is None:
            ray_runs = "ray" in sys.modules and sys.modules["ray"].is_initialized()
            server = _RayServer(settings) if ray_runs else _LocalServer(settings)
        _open[settings] = (server, users + 1)
    return server


def close_server(settings: ServerSettings) -> None:
    """Drop one use of the server; the last one stops it."""
    with _lock:
        server, users = _open.pop(settings)
        if users > 1:
            _open[settings] = (server, users - 1)
        else:
            server.close()


class BradleyTerryModel:
    """The reward model behind the reward `reward_model`; equal settings share one server."""

    def __init__(self, path: str, *, dtype: str, max_tokens: int, tokens_per_batch: int, replicas: int) -> None:
        self._settings = ServerSettings(path, dtype, max_tokens, tokens_per_batch, replicas)
        self._server: Server | None = None

    def stored_center(self) -> float | None:
        """The mean score that `morl rm` stored with the model; None for a model that it did not train."""
        center = read_calibration(resolve_model(self._settings.path)).get("center")
        return None if center is None else float(center)

    def start(self) -> None:
        """Load the model. Raises: UsageError when there is none; RunError when it does not start."""
        self._server = open_server(self._settings)

    async def score(self, questions: Sequence[Question], responses: Sequence[str]) -> list[ScoreOrReason]:
        """The score of each response to its question, or the reason why there is none."""
        if self._server is None:
            raise RuntimeError("the reward model is not started")
        return await self._server.score(questions, responses)

    def close(self) -> None:
        """Release the server; its last user stops it."""
        if self._server is not None:
            close_server(self._settings)
            self._server = None


__all__ = ["BradleyTerryModel", "RewardModelServer", "Server", "ServerSettings"]
