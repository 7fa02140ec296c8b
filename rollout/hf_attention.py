"""Attention of one new token a row over its cache, without repeating keys and values for each query head."""

from __future__ import annotations

from typing import Any

import torch

NAME = "morl_decode"


def use_decode_attention(model: Any) -> None:
    """Have the language model of `model` attend by `_attention`, with the masks that transformers makes for sdpa."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if model.config.get_text_config()._attn_implementation != "sdpa":
        return  # a model that needs an attention of its own
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    seeing = getattr(model.config, "vision_config", None) is not None
    model.set_attn_implementation({"text_config": NAME} if seeing else NAME)


def _attention(
    module: Any,
    query_BHLD: torch.Tensor,
    key_BKTD: torch.Tensor,
    value_BKTD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    rows, heads, length, size = query_BHLD.shape
    # The kernels of sdpa keep scores in float32 whatever the type; plain products do so in float32 alone.
    if length > 1 or query_BHLD.dtype != torch.float32:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        whole: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query_BHLD, key_BKTD, value_BKTD, attention_mask, **options
        )
        return whole
    kinds = key_BKTD.shape[1]
    scale = options.get("scaling") or size**-0.5
    query_BKGD = query_BHLD.reshape(rows, kinds, heads // kinds, size) * scale
    scores_BKGT = query_BKGD @ key_BKTD.transpose(-1, -2)
    if attention_mask is not None:
        scores_BKGT.masked_fill_(~attention_mask, -torch.inf)
    found_BKGD = scores_BKGT.softmax(dim=-1) @ value_BKTD
    return found_BKGD.view(rows, 1, heads, size), None
