"""From hidden states to log-probabilities of sampled tokens, without materialising all logits."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any

import torch

CHUNK_BYTES = 64 * 1024**2
"""Size of a chunk of logits, in float32."""

KEPT_BYTES = 512 * 1024**2
"""Largest size of all probabilities, in float32, that is kept for the gradient."""

BANNED = -1e30
"""A logit whose softmax is 0."""


class _TokenLogprobs(torch.autograd.Function):
    """Log-softmax of a linear map, gathered at targets, in chunks of rows.

    The gradient is `softmax` minus one at the target. Probabilities up to `KEPT_BYTES` are kept for it; otherwise
    the logits are recomputed chunk by chunk, so that memory does not grow with the number of rows.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_UH: torch.Tensor,
        weight_VH: torch.Tensor,
        bias_V: torch.Tensor | None,
        source_of_N: torch.Tensor,
        targets_N: torch.Tensor,
        banned: torch.Tensor,
        temperature: float,
        chunk: int,
        keep: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        ctx.probs_UV = hidden_UH.new_empty(len(hidden_UH), len(weight_VH), dtype=torch.float32) if keep else None
        logprobs_N = torch.empty(len(targets_N), dtype=torch.float32, device=hidden_UH.device)
        entropy_U = torch.empty(len(hidden_UH), dtype=torch.float32, device=hidden_UH.device)
        for rows, mine in _chunks(len(hidden_UH), source_of_N, chunk):
            logprobs_CV = _logits(hidden_UH[rows], weight_VH, bias_V, banned, temperature).log_softmax(dim=-1)
            logprobs_N[mine] = logprobs_CV[source_of_N[mine] - rows.start, targets_N[mine]]
            probs_CV = torch.exp(logprobs_CV, out=ctx.probs_UV[rows] if keep else None)
            entropy_U[rows] = torch.linalg.vecdot(probs_CV, logprobs_CV).neg_()
        ctx.save_for_backward(hidden_UH, weight_VH, bias_V, source_of_N, targets_N, banned)
        ctx.temperature, ctx.chunk = temperature, chunk
        ctx.mark_non_differentiable(entropy_U)
        return logprobs_N, entropy_U

    @staticmethod
    def backward(ctx: Any, grad_N: torch.Tensor, _: Any) -> tuple[torch.Tensor | None, ...]:
        hidden_UH, weight_VH, bias_V, source_of_N, targets_N, banned = ctx.saved_tensors
        grad_hidden_UH = torch.empty_like(hidden_UH)
        wants_weight, wants_bias = ctx.needs_input_grad[1], ctx.needs_input_grad[2]
        grad_weight_VH = torch.zeros_like(weight_VH) if wants_weight else None
        # Overwritten below, so a second backward pass has to recompute them.
        probs_UV, ctx.probs_UV = ctx.probs_UV, None
        grad_bias_V = torch.zeros_like(bias_V, dtype=torch.float32) if wants_bias else None
        for rows, mine in _chunks(len(hidden_UH), source_of_N, ctx.chunk if probs_UV is None else len(hidden_UH)):
            local = source_of_N[mine] - rows.start
            if probs_UV is None:
                grad_CV = _logits(hidden_UH[rows], weight_VH, bias_V, banned, ctx.temperature).softmax(dim=-1)
            else:
                grad_CV = probs_UV[rows]
            total_C = torch.zeros(len(grad_CV), dtype=torch.float32, device=grad_CV.device)
            total_C.index_add_(0, local, grad_N[mine])
            grad_CV.mul_(-total_C[:, None] / ctx.temperature)
            grad_CV.index_put_((local, targets_N[mine]), grad_N[mine] / ctx.temperature, accumulate=True)
            low_CV = grad_CV.to(weight_VH.dtype)
            grad_hidden_UH[rows] = low_CV @ weight_VH
            if grad_weight_VH is not None:
                # In place: a temporary of the weights' size would dominate memory here.
                grad_weight_VH.addmm_(low_CV.T, hidden_UH[rows])
            if grad_bias_V is not None:
                grad_bias_V += grad_CV.sum(dim=0)
        return (
            grad_hidden_UH,
            grad_weight_VH,
            None if grad_bias_V is None else grad_bias_V.to(bias_V.dtype),
            *(None,) * 6,
        )


def _logits(
    hidden_CH: torch.Tensor,
    weight_VH: torch.Tensor,
    bias_V: torch.Tensor | None,
    banned: torch.Tensor,
    temperature: float,
) -> torch.Tensor:
    logits_CV = torch.nn.functional.linear(hidden_CH, weight_VH, bias_V).float()
    if len(banned):
        # Finite, because minus infinity makes the entropy's 0 * log 0 NaN; the probability is still exactly 0.
        logits_CV[:, banned] = BANNED
    return logits_CV.div_(temperature) if temperature != 1 else logits_CV


def _chunks(rows: int, source_of_N: torch.Tensor, chunk: int) -> list[tuple[slice, torch.Tensor]]:
    """Slices of rows, each with the indices of the targets that are predicted from them."""
    by_row = torch.argsort(source_of_N, stable=True)
    starts = torch.arange(0, rows, chunk, device=source_of_N.device)
    ends = (starts + chunk).clamp(max=rows)
    sorted_N = source_of_N[by_row]
    first = torch.searchsorted(sorted_N, starts).tolist()
    last = torch.searchsorted(sorted_N, ends).tolist()
    return [
        (slice(start, end), by_row[a:b])
        for start, end, a, b in zip(starts.tolist(), ends.tolist(), first, last, strict=True)
    ]


def token_logprobs(
    hidden_UH: torch.Tensor,
    weight_VH: torch.Tensor,
    bias_V: torch.Tensor | None,
    source_of_N: torch.Tensor,
    targets_N: torch.Tensor,
    *,
    banned_token_ids: Sequence[int] = (),
    temperature: float = 1.0,
    chunk: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """`log softmax(logits / temperature)[target]` with the banned tokens left out of the softmax.

    Args:
        hidden_UH: distinct hidden states.
        weight_VH: of the language model's head.
        source_of_N: index into U of the hidden state that predicts each target.
        targets_N: token ids.
        chunk: number of hidden states whose logits are held at once; None for `CHUNK_BYTES` of logits.

    Returns: `(logprobs_N, entropy_U)`, float32, in nats. The entropy has no gradient.
    """
    if chunk is None:
        chunk = max(16, CHUNK_BYTES // (4 * len(weight_VH)))
    banned = torch.as_tensor(list(banned_token_ids), dtype=torch.long, device=hidden_UH.device)
    keep = torch.is_grad_enabled() and 4 * len(hidden_UH) * len(weight_VH) <= KEPT_BYTES
    arguments = (hidden_UH, weight_VH, bias_V, source_of_N, targets_N, banned, temperature, chunk, keep)
    outputs: tuple[torch.Tensor, torch.Tensor] = _TokenLogprobs.apply(*arguments)  # type: ignore[no-untyped-call]
    return outputs


def make_lean(head: Any) -> None:
    """Make a linear head return `token_logprobs` when it is called with the arguments of that function.

    The module is patched, not replaced: DeepSpeed gathers a module's weights around its call.
    """
    plain = head.forward

    def forward(self: Any, hidden_UH: torch.Tensor, *sources_and_targets: torch.Tensor, **options: Any) -> Any:
        if not sources_and_targets:
            return plain(hidden_UH)
        return token_logprobs(hidden_UH, self.weight, getattr(self, "bias", None), *sources_and_targets, **options)

    head.forward = types.MethodType(forward, head)
