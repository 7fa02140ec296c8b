"""Attention over rows of a prompt and its responses, without the blocks that are masked anyway.

A response attends to its prompt and to itself. Computed as such, a row of prompt P and G responses of R tokens
costs P² / 2 + G R (P + R) instead of the (P + G R)² of a dense mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

NAME = "morl_shared_prefix"

Layout = tuple[tuple[int, tuple[int, ...]], ...]
"""For each row of a microbatch the tokens of its prompt, and of each response after it."""

_sdpa = torch.nn.functional.scaled_dot_product_attention

WORTH = 1 << 18
"""Pairs of tokens below which one call with a dense mask is quicker than several without."""


def worth_it(layout: Layout, length: int) -> bool:
    """Whether the blocks are so much less than the whole rectangle that separate calls pay."""
    blocks = sum(prompt**2 // 2 + sum(own * (prompt + own) for own in responses) for prompt, responses in layout)
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
    """An attention function of transformers'; `BLHD`, zero where a row is padded."""
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
            seen = keys[3 * b], values[3 * b]
            pieces.append(_of_responses(*seen, query_NHD, key_NKD, value_NKD, responses, options.get("scaling")))
        pieces.append(torch.zeros_like(queries[3 * b + 2]))
    return torch.cat(pieces).view(len(layout), length, *pieces[0].shape[1:]), None


def _cut(part_BHLD: torch.Tensor, layout: Layout) -> tuple[torch.Tensor, ...]:
    """For each row what is of its prompt, of its responses, and padding, `LHD`.

    In one call: the gradients of many slices would each be as large as the whole.
    """
    length = part_BHLD.shape[2]
    sizes = [(prompt, sum(responses), length - prompt - sum(responses)) for prompt, responses in layout]
    return torch.split_with_sizes(part_BHLD.transpose(1, 2).flatten(0, 1), [size for row in sizes for size in row])


def _of_prompt(
    query_PHD: torch.Tensor, key_PKD: torch.Tensor, value_PKD: torch.Tensor, scale: float | None
) -> torch.Tensor:
    """Causal attention, `PHD`."""
    repeats = query_PHD.shape[1] // key_PKD.shape[1]
    key_1HPD, value_1HPD = (
        part_PKD.repeat_interleave(repeats, 1).transpose(0, 1)[None] if repeats > 1 else part_PKD.transpose(0, 1)[None]
        for part_PKD in (key_PKD, value_PKD)
    )
    found_1HPD = _sdpa(query_PHD.transpose(0, 1)[None], key_1HPD, value_1HPD, is_causal=True, scale=scale)
    return found_1HPD[0].transpose(0, 1)


def _of_responses(
    prompt_key_PKD: torch.Tensor,
    prompt_value_PKD: torch.Tensor,
    query_NHD: torch.Tensor,
    key_NKD: torch.Tensor,
    value_NKD: torch.Tensor,
    responses: Sequence[int],
    scale: float | None,
) -> torch.Tensor:
    """Attention of each response to the prompt and to itself, `NHD` for responses end to end."""
    prompt, kinds, size = prompt_key_PKD.shape
    count, longest, shared = len(responses), max(responses), query_NHD.shape[1] // kinds
    pad = _Pad(responses, query_NHD.device)
    key_GKSD, value_GKSD = (
        torch.cat([of_prompt_PKD.expand(count, -1, -1, -1), pad(own_NKD)], dim=1).transpose(1, 2)
        for of_prompt_PKD, own_NKD in ((prompt_key_PKD, key_NKD), (prompt_value_PKD, value_NKD))
    )
    # Heads that share keys stand below each other as more queries, so that no key is repeated for them.
    query_GKRD = pad(query_NHD).view(count, longest, kinds, shared, size).transpose(1, 2).flatten(2, 3)
    allowed_RS = torch.ones(longest, prompt + longest, dtype=torch.bool, device=query_NHD.device).tril(prompt)
    found_GKRD = _sdpa(query_GKRD, key_GKSD, value_GKSD, attn_mask=allowed_RS.repeat_interleave(shared, 0), scale=scale)
    found_GRKD = found_GKRD.view(count, kinds, longest, shared, size).transpose(1, 2)
    return pad.undo(found_GRKD.reshape(count, longest, kinds * shared, size))


class _Pad:
    """Between responses end to end, `N...`, and a rectangle of them, `GR...`, a shorter one filled up with zeros."""

    def __init__(self, responses: Sequence[int], device: torch.device) -> None:
        self.shape = (len(responses), max(responses))
        self.even = min(responses) == max(responses)
        if not self.even:
            lengths_G = torch.tensor(responses, device=device)
            inside_GR = torch.arange(self.shape[1], device=device) < lengths_G[:, None]
            self.places_N = inside_GR.flatten().nonzero().squeeze(1)

    def __call__(self, values_N: torch.Tensor) -> torch.Tensor:
        if not self.even:
            values_N = _Spread.apply(values_N, self.places_N, self.shape[0] * self.shape[1])  # type: ignore[no-untyped-call]
        return values_N.view(*self.shape, *values_N.shape[1:])

    def undo(self, values_GR: torch.Tensor) -> torch.Tensor:
        values_N = values_GR.flatten(0, 1)
        if not self.even:
            values_N = _Collect.apply(values_N, self.places_N)  # type: ignore[no-untyped-call]
        return values_N


class _Spread(torch.autograd.Function):
    """Rows to distinct places among zeros. Its gradient is a copy of rows too, which torch's own would add up."""

    @staticmethod
    def forward(ctx: Any, values_N: torch.Tensor, places_N: torch.Tensor, size: int) -> torch.Tensor:
        ctx.save_for_backward(places_N)
        return values_N.new_zeros(size, *values_N.shape[1:]).index_copy_(0, places_N, values_N)

    @staticmethod
    def backward(ctx: Any, grad_M: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        return grad_M.index_select(0, *ctx.saved_tensors), None, None


class _Collect(torch.autograd.Function):
    """Rows from distinct places: `_Spread` undone, and each the gradient of the other."""

    @staticmethod
    def forward(ctx: Any, values_M: torch.Tensor, places_N: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(places_N)
        ctx.size = len(values_M)
        return values_M.index_select(0, places_N)

    @staticmethod
    def backward(ctx: Any, grad_N: torch.Tensor) -> tuple[torch.Tensor, None]:
        (places_N,) = ctx.saved_tensors
        return grad_N.new_zeros(ctx.size, *grad_N.shape[1:]).index_copy_(0, places_N, grad_N), None
