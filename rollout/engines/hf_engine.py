"""The embedded engine: a transformers model in this process, on a GPU or the CPU.

The same list of requests reproduces the same bits: each sample has a separate random
stream, and batching depends on the requests alone, never on timing.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from morl.errors import CheckpointError
from morl.image_features import concatenate_features
from morl.rollout.engine import Completion, Request, Sampling, check_fits
from morl.rollout.engines.published_weights import read_policy_version, weight_files
from morl.types import Features, FinishReason

if TYPE_CHECKING:
    import torch


@dataclass(slots=True)
class _Row:
    """One completion being written."""

    request: Request
    index: int
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: FinishReason | None = None


class HFEngine:
    """Transformers behind the engine protocol.

    All work runs on one thread, in the order of the calls: weights never change during
    a generation, and the caller's event loop stays free.
    """

    def __init__(self, model: str, *, dtype: str, version: int = 0, max_sequences: int = 64) -> None:
        """Load the checkpoint folder `model`; at most `max_sequences` completions are written at a time."""
        from morl.compat import guard_torchvision

        guard_torchvision()
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

        from morl.rollout.engines.hf_attention import use_decode_attention
        from morl.rollout.engines.hf_layout import store_by_columns

        self._version = version
        self._max_sequences = max_sequences
        device = "cuda" if torch.cuda.is_available() else "cpu"
        multimodal = getattr(AutoConfig.from_pretrained(model), "vision_config", None) is not None
        auto_class = AutoModelForImageTextToText if multimodal else AutoModelForCausalLM
        self._model: Any = auto_class.from_pretrained(model, dtype=getattr(torch, dtype)).to(device).eval()
        use_decode_attention(self._model)
        if (device, dtype) == ("cpu", "float32"):
            store_by_columns(self._model)
        self._context = int(self._model.config.get_text_config().max_position_embeddings)
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="hf-engine")
        self._in_flight: set[str] = set()
        self._aborted: set[str] = set()

    async def generate(self, requests: Sequence[Request]) -> AsyncGenerator[Completion, None]:
        """See `Engine.generate`."""
        for request in requests:
            check_fits(request, self._context)
        ids = {request.id for request in requests}
        self._in_flight |= ids
        loop = asyncio.get_running_loop()
        landed: asyncio.Queue[Completion | None] = asyncio.Queue()

        def land(row: _Row) -> None:
            loop.call_soon_threadsafe(landed.put_nowait, self._completion(row))

        work = loop.run_in_executor(self._worker, self._generate, requests, land)
        work.add_done_callback(lambda _: landed.put_nowait(None))
        try:
            while (completion := await landed.get()) is not None:
                yield completion
            await work
        finally:
            self._aborted |= ids
            await asyncio.wait([work])
            self._aborted -= ids
            self._in_flight -= ids

    async def abort(self, request_ids: Sequence[str]) -> None:
        """See `Engine.abort`."""
        self._aborted |= self._in_flight.intersection(request_ids)

    async def load_weights(self, folder: str) -> int:
        """See `Engine.load_weights`."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, self._load, folder)

    async def clear_caches(self) -> None:
        """Does nothing: no cache survives a call to `generate`."""

    async def policy_version(self) -> int:
        """See `Engine.policy_version`."""
        return self._version

    async def close(self) -> None:
        """See `Engine.close`."""
        self._aborted |= self._in_flight
        await asyncio.to_thread(self._worker.shutdown)
        self._model = None

    def _completion(self, row: _Row) -> Completion:
        return Completion(
            request_id=row.request.id,
            index=row.index,
            token_ids_T=tuple(row.token_ids),
            logprobs_T=tuple(row.logprobs),
            finish_reason=row.finish or "abort",
            policy_version=self._version,
        )

    def _load(self, folder: str) -> int:
        from safetensors import safe_open

        version = read_policy_version(folder)
        targets = self._parameters()
        # By identity: one name of tied parameters is enough.
        missing = {id(target): name for name, target in targets.items()}
        for path in weight_files(folder):
            with safe_open(path, framework="pt") as tensors:
                for name in tensors.keys():  # noqa: SIM118 - not a dict
                    tensor = tensors.get_tensor(name)
                    if name not in targets or targets[name].shape != tensor.shape:
                        raise CheckpointError(
                            f"{path}: the model has no parameter {name} of shape {tuple(tensor.shape)}"
                        )
                    targets[name].data.copy_(tensor)
                    missing.pop(id(targets[name]), None)
        if missing:
            raise CheckpointError(f"{folder} lacks {len(missing)} parameters, among them {min(missing.values())}")
        self._version = version
        return version

    def _parameters(self) -> dict[str, torch.Tensor]:
        """The model's tensors by their names in a checkpoint, which may differ from those of its modules."""
        from transformers.core_model_loading import revert_weight_conversion

        state: dict[str, torch.Tensor] = self._model.state_dict(keep_vars=True)
        ids = {id(tensor) for tensor in state.values()}
        # Tensors that a checkpoint splits or fuses differently cannot be copied into the model.
        return {n: tensor for n, tensor in revert_weight_conversion(self._model, state).items() if id(tensor) in ids}

    def _generate(self, requests: Sequence[Request], land: Callable[[_Row], None]) -> None:
        for rows in batches(requests, self._max_sequences):
            for row in rows:
                if row.request.id in self._aborted:
                    row.finish = "abort"
                    land(row)
            live = [row for row in rows if row.finish is None]
            if live:
                self._write(live, land)

    def _write(self, rows: list[_Row], land: Callable[[_Row], None]) -> None:
        """Write one batch of completions, all with the same sampling parameters.

        Finished rows stay in the batch until they are a quarter of it: dropping them
        moves the cache of all others.
        """
        import torch

        from morl.rollout.engines.sampling import draw

        sampling, device = rows[0].request.sampling, self._model.device
        uniforms_BT = torch.from_numpy(np.stack([uniform_stream(row, sampling.max_new_tokens) for row in rows]))
        uniforms_BT = uniforms_BT.to(device)
        logits_BV, state = self._prefill(rows)
        for step in range(sampling.max_new_tokens):
            tokens_B, logprobs_B = draw(logits_BV, uniforms_BT[:, step], sampling)
            for row, token, logprob in zip(rows, tokens_B.tolist(), logprobs_B.tolist(), strict=True):
                if row.finish is None:
                    self._append(row, token, logprob, land)
            live = [i for i, row in enumerate(rows) if row.finish is None]
            if not live:
                return
            if 4 * len(live) <= 3 * len(rows):
                keep = torch.tensor(live, device=device)
                state.keep(keep)
                rows, tokens_B, uniforms_BT = [rows[i] for i in live], tokens_B[keep], uniforms_BT[keep]
            logits_BV = self._decode(tokens_B, state)

    def _append(self, row: _Row, token: int, logprob: float, land: Callable[[_Row], None]) -> None:
        """Append a row's next token, and land the row if it is the last."""
        sampling = row.request.sampling
        if row.request.id in self._aborted:
            row.finish = "abort"
        else:
            row.token_ids.append(token)
            row.logprobs.append(logprob)
            if token in sampling.stop_token_ids:
                row.finish = "stop"
            elif len(row.token_ids) == sampling.max_new_tokens:
                row.finish = "length"
        if row.finish is not None:
            land(row)

    def _prefill(self, rows: list[_Row]) -> tuple[torch.Tensor, _State]:
        """Run the rows' prompts through the model: `(logits_BV, state)` for the first token of each response.

        Each prompt is computed once, however many rows share it. Only this call passes images
        to the model; they determine the positions that follow.
        """
        import torch

        from morl.rollout.engines.hf_attention import can_share
        from morl.rollout.engines.hf_cache import RoomyCache

        slots: dict[tuple[tuple[int, ...], int], int] = {}
        # Equal tokens with different images are different prompts.
        keys = [(row.request.prompt.token_ids_T, id(row.request.prompt.features)) for row in rows]
        slot_of_row = [slots.setdefault(key, len(slots)) for key in keys]
        prompts = [rows[slot_of_row.index(slot)].request.prompt for slot in range(len(slots))]
        token_ids_PT, mask_PT = _left_pad([prompt.token_ids_T for prompt in prompts], self._model.device)
        cache = RoomyCache(self._model.config.get_text_config())
        features = [prompt.features for prompt in prompts]
        positions_APT = _positions(mask_PT, features)
        media = {name: tensor.to(mask_PT.device) for name, tensor in concatenate_features(features).items()}
        logits_PV = self._logits(token_ids_PT, mask_PT, positions_APT.squeeze(0), cache, media)
        # An image takes as many positions as its longer side, not its number of tokens.
        state = _State(cache, mask_PT, positions_APT.amax(dim=(0, 2))[:, None] + 1)
        slot_of_row_B = torch.tensor(slot_of_row, device=mask_PT.device)
        state.spread(slot_of_row_B, share=can_share(self._model, cache))
        return logits_PV[slot_of_row_B], state

    def _decode(self, tokens_B: torch.Tensor, state: _State) -> torch.Tensor:
        """Feed every row its newest token; `BV` logits of the next."""
        import torch

        state.mask_BT = torch.cat([state.mask_BT, state.mask_BT.new_ones(len(tokens_B), 1)], dim=1)
        logits_BV = self._logits(tokens_B[:, None], state.mask_BT, state.position_B1, state.cache)
        state.position_B1 = state.position_B1 + 1
        return logits_BV

    def _logits(
        self,
        token_ids_BT: torch.Tensor,
        mask_BK: torch.Tensor,
        positions: torch.Tensor,
        cache: Any,
        media: Mapping[str, torch.Tensor] = MappingProxyType({}),
    ) -> torch.Tensor:
        """Float32 logits `BV` after the last of these tokens, all of which are added to the cache.

        `positions` are `BT`, or `3BT` with images; `media` holds the model's inputs for images and videos.
        """
        import torch

        with torch.no_grad():
            out = self._model(
                input_ids=token_ids_BT,
                attention_mask=mask_BK,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
                **media,
            )
        logits_BV: torch.Tensor = out.logits[:, -1].float()
        return logits_BV


