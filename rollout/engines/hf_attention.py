"""Decode attention: one new token per row over its cache, without copies of keys and values shared by heads or rows."""

from __future__ import annotations

from typing import Any

import torch

from morl.rollout.engines.hf_cache import Continued, RoomyLayer

NAME = "morl_decode"

SHARING = ("LlamaAttention", "Qwen2Attention", "Qwen2_5_VLAttention", "Qwen3Attention")
"""Attention classes of transformers that pass what the cache returns unread to the attention function."""


def use_decode_attention(model: Any) -> None:
    """Make the language model of `model` use `_attention`, with the masks that transformers makes for sdpa."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    if model.config.get_text_config()._attn_implementation != "sdpa":
        return  # the model needs another attention
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    multimodal = getattr(model.config, "vision_config", None) is not None
    model.set_attn_implementation({"text_config": NAME} if multimodal else NAME)


def can_share(model: Any, cache: Any) -> bool:
    """Whether rows of this cache may share one copy of each prompt."""
    used = {type(layer.self_attn).__name__ for layer in model.get_decoder().layers if hasattr(layer, "self_attn")}
    return (
        model.config.get_text_config()._attn_implementation == NAME
        and model.dtype == torch.float32
        and used.issubset(SHARING)
        and all(isinstance(layer, RoomyLayer) for layer in cache.layers)
    )


def _attention(
    module: Any,
    query_BHLD: torch.Tensor,
    key_BKTD: torch.Tensor | Continued,
    value_BKTD: torch.Tensor | Continued,
    attention_mask: torch.Tensor | None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    rows, heads, length, size = query_BHLD.shape
    # The kernels of sdpa keep scores in float32 for any dtype; plain products do so only in float32.
    if length > 1 or query_BHLD.dtype != torch.float32:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        attended: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query_BHLD, key_BKTD, value_BKTD, attention_mask, **options
        )
        return attended
    key_BKRD = key_BKTD.row_BKRD if isinstance(key_BKTD, Continued) else key_BKTD
    kv_heads = key_BKRD.shape[1]
    scale = options.get("scaling") or size**-0.5
    query_BKGD = query_BHLD.reshape(rows, kv_heads, heads // kv_heads, size) * scale
    scores_BKGT = query_BKGD @ key_BKRD.mT
    if isinstance(key_BKTD, Continued):
        scores_BKGT = torch.cat([_of_prompts(query_BKGD, key_BKTD.prompt_PKTD.mT, key_BKTD), scores_BKGT], dim=-1)
    if attention_mask is not None:
        scores_BKGT.masked_fill_(~attention_mask, -torch.inf)
    weights_BKGT = scores_BKGT.softmax(dim=-1)
    if isinstance(value_BKTD, Continued):
        prompt = value_BKTD.prompt_PKTD.shape[2]
        output_BKGD = weights_BKGT[..., prompt:] @ value_BKTD.row_BKRD
        output_BKGD += _of_prompts(weights_BKGT[..., :prompt], value_BKTD.prompt_PKTD, value_BKTD)
    else:
        output_BKGD = weights_BKGT @ value_BKTD
    return output_BKGD.view(rows, 1, heads, size), None


def _of_prompts(left_BKGX: torch.Tensor, right_PKXY: torch.Tensor, cached: Continued) -> torch.Tensor:
    """Products of rows with tensors of their prompts, `BKGY`: all rows of a prompt at once."""
    products_PKNY = cached.sharing.by_prompt(left_BKGX) @ right_PKXY
    return cached.sharing.by_row(products_PKNY, left_BKGX.shape[2])
