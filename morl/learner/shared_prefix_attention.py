"""Attention over rows of a prompt and its responses, without computing the masked blocks.

A response attends to its prompt and to itself. A row of P prompt tokens and G responses of R tokens
costs P² / 2 + G R (P + R) instead of the (P + G R)² of a dense mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

NAME = "morl_shared_prefix"

Layout = tuple[tuple[int, tuple[int, ...]], ...]
"""For each row of a micro-batch the number of tokens of its prompt, and of each response."""

_sdpa = torch.nn.functional.scaled_dot_product_attention

WORTH = 1 << 18
"""Number of token pairs below which one call with a dense mask is faster than several without."""


def worth_it(layout: Layout, length: int) -> bool:
    """Whether the blocks are so much smaller than the dense mask that separate calls are faster."""
    blocks = sum(prompt**2 // 2 + sum(size * (prompt + size) for size in responses) for prompt, responses in layout)
    dense = len(layout) * length**2
    return dense > WORTH and 2 * dense > 3 * blocks


def by_blocks(
    module: Any,
    query_BHLD: torch.Tensor,
    key_BKLD: torch.Tensor,
    value_BKLD: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    layout: Layout | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """An attention function for transformers; returns `BLHD`, 0 at padding."""
    if layout is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        dense: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query_BHLD, key_BKLD, value_BKLD, attention_mask, **options
        )
        return dense
    queries, keys, values = (_cut(part_BHLD, layout) for part_BHLD in (query_BHLD, key_BKLD, value_BKLD))
    length, pieces = query_BHLD.shape[2], []
    for b, (_, responses) in enumerate(layout):
        pieces.append(_of_prompt(queries[3 * b], keys[3 * b], values[3 * b], options.get("scaling")))
        if responses:
            query_NHD, key_NKD, value_NKD = (part[3 * b + 1] for part in (queries, keys, values))
            prefix = keys[3 * b], values[3 * b]
            pieces.append(_of_responses(*prefix, query_NHD, key_NKD, value_NKD, responses, options.get("scaling")))
        pieces.append(torch.zeros_like(queries[3 * b + 2]))
    return torch.cat(pieces).view(len(layout), length, *pieces[0].shape[1:]), None


def _cut(part_BHLD: torch.Tensor, layout: Layout) -> tuple[torch.Tensor, ...]:
    """Split each row into prompt, responses and padding, `LHD` each.

    In one call: the gradient of every single slice would be as large as the whole tensor.
    """
    length = part_BHLD.shape[2]
    sizes = [(prompt, sum(responses), length - prompt - sum(responses)) for prompt, responses in layout]
    return torch.split_with_sizes(part_BHLD.transpose(1, 2).flatten(0, 1), [size for row in sizes for size in row])


def _of_prompt(
    query_PHD: torch.Tensor, key_PKD: torch.Tensor, value_PKD: torch.Tensor, scale: float | None
) -> torch.Tensor:
    """Causal attention of a prompt to itself, `PHD`."""
    repeats = query_PHD.shape[1] // key_PKD.shape[1]
    key_1HPD, value_1HPD = (
        part_PKD.repeat_interleave(repeats, 1).transpose(0, 1)[None] if repeats > 1 else part_PKD.transpose(0, 1)[None]
        for part_PKD in (key_PKD, value_PKD)
    )
    out_1HPD = _sdpa(query_PHD.transpose(0, 1)[None], key_1HPD, value_1HPD, is_causal=True, scale=scale)
    return out_1HPD[0].transpose(0, 1)


def _of_responses(
    prompt_key_PKD: torch.Tensor,
    prompt_value_PKD: torch.Tensor,
    query_NHD: torch.Tensor,
    key_NKD: torch.Tensor,
    value_NKD: torch.Tensor,
    responses: Sequence[int],
    scale: float | None,
) -> torch.Tensor:
    """Attention of each response to the prompt and to itself, `NHD` for concatenated responses."""
    prompt, kinds, size = prompt_key_PKD.shape
    count, longest, shared = len(responses), max(responses), query_NHD.shape[1] // kinds
    pad = _Pad(responses, query_NHD.device)
    key_GKSD, value_GKSD = (
        torch.cat([of_prompt_PKD.expand(count, -1, -1, -1), pad(of_responses_NKD)], dim=1).transpose(1, 2)
        for of_prompt_PKD, of_responses_NKD in ((prompt_key_PKD, key_NKD), (prompt_value_PKD, value_NKD))
    )
    # Heads that share keys are stacked as further queries, so that no key is repeated.
    query_GKRD = pad(query_NHD).view(count, longest, kinds, shared, size).transpose(1, 2).flatten(2, 3)
    allowed_RS = torch.ones(longest, prompt + longest, dtype=torch.bool, device=query_NHD.device).tril(prompt)
    out_GKRD = _sdpa(query_GKRD, key_GKSD, value_GKSD, attn_mask=allowed_RS.repeat_interleave(shared, 0), scale=scale)
    out_GRKD = out_GKRD.view(count, kinds, longest, shared, size).transpose(1, 2)
    return pad.undo(out_GRKD.reshape(count, longest, kinds * shared, size))


class _Pad:
    """Converts concatenated responses, `N...`, to zero-padded ones, `GR...`, and back."""

    def __init__(self, responses: Sequence[int], device: torch.device) -> None:
        self.shape = (len(responses), max(responses))
        self.even = min(responses) == max(responses)
        if not self.even:
            lengths_G = torch.tensor(responses, device=device)
            inside_GR = torch.arange(self.shape[1], device=device) < lengths_G[:, None]
            self.indices_N = inside_GR.flatten().nonzero().squeeze(1)

    def __call__(self, values_N: torch.Tensor) -> torch.Tensor:
        if not self.even:
            values_N = _Scatter.apply(values_N, self.indices_N, self.shape[0] * self.shape[1])  # type: ignore[no-untyped-call]
        return values_N.view(*self.shape, *values_N.shape[1:])

    def undo(self, values_GR: torch.Tensor) -> torch.Tensor:
        values_N = values_GR.flatten(0, 1)
        if not self.even:
            values_N = _Gather.apply(values_N, self.indices_N)  # type: ignore[no-untyped-call]
        return values_N


class _Scatter(torch.autograd.Function):
    """Scatters rows to distinct indices among zeros. The gradient copies rows, where torch's own would add them."""

    @staticmethod
    def forward(ctx: Any, values_N: torch.Tensor, indices_N: torch.Tensor, size: int) -> torch.Tensor:
        ctx.save_for_backward(indices_N)
        return values_N.new_zeros(size, *values_N.shape[1:]).index_copy_(0, indices_N, values_N)

    @staticmethod
    def backward(ctx: Any, grad_M: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return grad_M.index_select(0, *ctx.saved_tensors), None, None


class _Gather(torch.autograd.Function):
    """Gathers rows from distinct indices: the inverse of `_Scatter`; each is the gradient of the other."""

    @staticmethod
    def forward(ctx: Any, values_M: torch.Tensor, indices_N: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(indices_N)
        ctx.size = len(values_M)
        return values_M.index_select(0, indices_N)

    @staticmethod
    def backward(ctx: Any, grad_N: torch.Tensor) -> tuple[torch.Tensor, None]:
        (indices_N,) = ctx.saved_tensors
        return grad_N.new_zeros(ctx.size, *grad_N.shape[1:]).index_copy_(0, indices_N, grad_N), None
