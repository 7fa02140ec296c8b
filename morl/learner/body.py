"""The body of a model of transformers, run on a microbatch."""

from __future__ import annotations

from typing import Any

import torch

from morl.learner.packing import Microbatch


def last_hidden_states(model: Any, micro: Microbatch) -> torch.Tensor:
    """Hidden states of a microbatch before the head, `BLH`.

    Args:
        model: a model of transformers with any head.
    """
    body = getattr(model, model.base_model_prefix)
    arguments = micro.arguments
    if not micro.features and hasattr(body, "get_image_features") and _several_ranks():
        # Ranks gather weights and reduce gradients in the order of their use: all have to use the same ones,
        # pictures or none, and the vision tower before the language model.
        embedded_BLH = body.get_input_embeddings()(arguments.pop("input_ids"))
        arguments["inputs_embeds"] = embedded_BLH + 0.0 * _look_at_nothing(body, embedded_BLH)
    hidden_BLH: torch.Tensor = body(**arguments).last_hidden_state
    return hidden_BLH


def _several_ranks() -> bool:
    return torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1


def _look_at_nothing(body: Any, like: torch.Tensor) -> torch.Tensor:
    """A number that depends on the vision tower: what it makes of the smallest picture there is."""
    vision = body.config.vision_config
    side = vision.spatial_merge_size
    pieces = like.new_zeros(side * side, vision.in_channels * vision.temporal_patch_size * vision.patch_size**2)
    grid = torch.tensor([[1, side, side]], device=like.device)
    seen = body.get_image_features(pieces, grid, return_dict=True).pooler_output
    pieces_of: list[torch.Tensor] = list(seen) if isinstance(seen, list | tuple) else [seen]
    return torch.stack([part.sum() for part in pieces_of]).sum()
