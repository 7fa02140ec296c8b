"""Attention by rows gives what a dense mask gives, with gradients, at less cost."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from learner_groups import make_groups, make_image_groups

from morl.learner import packing
from morl.learner.attention_kernel import use_shared_prefix
from morl.learner.packing import build_batch, microbatch
from morl.learner.policy import Policy
from morl.learner.rows import group_rows
from morl.learner.shared_prefix_attention import worth_it
from morl.model.chat_codec import ChatCodec
from morl.model.loading import load_policy


@pytest.mark.parametrize("images", [False, True])
def test_rows_and_dense_mask_agree(tiny_model: Path, vision_model: Path, monkeypatch, images):
    folder = vision_model if images else tiny_model
    groups = make_image_groups(ChatCodec.load(folder, 512)) if images else make_groups(3, prompts=5)
    draw = torch.Generator().manual_seed(0)
    advantages = torch.randn(len(groups), len(groups[0].samples_G), generator=draw, dtype=torch.float64)
    batch = build_batch(group_rows(groups, advantages, torch.ones_like(advantages)))
    model = load_policy(folder, "float32")
    use_shared_prefix(model)
    policy = Policy(model, temperature=1.0, banned_token_ids=())
    results = []
    for by_rows in (False, True):
        monkeypatch.setattr(packing, "worth_it", lambda layout, length, by_rows=by_rows: by_rows)
        micro = microbatch(batch, range(len(groups)))
        assert (micro.attention_mask_B1LL is None) == by_rows
        logprobs_N, _ = policy(micro)
        gradients = torch.autograd.grad((logprobs_N * micro.advantages_N).sum(), list(model.parameters()))
        results.append((logprobs_N, gradients))
    (dense, dense_gradients), (rows, row_gradients) = results
    torch.testing.assert_close(rows, dense, atol=1e-5, rtol=1e-5)
    scale = max(float(gradient.abs().max()) for gradient in dense_gradients)
    assert all(torch.allclose(a, b, atol=2e-6 * scale) for a, b in zip(row_gradients, dense_gradients, strict=True))


def test_rows_pay_when_they_are_long():
    assert worth_it(((1024, (128,) * 16),), 3072)
    assert not worth_it(((20, (5, 5, 5)),), 35)
    assert not worth_it(((20, (500,)),), 520)
