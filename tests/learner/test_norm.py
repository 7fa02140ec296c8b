"""The lean norm is the stock one, with its gradients."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from morl.compat import guard_torchvision
from morl.learner.rmsnorm_cpu import KNOWN, use_lean_norms
from morl.model.loading import load_policy


@pytest.mark.parametrize("epsilon", [1e-6, 0.1])
@pytest.mark.parametrize("learns", [True, False])
def test_values_and_gradients_are_those_of_the_module(epsilon, learns):
    guard_torchvision()
    from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

    draw = torch.Generator().manual_seed(0)
    norm = Qwen2RMSNorm(24, epsilon)
    norm.weight.data = torch.randn(24, generator=draw)
    norm.weight.requires_grad_(learns)
    # From nothing to much: where the epsilon counts, and where it does not.
    states = (torch.randn(2, 7, 24, generator=draw) * torch.logspace(-4, 3, 7)[:, None]).requires_grad_()
    upstream = torch.randn(2, 7, 24, generator=draw)
    wanted = [states, norm.weight] if learns else [states]
    stock = norm(states)
    stock_grads = torch.autograd.grad(stock, wanted, upstream)
    use_lean_norms(norm)
    lean = norm(states)
    torch.testing.assert_close(lean, stock, atol=0, rtol=3e-6)
    for one, other in zip(torch.autograd.grad(lean, wanted, upstream), stock_grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6 * float(other.abs().max()))


def test_every_norm_of_the_models_in_use_is_known_and_computes_what_it_did(tiny_model: Path, vision_model: Path):
    for folder in (tiny_model, vision_model):
        model = load_policy(folder, "float32")
        norms = [module for module in model.modules() if type(module).__name__.endswith("Norm")]
        assert norms
        assert {type(norm).__name__ for norm in norms} <= set(KNOWN)
        states = [torch.randn(3, norm.weight.shape[0]) for norm in norms]
        stock = [norm(own) for norm, own in zip(norms, states, strict=True)]
        use_lean_norms(model)
        for norm, own, expected in zip(norms, states, stock, strict=True):
            assert "_RMSNorm" in type(norm(own).grad_fn).__name__
            torch.testing.assert_close(norm(own), expected)