@dataclass(slots=True)
class _State:
    """The decoding state of a batch."""

    cache: Any
    mask_BT: torch.Tensor
    """int64; 0 at padding."""
    position_B1: torch.Tensor
    """Of each row's next token."""

    def spread(self, prompt_of_row: torch.Tensor, *, share: bool) -> None:
        """Go from prompts to rows: each shares its prompt's cache if `share`, else gets a copy."""
        if share:
            self.cache.share(prompt_of_row)
            self.mask_BT, self.position_B1 = self.mask_BT[prompt_of_row], self.position_B1[prompt_of_row]
        else:
            self.keep(prompt_of_row)

    def keep(self, rows: torch.Tensor) -> None:
        """Keep these rows, in this order; a row may be named twice."""
        self.cache.batch_select_indices(rows)
        self.mask_BT, self.position_B1 = self.mask_BT[rows], self.position_B1[rows]


def uniform_stream(row: _Row, length: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The numbers in [0, 1) from which a row's tokens are drawn, determined by its seed alone."""
    generator = np.random.Generator(np.random.Philox(key=row.request.seed + row.index))
    return generator.random(length)


def batches(requests: Sequence[Request], size: int) -> Iterator[list[_Row]]:
    """Rows to write together: same sampling, similar prompt lengths, samples of a prompt adjacent."""
    by_sampling: dict[Sampling, list[Request]] = {}
    for request in requests:
        by_sampling.setdefault(request.sampling, []).append(request)
    for same_sampling in by_sampling.values():
        same_sampling.sort(key=lambda request: len(request.prompt.token_ids_T))
        rows = (_Row(request, index) for request in same_sampling for index in range(request.samples))
        while batch := list(itertools.islice(rows, size)):
            yield batch


def _positions(mask_PT: torch.Tensor, features: Sequence[Features | None]) -> torch.Tensor:
    """Positions of left-padded prompts, `APT`: A is 1 for text and 3 if any of them has images (M-RoPE)."""
    positions_APT = (mask_PT.cumsum(-1) - 1).clamp(min=0)[None]
    if any(item is not None for item in features):
        positions_APT = positions_APT.repeat(3, 1, 1)
        for p, item in enumerate(features):
            if item is not None:
                positions_APT[:, p, -item.positions_3T.shape[1] :] = item.positions_3T
    return positions_APT


def _left_pad(prompts: Sequence[Sequence[int]], device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask, int64, padded on the left to the longest prompt."""
    import torch

    width = max(map(len, prompts))
    token_ids = torch.zeros(len(prompts), width, dtype=torch.long)
    mask = torch.zeros_like(token_ids)
    for i, prompt in enumerate(prompts):
        token_ids[i, width - len(prompt) :] = torch.tensor(prompt)
        mask[i, width - len(prompt) :] = 1
    return token_ids.to(device), mask.to(device)
