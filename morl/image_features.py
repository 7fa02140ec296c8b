"""Concatenates the image features of several prompts for one forward pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from morl.types import Features

if TYPE_CHECKING:
    import torch


def concatenate_features(features: Iterable[Features | None]) -> dict[str, torch.Tensor]:
    """Arguments of the model's forward pass for several prompts; empty without images."""
    import torch

    tensors = [prompt.tensors for prompt in features if prompt is not None]
    names = dict.fromkeys(name for prompt in tensors for name in prompt)
    return {name: torch.cat([prompt[name] for prompt in tensors if name in prompt]) for name in names}
