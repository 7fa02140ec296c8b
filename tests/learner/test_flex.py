"""One kernel gives what blocks give. Its mask and its arithmetic run on the CPU; compiled, it is for tests/gpu."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from learner_groups import make_groups
from torch.nn.attention import flex_attention

from morl.cluster import Cluster
from morl.errors import UsageError
from morl.learner import packing
from morl.learner.attention_kernel import use_shared_prefix
from morl.learner.flex_attention import attend, block_mask
from morl.learner.learner import Learner
from morl.learner.packing import build_batch, microbatch
from morl.learner.policy import Policy, PolicySettings
from morl.learner.rows import group_rows
from morl.learner.shared_prefix_attention import by_blocks
from morl.model.loading import load_policy
from morl.recipe.schema.algorithm_section import AlgorithmSpec
from morl.recipe.schema.learner_section import LearnerSpec
from morl.recipe.schema.machine_sections import ClusterSpec

LAYOUTS = [
    ((5, (3, 1, 4)), (2, (6,)), (9, ())),  # padded rows, one answer, a prompt alone
    ((130, (40, 1, 90)), (7, (3, 200))),  # more than one block of the kernel's
]


@pytest.fixture
def backward_on_cpu(monkeypatch):
    """Torch refuses tensors that want a gradient on the CPU, although its uncompiled form computes it."""
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *tensors: None)


@pytest.mark.parametrize("heads", [(4, 4), (6, 2)], ids=["heads", "grouped"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=["padded", "long"])
def test_one_kernel_and_blocks_agree(backward_on_cpu, layout, heads) -> None:
    draw = torch.Generator().manual_seed(0)
    length = max(prompt + sum(answers) for prompt, answers in layout)
    shapes = [(len(layout), count, length, 16) for count in (heads[0], heads[1], heads[1])]
    parts = [torch.randn(shape, generator=draw, requires_grad=True) for shape in shapes]
    valid_BL = torch.arange(length) < torch.tensor([prompt + sum(answers) for prompt, answers in layout])[:, None]
    toward = torch.randn(len(layout), length, heads[0], 16, generator=draw) * valid_BL[..., None, None]
    found = []
    for function in (by_blocks, attend):
        out = function(None, *parts, None, layout=layout, scaling=0.3)[0]
        assert out.isfinite().all()
        found.append((out[valid_BL], *torch.autograd.grad((out * toward).sum(), parts)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_whole_blocks_are_left_out() -> None:
    layout = ((1024, (512, 512, 512)),)
    sparsity = block_mask(layout, 2560, torch.device("cpu")).sparsity()
    blocks = 8 * 9 / 2 + 3 * (4 * 8 + 4 * 5 / 2)
    assert sparsity == pytest.approx(100 * (1 - blocks / 400), abs=0.01)


def test_a_policy_sees_the_same_by_one_kernel(backward_on_cpu, tiny_model: Path, monkeypatch) -> None:
    groups = make_groups(3, prompts=3)
    advantages = torch.randn(len(groups), len(groups[0].samples_G), dtype=torch.float64)
    batch = build_batch(group_rows(groups, advantages, torch.ones_like(advantages)))
    model = load_policy(tiny_model, "float32")
    policy = Policy(model, temperature=1.0, banned_token_ids=())
    found = []
    for kind, by_rows in (("sdpa", False), ("flex", True)):
        use_shared_prefix(model, kind)
        monkeypatch.setattr(packing, "worth_it", lambda layout, length, by_rows=by_rows: by_rows)
        logprobs_N = policy(microbatch(batch, range(batch.rows)))[0]
        found.append((logprobs_N, *torch.autograd.grad(logprobs_N.sum(), list(model.parameters()))))
    (dense, *dense_gradients), (flex, *flex_gradients) = found
    torch.testing.assert_close(flex, dense, atol=1e-5, rtol=1e-5)
    scale = max(float(gradient.abs().max()) for gradient in dense_gradients)
    assert all(torch.allclose(a, b, atol=2e-6 * scale) for a, b in zip(flex_gradients, dense_gradients, strict=True))


def test_it_is_refused_without_a_gpu(tiny_model: Path) -> None:
    settings = PolicySettings(
        model=tiny_model,
        dtype="float32",
        learner=LearnerSpec(attention="flex"),
        algorithm=AlgorithmSpec(),
        temperature=1.0,
        banned_token_ids=(),
        seed=0,
    )
    with pytest.raises(UsageError, match=r"learner\.attention: 'flex' needs a GPU"):
        Learner.start(settings, Cluster(ClusterSpec(), local=True), total_steps=1, max_new_tokens=8)
