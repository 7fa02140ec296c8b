"""A key-value cache that writes new tokens in place and holds each prompt once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

_ROOM = 64


@dataclass(frozen=True, slots=True)
class Sharing:
    """Which of B rows continue which of P prompts; S is the most rows of one prompt."""

    prompts: int
    row_of_slot: torch.Tensor
    """A row for each of P * S slots; any row where a prompt has fewer."""
    slot_of_row_B: torch.Tensor
    in_order: bool
    """Whether rows and slots coincide."""

    @classmethod
    def of(cls, prompt_of_row_B: torch.Tensor, prompts: int) -> Sharing:
        """From the prompt of each row."""
        counts_P = torch.bincount(prompt_of_row_B, minlength=prompts)
        order_B, most = prompt_of_row_B.argsort(stable=True), int(counts_P.max())
        rows_B = torch.arange(len(order_B), device=order_B.device)
        sorted_B = prompt_of_row_B[order_B]
        slot_of_row_B = torch.empty_like(order_B)
        slot_of_row_B[order_B] = sorted_B * most + rows_B - (counts_P.cumsum(0) - counts_P)[sorted_B]
        row_of_slot = order_B.new_zeros(prompts * most)
        row_of_slot[slot_of_row_B] = rows_B
        return cls(prompts, row_of_slot, slot_of_row_B, torch.equal(row_of_slot, rows_B))

    def by_prompt(self, rows_BKGX: torch.Tensor) -> torch.Tensor:
        """The rows of each prompt, stacked: (P, K, S * G, X)."""
        slots = rows_BKGX if self.in_order else rows_BKGX[self.row_of_slot]
        by_prompt = slots.reshape(self.prompts, -1, *slots.shape[1:])
        return by_prompt.transpose(1, 2).flatten(2, 3)

    def by_row(self, prompts_PKYX: torch.Tensor, group: int) -> torch.Tensor:
        """The inverse of `by_prompt`: (B, K, G, X)."""
        prompts, kv_heads, _, size = prompts_PKYX.shape
        slots = prompts_PKYX.reshape(prompts, kv_heads, -1, group, size).transpose(1, 2).flatten(0, 1)
        return slots if self.in_order else slots[self.slot_of_row_B]


@dataclass(frozen=True, slots=True)
class Continued:
    """Keys or values of rows whose prompts are shared."""

    prompt_PKTD: torch.Tensor
    row_BKRD: torch.Tensor
    """Of the R tokens after the prompt."""
    sharing: Sharing


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values, (B, heads, T, size), as views of buffers with spare capacity.

    The stock layer concatenates, so it copies its whole content at every token.
    """

    keys: torch.Tensor
    values: torch.Tensor
    _buffers: tuple[torch.Tensor, torch.Tensor] | None = None
    _prompts: tuple[torch.Tensor, torch.Tensor] | None = None
    sharing: Sharing | None = None

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> tuple[Any, Any]:
        """Append (B, heads, t, size) and return the whole content, as `Continued` where prompts are shared."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held = self.keys.shape[-2] if self.keys.numel() else 0
        length = held + key_states.shape[-2]
        if self._buffers is None or length > self._buffers[0].shape[-2]:
            capacity = length + held // 2 + _ROOM
            self._buffers = _grown(self.keys, key_states, capacity), _grown(self.values, value_states, capacity)
        keys, values = self._buffers
        keys[:, :, held:length] = key_states
        values[:, :, held:length] = value_states
        self.keys, self.values = keys[:, :, :length], values[:, :, :length]
        if self._prompts is None or self.sharing is None:
            return self.keys, self.values
        prompt_keys, prompt_values = self._prompts
        return Continued(prompt_keys, self.keys, self.sharing), Continued(prompt_values, self.values, self.sharing)

    def get_seq_length(self) -> int:
        """Tokens held per row, including its prompt."""
        length: int = super().get_seq_length()
        return length if self._prompts is None else length + self._prompts[0].shape[-2]

    def share(self, sharing: Sharing) -> None:
        """Treat the current content as prompts that rows continue."""
        self._prompts, self.sharing, self._buffers = (self.keys, self.values), sharing, None
        self.keys = self.values = self.keys.new_empty(0)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows, in this order; a row may be named twice."""
        if self.keys.numel():
            super().batch_select_indices(indices)
        self._buffers = None


def _grown(held: torch.Tensor, new: torch.Tensor, capacity: int) -> torch.Tensor:
    """A buffer for `capacity` tokens that starts with those held."""
    buffer = new.new_empty(*new.shape[:2], capacity, new.shape[-1])
    if held.numel():
        buffer[:, :, : held.shape[-2]] = held
    return buffer


class RoomyCache(DynamicCache):  # type: ignore[misc]
    """An empty cache for a text configuration; layers with a sliding window keep the stock class."""

    def __init__(self, config: Any) -> None:
        super().__init__(config=config)
        self.layers: list[Any] = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in self.layers]
        self._prompt_of_row_B: torch.Tensor | None = None
        self._prompts = 0

    def share(self, prompt_of_row_B: torch.Tensor) -> None:
        """Let each row continue one of the prompts held, without copying any.

        All layers must be `RoomyLayer`, and the attention must accept `Continued`.
        """
        self._prompt_of_row_B, self._prompts = prompt_of_row_B, len(self.layers[0].keys)
        sharing = Sharing.of(prompt_of_row_B, self._prompts)
        for layer in self.layers:
            layer.share(sharing)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows, in this order; a row may be named twice."""
        super().batch_select_indices(indices)
        if self._prompt_of_row_B is not None:
            self._prompt_of_row_B = self._prompt_of_row_B[indices]
            sharing = Sharing.of(self._prompt_of_row_B, self._prompts)
            for layer in self.layers:
                layer.sharing = sharing
