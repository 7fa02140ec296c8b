"""The body of a model of transformers, run on a microbatch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from morl.learner.packing import Microbatch


def last_hidden_states(model: Any, micro: Microbatch) -> torch.Tensor:
    """Hidden states of a microbatch before the head, `BLH`.

    Args:
        model: a model of transformers with any head.
    """
    body = getattr(model, model.base_model_prefix)
    with _as_others_do(body, micro):
        hidden_BLH: torch.Tensor = body(**micro.arguments).last_hidden_state
    return hidden_BLH


@contextmanager
def _as_others_do(body: Any, micro: Microbatch) -> Iterator[None]:
    """Use every part of the model that other ranks may use on their rows, in the same order and as often.

    Ranks gather weights and reduce gradients in the order of their use. So each runs the vision tower once for the
    batch's images and once for its videos, after the embedding and before the language model: on nothing, where its
    own rows have none. With ZeRO 3 anything else ends in ranks that wait for each other.
    """
    # A batch without any image still has the tower's gradients reduced.
    absent = micro.absent or (() if micro.features else ("pixel_values",))
    if not absent or not hasattr(body, "get_image_features") or not _several_ranks():
        yield
        return

    def look(module: Any, given: Any, embedded_BLH: torch.Tensor) -> torch.Tensor:
        for _ in absent:
            embedded_BLH = embedded_BLH + 0.0 * _look_at_nothing(body, embedded_BLH)
        return embedded_BLH

    hook = body.get_input_embeddings().register_forward_hook(look)
    try:
        yield
    finally:
        hook.remove()


def _several_ranks() -> bool:
    return torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1


def _look_at_nothing(body: Any, like: torch.Tensor) -> torch.Tensor:
    """A number that depends on the vision tower: what it makes of the smallest image there is."""
    vision = body.config.vision_config
    side = vision.spatial_merge_size
    pieces = like.new_zeros(side * side, vision.in_channels * vision.temporal_patch_size * vision.patch_size**2)
    grid = torch.tensor([[1, side, side]], device=like.device)
    seen = body.get_image_features(pieces, grid, return_dict=True).pooler_output
    pieces_of: list[torch.Tensor] = list(seen) if isinstance(seen, list | tuple) else [seen]
    return torch.stack([part.sum() for part in pieces_of]).sum()
