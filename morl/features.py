"""Features of the images of several prompts as the arguments of one forward pass."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from morl.types import Features

if TYPE_CHECKING:
    import torch


def concatenate_features(features: Iterable[Features | None]) -> dict[str, torch.Tensor]:
    """The tensors of several prompts, concatenated as the model takes them; empty without images."""
    import torch

    tensors = [own.tensors for own in features if own is not None]
    names = dict.fromkeys(name for own in tensors for name in own)
    return {name: torch.cat([own[name] for own in tensors if name in own]) for name in names}
