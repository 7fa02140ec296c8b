"""A key-value cache that a token is written into, rather than copied for."""

from __future__ import annotations

from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

_ROOM = 64


class RoomyLayer(DynamicLayer):  # type: ignore[misc]
    """One layer's keys and values, (B, heads, T, size), as views of buffers with room for more tokens.

    The stock layer concatenates: at every token it copies all that it holds.
    """

    keys: torch.Tensor
    values: torch.Tensor
    _buffers: tuple[torch.Tensor, torch.Tensor] | None = None

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append (B, heads, t, size) and return everything held."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        held = self.get_seq_length()
        wanted = held + key_states.shape[-2]
        if self._buffers is None or wanted > self._buffers[0].shape[-2]:
            capacity = wanted + held // 2 + _ROOM
            self._buffers = _grown(self.keys, key_states, capacity), _grown(self.values, value_states, capacity)
        keys, values = self._buffers
        keys[:, :, held:wanted] = key_states
        values[:, :, held:wanted] = value_states
        self.keys, self.values = keys[:, :, :wanted], values[:, :, :wanted]
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep these rows, in this order; a row may be named twice."""
        super().batch_select_indices(indices)
        self._buffers = None


def _grown(held: torch.Tensor, new: torch.Tensor, capacity: int) -> torch.Tensor:
    """A buffer for `capacity` tokens that begins with those held."""
    buffer = new.new_empty(*new.shape[:2], capacity, new.shape[-1])
    if held.numel():
        buffer[:, :, : held.shape[-2]] = held
    return buffer


def roomy_cache(config: Any) -> Any:
    """An empty cache for a model of this text configuration; layers with a sliding window stay as they are."""
    cache = DynamicCache(config=config)
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache
