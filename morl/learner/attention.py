"""Attention over rows of a prompt and its answers, without the blocks that are masked anyway.

An answer attends to its prompt and to itself. Computed as such, a row of prompt P and G answers of R tokens
costs P² / 2 + G R (P + R) instead of the (P + G R)² of a dense mask.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

NAME = "morl_shared_prefix"

Layout = tuple[tuple[int, tuple[int, ...]], ...]
"""For each row of a microbatch the tokens of its prompt, and of each answer after it."""

WORTH = 1 << 18
"""Pairs of tokens below which one call with a dense mask is quicker than several without."""


def worth_it(layout: Layout, length: int) -> bool:
    """Whether the blocks are so much less than the whole rectangle that separate calls pay."""
    blocks = sum(prompt**2 // 2 + sum(own * (prompt + own) for own in answers) for prompt, answers in layout)
    dense = len(layout) * length**2
    return dense > WORTH and 2 * dense > 3 * blocks


def use_shared_prefix(model: Any, kind: str = "sdpa") -> None:
    """Have the language model of `model` attend by rows when it is given their layout, and as ever when not.

    `kind`: "sdpa" for blocks, one by one; "flex" for one kernel, see `morl.learner.flex`.
    """
    from transformers import AttentionInterface

    name, function = NAME, by_blocks
    if kind == "flex":
        from morl.learner import flex

        name, function = flex.NAME, flex.attend
    AttentionInterface.register(name, function)
    seeing = getattr(model.config, "vision_config", None) is not None
    model.set_attn_implementation({"text_config": name} if seeing else name)


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
    scale = options.get("scaling")
    repeats = query_BHLD.shape[1] // key_BKLD.shape[1]
    rows = []
    for b, (prompt, answers) in enumerate(layout):
        parts = (query_BHLD[b], key_BKLD[b].repeat_interleave(repeats, 0), value_BKLD[b].repeat_interleave(repeats, 0))
        rows.append(_row(*parts, prompt, answers, scale))
    return torch.stack(rows), None


def _row(
    query_HLD: torch.Tensor,
    key_HLD: torch.Tensor,
    value_HLD: torch.Tensor,
    prompt: int,
    answers: Sequence[int],
    scale: float | None,
) -> torch.Tensor:
    """Attention of one row, `LHD`; zero where the row is padded."""
    attend = torch.nn.functional.scaled_dot_product_attention
    query_1HPD, key_1HPD, value_1HPD = (part_HLD[None, :, :prompt] for part_HLD in (query_HLD, key_HLD, value_HLD))
    of_prompt_PHD = attend(query_1HPD, key_1HPD, value_1HPD, is_causal=True, scale=scale)[0].transpose(0, 1)
    pieces = [of_prompt_PHD]
    if answers:
        longest, device = max(answers), query_HLD.device
        starts_G = torch.tensor([prompt + sum(answers[:g]) for g in range(len(answers))], device=device)
        # A shorter answer is filled up with what follows it: later keys, which none of its own queries may see.
        places_GR = (starts_G[:, None] + torch.arange(longest, device=device)).clamp(max=query_HLD.shape[1] - 1)
        query_GHRD, own_key_GHRD, own_value_GHRD = (
            part_HLD[:, places_GR].transpose(0, 1) for part_HLD in (query_HLD, key_HLD, value_HLD)
        )
        count = len(answers)
        key_GHSD = torch.cat([key_1HPD.expand(count, -1, -1, -1), own_key_GHRD], dim=2)
        value_GHSD = torch.cat([value_1HPD.expand(count, -1, -1, -1), own_value_GHRD], dim=2)
        allowed_RS = torch.ones(longest, prompt + longest, dtype=torch.bool, device=device).tril(prompt)
        of_answers_GHRD = attend(query_GHRD, key_GHSD, value_GHSD, attn_mask=allowed_RS, scale=scale)
        valid_GR = torch.arange(longest, device=device) < torch.tensor(answers, device=device)[:, None]
        pieces.append(of_answers_GHRD.transpose(1, 2)[valid_GR])
    rest = query_HLD.shape[1] - prompt - sum(answers)
    pieces.append(of_prompt_PHD.new_zeros(rest, *of_prompt_PHD.shape[1:]))
    return torch.cat(pieces)
