"""The compiled kernel agrees with block-wise attention, also in 16 bits."""

from __future__ import annotations

import pytest
import torch

from morl.learner.flex_attention import attend
from morl.learner.shared_prefix_attention import by_blocks

LAYOUTS = [
    ((5, (3, 1, 4)), (2, (6,)), (9, ())),
    ((1024, (512, 100, 700)), (300, (1, 2000)), (2500, ())),
]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("heads", [(4, 4), (12, 2)], ids=["heads", "grouped"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=["short", "long"])
def test_one_kernel_and_blocks_agree(layout, heads, dtype) -> None:
    draw = torch.Generator("cuda").manual_seed(0)
    length = max(prompt + sum(answers) for prompt, answers in layout)
    shapes = [(len(layout), count, length, 64) for count in (heads[0], heads[1], heads[1])]
    parts = [torch.randn(shape, generator=draw, device="cuda").to(getattr(torch, dtype)) for shape in shapes]
    ends = torch.tensor([prompt + sum(answers) for prompt, answers in layout], device="cuda")
    valid_BL = torch.arange(length, device="cuda") < ends[:, None]
    toward = torch.randn(len(layout), length, heads[0], 64, generator=draw, device="cuda") * valid_BL[..., None, None]

    def outcome(function, exact: bool) -> list[torch.Tensor]:
        inputs = [part.to(torch.float64 if exact else part.dtype).requires_grad_() for part in parts]
        out = function(None, *inputs, None, layout=layout, scaling=0.125)[0]
        return [part.double() for part in (out[valid_BL], *torch.autograd.grad((out * toward.to(out)).sum(), inputs))]

    # Blocks in double precision give the error allowed for each.
    for kernel, blocks, exact in zip(
        outcome(attend, False), outcome(by_blocks, False), outcome(by_blocks, True), strict=True
    ):
        allowed = 2 * float((blocks - exact).abs().max()) + 1e-5 * float(exact.abs().max())
        assert float((kernel - exact).abs().max()) <= allowed
