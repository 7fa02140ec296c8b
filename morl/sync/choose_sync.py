"""The choice of a run's weight transport, made before the engines start, because it sets options of theirs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from morl.errors import UsageError
from morl.recipe import Recipe
from morl.rollout import engine_info
from morl.sync.disk_sync import DiskSync, sync_folder
from morl.sync.nccl_sync import NcclSync


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """What the transport carries, and why."""

    adapter: bool
    """Whether to send only the LoRA adapter instead of the whole model."""
    reason: str
    engine_options: dict[str, Any]
    """Options to start the engines with, in addition to the recipe's."""


def plan_sync(recipe: Recipe, engine: str, outside: Sequence[str], gpus: int) -> SyncPlan:
    """What to send with this recipe, engine and cluster.

    An adapter is quicker to send and load than a whole model, and in 16 bits it avoids rounding the merged
    weights, so the engine computes what the learner does. The engine must support adapters, and vLLM adapts
    layers of the language model only. Without a GPU vLLM copies the adapter for each token, which costs more
    than sending whole weights.

    Args:
        recipe: `sync`, `learner.lora` and `rollout` are read.
        engine: name of the chosen engine.
        outside: names of the learner's adapted layers that lie outside of the language model.
        gpus: number of GPUs of the cluster.

    Raises: UsageError when the recipe asks for an adapter that the engine cannot take.
    """
    lora, choice = recipe.learner.lora, recipe.sync.lora
    if recipe.sync.kind == "nccl":
        return SyncPlan(False, "sync.kind is nccl", {"weight_transfer": "nccl"})
    if lora is None:
        return SyncPlan(False, "no LoRA", {})
    if choice == "merged":
        return SyncPlan(False, "set in the recipe", {})
    obstacle = ""
    if not engine_info(engine).takes_adapters:
        obstacle = f"the engine '{engine}' takes whole models only"
    elif outside:
        obstacle = f"engines adapt the language model only, and '{outside[0]}' lies outside of it"
    if choice == "adapter" and obstacle:
        raise UsageError(f"sync.lora: {obstacle}; use sync.lora=merged, or exclude layers with learner.freeze")
    if choice == "auto" and not obstacle and not gpus:
        obstacle = "without a GPU adapters slow the engine down"
    if obstacle:
        return SyncPlan(False, obstacle, {})
    reason = "set in the recipe" if choice == "adapter" else f"the engine '{engine}' takes adapters"
    return SyncPlan(True, reason, {"max_lora_rank": lora.rank})


def check_sync(recipe: Recipe, engine: str, *, gpus: int, local: bool, nodes: int = 1) -> None:
    """Refuse a transport that this engine or this cluster does not support, before anything is loaded.

    Raises: UsageError.
    """
    if recipe.sync.folder is None and nodes > 1:
        raise UsageError(
            f"sync.folder: the cluster has {nodes} nodes, and their engines read weights from a folder: "
            "name one that all nodes share"
        )
    if recipe.sync.kind != "nccl":
        return
    if gpus == 0:
        raise UsageError("sync.kind: 'nccl' needs GPUs, and there are none; use sync.kind=disk")
    if local:
        raise UsageError("sync.kind: 'nccl' needs engines in Ray actors, and --local starts none; use sync.kind=disk")
    if not engine_info(engine).receives_weights:
        raise UsageError(f"sync.kind: the engine '{engine}' takes weights from files only; use sync.kind=disk")


def open_sync(recipe: Recipe, plan: SyncPlan, run: Path, model: Path) -> DiskSync | NcclSync:
    """The transport for the run in folder `run`, with room for weights as large as those in `model`."""
    root = sync_folder(recipe.sync.folder, run, need=0 if plan.adapter else _published_bytes(recipe, model))
    if recipe.sync.kind == "nccl":
        return NcclSync(root, workers=recipe.rollout.options.get("tensor_parallel_size", 1))
    return DiskSync(root, adapter=plan.adapter)


def _published_bytes(recipe: Recipe, model: Path) -> int:
    """Bytes of two versions: the old one stays until the engines have the next. An upper bound.

    Files may be in 16 bits and are published in `model.dtype`, which doubles them if it is float32.
    """
    stored = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    return 2 * stored * (2 if recipe.model.dtype == "float32" else 1)
