"""Fused kernels for norms, gated MLPs and rotary positions, from the package liger-kernel (0.8, arXiv:2410.10989).

Its losses are not used: log-probabilities come from `morl.learner.lm_head`. For GPUs; not yet run on one.
"""

from __future__ import annotations

import importlib.util
import logging
from typing import Any

from morl.errors import MissingExtraError, UsageError

logger = logging.getLogger(__name__)


def use_liger(model: Any, choice: str, *, gpu: bool) -> bool:
    """Patch a transformers model with the kernels; returns whether it was patched.

    Args:
        model: patched in place.
        choice: "on", "off", or "auto" for wherever they are available.
        gpu: whether the model will run on a GPU.

    Raises: MissingExtraError or UsageError when `choice` is "on" and they are not available.
    """
    installed = importlib.util.find_spec("liger_kernel") is not None
    if choice == "off" or (choice == "auto" and not (gpu and installed)):
        return False
    if not gpu:
        raise UsageError("learner.liger: 'on' needs a GPU, and this learner has none; use 'auto' or 'off'")
    if not installed:
        raise MissingExtraError("liger-kernel", "liger", "learner.liger=on")
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN, _apply_liger_kernel_to_instance

    kind = model.config.model_type
    if kind not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        if choice == "on":
            raise UsageError(
                f"learner.liger: liger-kernel does not support models of type '{kind}'; use 'auto' or 'off'"
            )
        return False
    _apply_liger_kernel_to_instance(model, cross_entropy=False, fused_linear_cross_entropy=False)
    logger.info("liger kernels for %s", kind)
    return True
