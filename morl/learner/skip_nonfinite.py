"""A step whose loss or gradient is not finite changes nothing, on any rank.

The norm of the whole gradient is known to every rank anyway, and one number in it that is not finite makes
it so: it is the sign to skip the step. DeepSpeed heeds it, but for plain float32 without ZeRO; and a loss
that is not finite may have a gradient that is.
"""

from __future__ import annotations

import math
from typing import Any

import torch


def guard(engine: Any) -> None:
    """Make a DeepSpeed engine skip a step with a loss or gradient that is not finite.

    Weights, Adam's moments and its count of steps stay as they are, bit for bit; the learnt-from gradient is
    dropped; `engine.get_global_grad_norm()` is then not finite.
    """
    _spoil_gradient_of_bad_loss(engine)
    _keep_norm_without_zero(engine)


def _spoil_gradient_of_bad_loss(engine: Any) -> None:
    backward = engine.backward

    def spoiling(loss: torch.Tensor) -> None:
        # Times 1 is exact. Asking `if` instead would make a GPU wait for the host.
        backward(loss * torch.where(loss.detach().isfinite(), 1.0, math.nan))

    engine.backward = spoiling


def _keep_norm_without_zero(engine: Any) -> None:
    """Without ZeRO and mixed precision DeepSpeed clips, but forgets the norm and steps whatever it is."""
    from deepspeed.runtime.utils import clip_grad_norm_

    def clip() -> None:
        norm = clip_grad_norm_(
            parameters=engine.module.parameters(), max_norm=engine.gradient_clipping(), mpu=engine.mpu
        )
        engine._global_grad_norm = norm
        if not norm.isfinite():
            # AdamW passes over parameters without a gradient.
            engine.module.zero_grad(set_to_none=True)

    engine.clip_fp32_gradients = clip
