"""RMSNorm (arXiv:1910.07467) on the CPU, with a few passes over memory instead of a dozen."""

from __future__ import annotations

import types
from typing import Any

import torch

KNOWN = ("LlamaRMSNorm", "MistralRMSNorm", "Qwen2RMSNorm", "Qwen2_5_VLRMSNorm", "Qwen3RMSNorm")
"""Modules of transformers that compute `weight * x / sqrt(mean(x²) + variance_epsilon)`; others scale differently."""


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states_TH: torch.Tensor, weight_H: torch.Tensor, epsilon: float) -> torch.Tensor:
        mean_T1 = torch.linalg.vecdot(states_TH, states_TH)[..., None] / states_TH.shape[-1]
        scale_T1 = mean_T1.add_(epsilon).rsqrt_()
        ctx.save_for_backward(states_TH, weight_H, scale_T1)
        scaled_TH: torch.Tensor = (states_TH * scale_T1).mul_(weight_H)
        return scaled_TH

    @staticmethod
    def backward(ctx: Any, grad_TH: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        states_TH, weight_H, scale_T1 = ctx.saved_tensors
        grad_weight_H = None
        if ctx.needs_input_grad[1]:
            grad_weight_H = (states_TH * scale_T1).mul_(grad_TH).flatten(0, -2).sum(dim=0)
        inner_TH = grad_TH * weight_H
        along_T1 = torch.linalg.vecdot(inner_TH, states_TH)[..., None] * scale_T1.square() / states_TH.shape[-1]
        return inner_TH.addcmul_(states_TH, along_T1, value=-1).mul_(scale_T1), grad_weight_H, None


def use_lean_norms(model: Any) -> None:
    """Make the `KNOWN` norms of a float32 transformers model use this implementation."""
    for module in model.modules():
        if type(module).__name__ in KNOWN and module.weight.dtype == torch.float32:
            module.forward = types.MethodType(_forward, module)


def _forward(self: Any, hidden_states: torch.Tensor) -> torch.Tensor:
    normed: torch.Tensor = _RMSNorm.apply(hidden_states, self.weight, self.variance_epsilon)  # type: ignore[no-untyped-call]
    return normed
