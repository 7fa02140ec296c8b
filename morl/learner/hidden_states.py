"""The forward pass of a transformers model without its head."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from morl.learner.packing import Microbatch


def last_hidden_states(model: Any, micro: Microbatch) -> torch.Tensor:
    """Hidden states of a micro-batch before the head, `BLH`.

    Args:
        model: a transformers model with any head.
    """
    body = getattr(model, model.base_model_prefix)
    with _same_calls_on_all_ranks(body, micro):
        hidden_BLH: torch.Tensor = body(**micro.arguments).last_hidden_state
    return hidden_BLH


@contextmanager
def _same_calls_on_all_ranks(body: Any, micro: Microbatch) -> Iterator[None]:
    """Call every part of the model as often, and in the same order, as other ranks may do for their rows.

    Ranks gather weights and reduce gradients in the order of use. So each runs the vision tower once for the
    batch's images and once for its videos, after the embedding and before the language model: on zeros, if its
    rows have none. Otherwise ranks deadlock under ZeRO-3.
    """
    # Even if the batch has no images, the tower's gradients are reduced.
    absent = micro.absent or (() if micro.features else ("pixel_values",))
    if not absent or not hasattr(body, "get_image_features") or not _several_ranks():
        yield
        return

    def run_tower(module: Any, inputs: Any, embedded_BLH: torch.Tensor) -> torch.Tensor:
        for _ in absent:
            embedded_BLH = embedded_BLH + 0.0 * _run_tower_on_zeros(body, embedded_BLH)
        return embedded_BLH

    hook = body.get_input_embeddings().register_forward_hook(run_tower)
    try:
        yield
    finally:
        hook.remove()


def _several_ranks() -> bool:
    return torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1


def _run_tower_on_zeros(body: Any, like: torch.Tensor) -> torch.Tensor:
    """The sum of the vision tower's features of the smallest possible image, as a scalar with gradient."""
    vision = body.config.vision_config
    side = vision.spatial_merge_size
    pieces = like.new_zeros(side * side, vision.in_channels * vision.temporal_patch_size * vision.patch_size**2)
    grid = torch.tensor([[1, side, side]], device=like.device)
    features = body.get_image_features(pieces, grid, return_dict=True).pooler_output
    parts: list[torch.Tensor] = list(features) if isinstance(features, list | tuple) else [features]
    return torch.stack([part.sum() for part in parts]).sum()
