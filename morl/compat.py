"""Workarounds for packages that do not fit together out of the box. Imports nothing heavy at import."""

from __future__ import annotations

import os
import sys

PATIENCE = {"GOMP_SPINCOUNT": "10000"}
"""How long waiting torch threads spin before they sleep: some tenths of a millisecond.

That bridges the gap between two small operations on a CPU; waking a thread takes longer than most of them. By default
threads spin without limit: they take the cores from the next process in the loop, and starve the thread that they wait
for when a reward worker wants a core too.
"""


def wait_briefly() -> None:
    """Set `PATIENCE` for this process and its children, unless the environment sets it. Call before torch loads."""
    if "OMP_WAIT_POLICY" not in os.environ:
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)


def guard_torchvision() -> None:
    """Let a CUDA build of torchvision be imported next to a CPU build of torch.

    The package index serves torchvision with CUDA operators only. Without CUDA they do not
    load, and the import fails because two operator schemas are missing; transformers then
    cannot import its vision processors. Declaring the schemas is enough, because only the
    Python part is used. Call this before anything imports transformers.
    """
    if "torchvision" in sys.modules:
        return
    import torch

    try:
        _ = torch.ops.torchvision.nms
    except (AttributeError, RuntimeError):
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            schema = f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
            library.define(schema)  # type: ignore[no-untyped-call]
        # The schemas live as long as the library object.
        torch._morl_torchvision_schemas = library  # type: ignore[attr-defined]


def vllm_platform_plugin() -> None:
    """Entry point of vLLM's platform plugins: the earliest hook that all vLLM processes run.

    Returns None, which means "no additional platform"; only the side effect is wanted.
    """
    guard_torchvision()
