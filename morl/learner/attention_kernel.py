"""The attention kernel for rows of a prompt and its responses."""

from __future__ import annotations

from typing import Any

from morl.learner import flex_attention, shared_prefix_attention


def use_shared_prefix(model: Any, kind: str = "sdpa") -> None:
    """Make the language model use block-diagonal attention when a layout is given, and its own otherwise.

    `kind`: "sdpa" for one call per block; "flex" for one kernel, see `morl.learner.flex_attention`.
    """
    from transformers import AttentionInterface

    if kind == "flex":
        name, function = flex_attention.NAME, flex_attention.attend
    else:
        name, function = shared_prefix_attention.NAME, shared_prefix_attention.by_blocks
    AttentionInterface.register(name, function)
    multimodal = getattr(model.config, "vision_config", None) is not None
    model.set_attn_implementation({"text_config": name} if multimodal else name)
