"""The engine protocol: token ids and a seed in, sampled token ids and their log-probs out."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from morl.errors import UsageError
from morl.registry import ENGINES
from morl.types import Encoded, FinishReason


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn.

    The distribution is the softmax of the logits, with banned ids at minus infinity, divided by the
    temperature. Log-probs are reported under it.
    """

    temperature: float
    """0 is greedy, with the log-probs of temperature 1."""
    max_new_tokens: int
    top_p: float = 1.0
    """Draw from the likeliest tokens that together reach this probability. Below 1 for evaluation only:
    some engines then normalise log-probs over those tokens, others over all."""
    stop_token_ids: tuple[int, ...] = ()
    """A completion ends with the first of these and includes it."""
    banned_token_ids: tuple[int, ...] = ()
    """Never drawn: image and video placeholders."""

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature must be at least 0, not {self.temperature}")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], not {self.top_p}")

    @property
    def scale(self) -> float:
        """The divisor of the logits."""
        return self.temperature if self.temperature > 0 else 1.0


@dataclass(frozen=True, slots=True)
class Request:
    """`samples` completions of one prompt; sample i draws from the stream of `seed + i`."""

    id: str
    """Unique among the requests in flight."""
    prompt: Encoded
    """The same as the learner's, with `features` for engines that pass them to the model, or `pixels` for engines
    that run their own processor."""
    samples: int
    seed: int
    """Seeds of requests with the same prompt should be at least `samples` apart."""
    sampling: Sampling

    def __post_init__(self) -> None:
        if not self.prompt.token_ids_T:
            raise ValueError(f"request {self.id!r} has an empty prompt")
        if self.samples < 1:
            raise ValueError(f"request {self.id!r} asks for {self.samples} samples")
        if not 0 <= self.seed < 2**62:
            raise ValueError(f"request {self.id!r}: the seed must lie in [0, 2**62), not {self.seed}")


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled response."""

    request_id: str
    index: int
    """Of the sample within the request: 0 <= index < samples."""
    token_ids_T: tuple[int, ...]
    logprobs_T: tuple[float, ...]
    finish_reason: FinishReason
    policy_version: int
    """Of the weights that wrote it, as read from them by the engine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """Optional capabilities of an engine class, declared in its attribute `info`."""

    takes_pixels: bool = False
    """It runs its own processor, so it is sent the `pixels` of a prompt instead of its `features`."""
    takes_media_limits: bool = False
    """It takes the options `images_per_prompt`, `videos_per_prompt`, `image_pixels` and `video_pixels`: the
    largest number in a prompt, and the largest image and frame."""
    takes_adapters: bool = False
    """It also loads a bare LoRA adapter, if started with the option `max_lora_rank`."""
    receives_weights: bool = False
    """It has `VLLMEngine`'s method `receive_weights(stage, argument)`, through which a learner sends weights from GPU
    to GPU, if started with the option `weight_transfer="nccl"`."""


class Engine(Protocol):
    """Serves one version of the policy at a time.

    A class with further capabilities declares them in its attribute `info`, an `EngineInfo`. A class without it is
    sent features and loads whole models from files.
    """

    def generate(self, requests: Sequence[Request]) -> AsyncGenerator[Completion, None]:
        """Every completion of every request, in the order in which they finish.

        Closing the generator early aborts what is still in flight.
        Raises: UsageError when a request does not fit the model's context.
        """

    async def abort(self, request_ids: Sequence[str]) -> None:
        """End these requests: `generate` yields their completions unfinished, with finish reason "abort"."""

    async def load_weights(self, folder: str) -> int:
        """Serve the checkpoint in `folder` and return its version.

        Raises: CheckpointError when a parameter or the version is missing.
        """

    async def clear_caches(self) -> None:
        """Drop everything computed with earlier weights."""

    async def policy_version(self) -> int:
        """The version being served."""

    async def close(self) -> None:
        """Free memory and processes. The engine is unusable afterwards."""


def engine_info(name: str) -> EngineInfo:
    """The capabilities of a registered engine. Raises: UsageError when its `info` is not an `EngineInfo`."""
    engine = ENGINES.load(name)
    info = getattr(engine, "info", EngineInfo())
    if info == EngineInfo() and hasattr(engine, "takes_pixels"):
        raise UsageError(
            f"engine '{name}' from {ENGINES.entry(name).origin}: `takes_pixels` is a field of its `info` now: "
            "info = EngineInfo(takes_pixels=True)"
        )
    if not isinstance(info, EngineInfo):
        raise UsageError(f"engine '{name}' from {ENGINES.entry(name).origin}: its `info` must be an EngineInfo")
    return info


def check_fits(request: Request, context: int) -> None:
    """Refuse a request that does not fit a context of `context` tokens.

    Raises: UsageError. Engines would otherwise truncate the response silently.
    """
    prompt, new = len(request.prompt.token_ids_T), request.sampling.max_new_tokens
    if prompt + new > context:
        raise UsageError(
            f"request {request.id!r}: {prompt} prompt tokens and {new} new tokens exceed the engine's context of "
            f"{context}; lower rollout.max_new_tokens or rollout.max_prompt_tokens"
        )


def choose_engine(name: str) -> tuple[str, str]:
    """The engine's registered name and why it was chosen; "auto" depends on what is installed and on GPUs.

    Raises: UsageError when no engine has that name.
    """
    if name != "auto":
        return ENGINES.entry(name).name, "named in the recipe"
    if importlib.util.find_spec("vllm") is None:
        return "hf", "the package 'vllm' is not installed"
    if not _vllm_needs_gpu():
        return "vllm", "vLLM's CPU build is installed"
    if _gpus() > 0:
        return "vllm", "vLLM and a GPU are available"
    return "hf", "vLLM is installed, but it is the GPU build and there is no GPU"


def _vllm_needs_gpu() -> bool:
    """Whether the installed vLLM is the GPU build; the CPU build has "cpu" in its version."""
    try:
        return "cpu" not in importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return False


def _gpus() -> float:
    """GPUs of the Ray cluster if connected to one, else of this machine."""
    import ray

    if ray.is_initialized():
        return float(ray.cluster_resources().get("GPU", 0))
    import torch

    return torch.cuda.device_count()
