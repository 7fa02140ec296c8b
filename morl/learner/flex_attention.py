"""Attention over rows of a prompt and its responses by FlexAttention: one kernel that skips masked blocks.

The kernel is torch's (Dong et al. 2024, arXiv:2412.05496), compiled on first use; blocks of 128 x 128 tokens that
are masked entirely are not computed. For CUDA: on the CPU torch runs it slowly and without a backward pass.
The result is that of `morl.learner.shared_prefix_attention`, which computes block by block.
"""

from __future__ import annotations

import functools
from typing import Any

import torch

from morl.learner.shared_prefix_attention import Layout
from morl.learner.shared_prefix_attention import by_blocks as attend_by_blocks

NAME = "morl_shared_prefix_by_one_kernel"


def attend(
    module: Any,
    query_BHLD: torch.Tensor,
    key_BKLD: torch.Tensor,
    value_BKLD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    layout: Layout | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """An attention function for transformers; returns `BLHD`, with arbitrary finite values at padding."""
    if layout is None:
        return attend_by_blocks(module, query_BHLD, key_BKLD, value_BKLD, attention_mask, **options)
    attended_BHLD = _kernel(query_BHLD.device.type)(
        query_BHLD,
        key_BKLD,
        value_BKLD,
        block_mask=block_mask(layout, query_BHLD.shape[2], query_BHLD.device),
        scale=options.get("scaling"),
        enable_gqa=query_BHLD.shape[1] != key_BKLD.shape[1],
    )
    return attended_BHLD.transpose(1, 2).contiguous(), None


@functools.lru_cache(maxsize=2)  # all layers of a micro-batch use the same mask
def block_mask(layout: Layout, length: int, device: torch.device) -> Any:
    """A causal `BlockMask` for rows of `length` tokens in which a response attends to its prompt and itself.

    Padding attends to its prompt too, so that no softmax is empty.
    """
    from torch.nn.attention.flex_attention import create_block_mask

    segments_BL = torch.full((len(layout), length), -1, device=device)
    for b, (prompt, responses) in enumerate(layout):
        sizes = torch.tensor([prompt, *responses], device=device)
        segments_BL[b, : prompt + sum(responses)] = torch.arange(len(sizes), device=device).repeat_interleave(sizes)

    def may_see(b: torch.Tensor, h: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        segment = segments_BL[b, key]
        return (query >= key) & ((segment == 0) | (segment == segments_BL[b, query]))

    # Uncompiled, torch first builds a dense L x L mask.
    compiled = device.type == "cuda"
    return create_block_mask(may_see, len(layout), None, length, length, device=device, _compile=compiled)


@functools.cache
def _kernel(device: str) -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    kernel: Any = torch.compile(flex_attention) if device == "cuda" else flex_attention
    return kernel
