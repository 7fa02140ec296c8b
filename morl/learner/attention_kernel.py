"""Which attention a model computes rows of a prompt and its responses with."""

from __future__ import annotations

from typing import Any

from morl.learner import flex_attention, shared_prefix_attention


def use_shared_prefix(model: Any, kind: str = "sdpa") -> None:
    """Have the language model of `model` attend by rows when it is given their layout, and as ever when not.

    `kind`: "sdpa" for blocks, one by one; "flex" for one kernel, see `morl.learner.flex_attention`.
    """
    from transformers import AttentionInterface

    if kind == "flex":
        name, function = flex_attention.NAME, flex_attention.attend
    else:
        name, function = shared_prefix_attention.NAME, shared_prefix_attention.by_blocks
    AttentionInterface.register(name, function)
    seeing = getattr(model.config, "vision_config", None) is not None
    model.set_attn_implementation({"text_config": name} if seeing else name)
