"""What every engine does: token ids and a seed in, sampled token ids with their log-probs out."""

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

    The distribution is: logits with banned ids at minus infinity, divided by the
    temperature, softmax. Log-probs are reported under it.
    """

    temperature: float
    """0 is greedy; its log-probs are those of temperature 1."""
    max_new_tokens: int
    top_p: float = 1.0
    """Draw from the likeliest tokens that together reach this mass. Below 1 for evaluation only:
    some engines then report log-probs within those tokens, others within all."""
    stop_token_ids: tuple[int, ...] = ()
    """A completion ends with the first of these; the token is part of it."""
    banned_token_ids: tuple[int, ...] = ()
    """Never drawn: placeholders of images and videos."""

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature must be at least 0, not {self.temperature}")
        if self.max_new_tokens < 1:
            raise ValueError(f"max_new_tokens must be at least 1, not {self.max_new_tokens}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], not {self.top_p}")

    @property
    def scale(self) -> float:
        """What the logits are divided by."""
        return self.temperature if self.temperature > 0 else 1.0


@dataclass(frozen=True, slots=True)
class Request:
    """`samples` completions of one prompt; sample i draws from the stream of `seed + i`."""

    id: str
    """Unique among the requests in flight."""
    prompt: Encoded
    """As the learner has it, with `features` for engines that run the model on them, or with `pixels` for engines
    with a processor of their own."""
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
            raise ValueError(f"request {self.id!r}: a seed lies in [0, 2**62), not {self.seed}")


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled answer."""

    request_id: str
    index: int
    """Which of the request's samples: 0 <= index < samples."""
    token_ids_T: tuple[int, ...]
    logprobs_T: tuple[float, ...]
    finish_reason: FinishReason
    policy_version: int
    """Of the weights that wrote it, as the engine read it from them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineInfo:
    """What a class of engines can do besides the protocol; it declares it in its attribute `info`."""

    takes_pixels: bool = False
    """Has a processor of its own: is sent the `pixels` of a prompt, and not its `features`."""
    takes_media_limits: bool = False
    """Is started with the options `images_per_prompt`, `videos_per_prompt`, `image_pixels` and `video_pixels`: the
    most that a prompt has, and the largest image and frame."""
    takes_adapters: bool = False
    """Loads a LoRA adapter alone, too, where it was started with the option `max_lora_rank`."""
    receives_weights: bool = False
    """Has the method `receive_weights(stage, argument)` of `VLLMEngine`, by which a learner sends weights from GPU to
    GPU, where it was started with the option `weight_transfer="nccl"`."""


class Engine(Protocol):
    """Serves one version of the policy at a time.

    A class that can do more says so in its attribute `info`, an `EngineInfo`; without it, it is sent features and
    loads whole models from files.
    """

    def generate(self, requests: Sequence[Request]) -> AsyncGenerator[Completion, None]:
        """Every completion of every request, in the order in which they land.

        Closing the generator early aborts what is still in flight.
        Raises: UsageError when a request cannot fit the model's context.
        """

    async def abort(self, request_ids: Sequence[str]) -> None:
        """End these requests: their completions land as they are, finish reason "abort"."""

    async def load_weights(self, folder: str) -> int:
        """Serve the checkpoint in `folder` and return its version.

        Raises: CheckpointError when a parameter or the version is missing.
        """

    async def clear_caches(self) -> None:
        """Forget everything computed with earlier weights."""

    async def policy_version(self) -> int:
        """The version being served."""

    async def close(self) -> None:
        """Free memory and processes. The engine is of no use afterwards."""


def engine_info(name: str) -> EngineInfo:
    """What engines of this registered name can do. Raises: UsageError when their `info` is no `EngineInfo`."""
    info = getattr(ENGINES.load(name), "info", EngineInfo())
    if not isinstance(info, EngineInfo):
        raise UsageError(f"engine '{name}' from {ENGINES.entry(name).origin}: its `info` should be an EngineInfo")
    return info


def check_fits(request: Request, context: int) -> None:
    """Refuse a request that the model's context of `context` tokens cannot hold.

    Raises: UsageError. Engines would otherwise cut the answer short without a word.
    """
    prompt, new = len(request.prompt.token_ids_T), request.sampling.max_new_tokens
    if prompt + new > context:
        raise UsageError(
            f"request {request.id!r}: {prompt} prompt tokens and {new} new tokens exceed the {context} that the engine "
            "holds; lower rollout.max_new_tokens or rollout.max_prompt_tokens"
        )


def choose_engine(name: str) -> tuple[str, str]:
    """The engine's registered name and why it was chosen; "auto" picks by what this machine has.

    Raises: UsageError when no engine is called so.
    """
    if name != "auto":
        return ENGINES.entry(name).name, "named in the recipe"
    if importlib.util.find_spec("vllm") is None:
        return "hf", "the package 'vllm' is not installed"
    if not _vllm_needs_gpu():
        return "vllm", "vLLM's CPU build is installed"
    if _gpus() > 0:
        return "vllm", "vLLM and a GPU are there"
    return "hf", "vLLM is installed, but it is the GPU build and there is no GPU"


def _vllm_needs_gpu() -> bool:
    """Whether the installed vLLM is the build for GPUs; the CPU build is a distribution of its own."""
    try:
        return "cpu" not in importlib.metadata.version("vllm")
    except importlib.metadata.PackageNotFoundError:
        return False


def _gpus() -> float:
    """GPUs of the Ray cluster if one is joined, else of this machine."""
    import ray

    if ray.is_initialized():
        return float(ray.cluster_resources().get("GPU", 0))
    import torch

    return torch.cuda.device_count()
