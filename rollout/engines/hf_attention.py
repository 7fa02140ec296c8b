"""Attention of one new token a row over its cache, without repeating keys and values for heads or rows that share."""

from __future__ import annotations

from typing import Any

import torch

from morl.rollout.engines.hf_cache import Continued, RoomyLayer

NAME = "morl_decode"

SHARING = ("LlamaAttention", "Qwen2Attention", "Qwen2_5_VLAttention", "Qwen3Attention")
"""Attention of transformers that hands what the cache returns to the attention function, and looks at none of it."""


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


def can_share(model: Any, cache: Any) -> bool:
    """Whether rows of this cache may go on from prompts that are held once."""
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
    # The kernels of sdpa keep scores in float32 whatever the type; plain products do so in float32 alone.
    if length > 1 or query_BHLD.dtype != torch.float32:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        whole: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query_BHLD, key_BKTD, value_BKTD, attention_mask, **options
        )
        return whole
    own_BKRD = key_BKTD.own_BKRD if isinstance(key_BKTD, Continued) else key_BKTD
    kinds = own_BKRD.shape[1]
    scale = options.get("scaling") or size**-0.5
    query_BKGD = query_BHLD.reshape(rows, kinds, heads // kinds, size) * scale
    scores_BKGT = query_BKGD @ own_BKRD.mT
    if isinstance(key_BKTD, Continued):
        scores_BKGT = torch.cat([_of_prompts(query_BKGD, key_BKTD.prompt_PKTD.mT, key_BKTD), scores_BKGT], dim=-1)
    if attention_mask is not None:
        scores_BKGT.masked_fill_(~attention_mask, -torch.inf)
    weights_BKGT = scores_BKGT.softmax(dim=-1)
    if isinstance(value_BKTD, Continued):
        prompt = value_BKTD.prompt_PKTD.shape[2]
        found_BKGD = weights_BKGT[..., prompt:] @ value_BKTD.own_BKRD
        found_BKGD += _of_prompts(weights_BKGT[..., :prompt], value_BKTD.prompt_PKTD, value_BKTD)
    else:
        found_BKGD = weights_BKGT @ value_BKTD
    return found_BKGD.view(rows, 1, heads, size), None


def _of_prompts(left_BKGX: torch.Tensor, right_PKXY: torch.Tensor, kept: Continued) -> torch.Tensor:
    """Products of rows with what their prompts have, `BKGY`: all rows of a prompt at once."""
    products_PKNY = kept.sharing.by_prompt(left_BKGX) @ right_PKXY
    return kept.sharing.by_row(products_PKNY, left_BKGX.shape[2])
