"""Log-probabilities in chunks are those of the whole softmax, and so are their gradients."""

from __future__ import annotations

import pytest
import torch

from morl.learner import lm_head as head
from morl.learner.lm_head import token_logprobs

U, V, H = 23, 57, 8
BANNED = (3, 50)


def problem(dtype: torch.dtype = torch.float32, bias: bool = True):
    draw = torch.Generator().manual_seed(0)
    hidden = torch.randn(U, H, generator=draw, dtype=dtype).requires_grad_()
    weight = torch.randn(V, H, generator=draw, dtype=dtype).requires_grad_()
    offset = torch.randn(V, generator=draw, dtype=dtype).requires_grad_() if bias else None
    # Some states predict several targets, some none; the order is anything.
    source = torch.randint(0, U, (40,), generator=draw)
    targets = torch.randint(4, 50, (40,), generator=draw)
    return hidden, weight, offset, source, targets


def whole(hidden, weight, bias, source, targets, temperature):
    logits = torch.nn.functional.linear(hidden, weight, bias).double()
    logits = logits.index_fill(1, torch.tensor(BANNED), -torch.inf) / temperature
    logprobs = logits.log_softmax(dim=-1)
    entropy = torch.special.entr(logprobs.exp()).sum(dim=-1)
    return logprobs[source, targets], entropy


@pytest.mark.parametrize("chunk", [1, 5, 23, 100])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kept", [0, 1 << 20])
def test_values_and_gradients_are_those_of_the_whole_softmax(monkeypatch, chunk, temperature, bias, kept):
    monkeypatch.setattr(head, "KEPT_BYTES", kept)
    hidden, weight, offset, source, targets = problem(bias=bias)
    wanted = [tensor for tensor in (hidden, weight, offset) if tensor is not None]
    upstream = torch.linspace(-1, 2, len(targets))
    found, entropy = token_logprobs(
        hidden, weight, offset, source, targets, banned_token_ids=BANNED, temperature=temperature, chunk=chunk
    )
    expected, expected_entropy = whole(hidden, weight, offset, source, targets, temperature)
    torch.testing.assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(entropy.double(), expected_entropy, atol=1e-5, rtol=1e-5)
    for one, other in zip(
        torch.autograd.grad((found * upstream).sum(), wanted),
        torch.autograd.grad((expected * upstream).sum(), wanted),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=2e-5, rtol=1e-4)


def test_going_backward_twice_gives_the_same_gradient():
    hidden, weight, _, source, targets = problem()
    found = token_logprobs(hidden, weight, None, source, targets, banned_token_ids=BANNED, chunk=5)[0].sum()
    first = torch.autograd.grad(found, (hidden, weight), retain_graph=True)
    for one, other in zip(first, torch.autograd.grad(found, (hidden, weight)), strict=True):
        torch.testing.assert_close(one, other)


def test_a_frozen_head_gets_no_gradient():
    hidden, weight, offset, source, targets = problem()
    weight.requires_grad_(False)
    offset.requires_grad_(False)
    token_logprobs(hidden, weight, offset, source, targets)[0].sum().backward()
    assert hidden.grad is not None
    assert weight.grad is None


def test_half_precision_is_summed_in_single():
    hidden, weight, _, source, targets = problem(torch.bfloat16)
    found, entropy = token_logprobs(hidden, weight, None, source, targets, chunk=7)
    expected = torch.nn.functional.linear(hidden, weight).float().log_softmax(dim=-1)[source, targets]
    assert found.dtype == entropy.dtype == torch.float32
    torch.testing.assert_close(found, expected)


def test_no_targets_are_no_trouble():
    hidden, weight, _, _, _ = problem()
    nothing = torch.zeros(0, dtype=torch.long)
    found, entropy = token_logprobs(hidden, weight, None, nothing, nothing, chunk=7)
    assert found.shape == (0,)
    assert entropy.isfinite().all()
    found.sum().backward()
    assert not hidden.grad.any()
