"""Mends for packages that do not fit together out of the box. Imports nothing heavy at import."""

from __future__ import annotations

import os
import sys

PATIENCE = {"GOMP_SPINCOUNT": "10000"}
"""How long threads of torch that wait spin before they sleep: some tenths of a millisecond.

That bridges the gap between two small operations on a CPU; to wake a thread takes longer than most of these. Without
an end, as is the default, they would take the cores from the next process in the loop, and starve the thread that they
wait for when a reward worker wants a core too.
"""


def wait_briefly() -> None:
    """Set `PATIENCE`, unless the environment says something else, for this process and those that it starts.

    It is read when torch is loaded.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)


def guard_torchvision() -> None:
    """Let a CUDA build of torchvision be imported next to a CPU build of torch.

    The package index serves torchvision with CUDA operators only. Without CUDA they do not
    load, and importing it fails because two operator schemas are missing; transformers then
    cannot import its vision processors. Declaring the schemas is enough: the Python part is
    all that is used. Call this before anything imports transformers.
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
    """Entry point of vLLM's platform plugins: the earliest hook that all of its processes run.

    Returns None, which says "no platform of ours"; only the side effect is wanted.
    """
    guard_torchvision()
