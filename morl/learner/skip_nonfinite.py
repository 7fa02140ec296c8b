"""A step whose loss or gradient is not finite changes nothing, on any rank.

Every rank knows the norm of the whole gradient, which is not finite as soon as one element is not: this is the
signal to skip the step. DeepSpeed skips on it, except in float32 without ZeRO. A non-finite loss with a finite
gradient needs the signal as well.
"""

from __future__ import annotations

import math
from typing import Any

import torch


def guard(engine: Any) -> None:
    """Make a DeepSpeed engine skip a step whose loss or gradient is not finite.

    Weights, Adam's moments and its step count stay bit-identical; the gradient is dropped; and
    `engine.get_global_grad_norm()` is then not finite.
    """
    _nan_gradient_of_nonfinite_loss(engine)
    _keep_norm_without_zero(engine)


def _nan_gradient_of_nonfinite_loss(engine: Any) -> None:
    backward = engine.backward

    def guarded(loss: torch.Tensor) -> None:
        # Times 1 is exact. An `if` would make the host wait for the GPU.
        backward(loss * torch.where(loss.detach().isfinite(), 1.0, math.nan))

    engine.backward = guarded


def _keep_norm_without_zero(engine: Any) -> None:
    """In float32 without ZeRO DeepSpeed clips, but does not keep the norm and steps even if it is not finite."""
    from deepspeed.runtime.utils import clip_grad_norm_

    def clip() -> None:
        norm = clip_grad_norm_(
            parameters=engine.module.parameters(), max_norm=engine.gradient_clipping(), mpu=engine.mpu
        )
        engine._global_grad_norm = norm
        if not norm.isfinite():
            # AdamW skips parameters without a gradient.
            engine.module.zero_grad(set_to_none=True)

    engine.clip_fp32_gradients = clip
