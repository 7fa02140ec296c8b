"""How a run's weights reach its engines: chosen before the engines start, because they have to know."""

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
    """The transport, what it carries, and why."""

    adapter: bool
    """Whether the LoRA adapter travels alone, instead of the whole model."""
    reason: str
    engine_options: dict[str, Any]
    """What the engines are to be started with besides the recipe's options."""


def plan_sync(recipe: Recipe, engine: str, outside: Sequence[str], gpus: int) -> SyncPlan:
    """What the recipe's `sync` means here.

    An adapter takes less to send and load than a model, and less rounding in 16 bits: the engine computes
    what the learner does. It needs an engine that takes it, and vLLM adapts layers of the language model only.
    Without a GPU vLLM copies the adapter once a token, which costs more than whole weights do.

    Args:
        recipe: whose `sync`, `learner.lora` and `rollout` count.
        engine: name of the engine that was chosen.
        outside: names of the learner's layers with an adapter that are not the language model's.
        gpus: of the cluster.

    Raises: UsageError when the recipe asks for what the engine cannot do.
    """
    lora, wanted = recipe.learner.lora, recipe.sync.lora
    if recipe.sync.kind == "nccl":
        return SyncPlan(False, "sync.kind is nccl", {"weight_transfer": "nccl"})
    if lora is None:
        return SyncPlan(False, "no LoRA", {})
    if wanted == "merged":
        return SyncPlan(False, "named in the recipe", {})
    against = ""
    if not engine_info(engine).takes_adapters:
        against = f"the engine '{engine}' takes whole models only"
    elif outside:
        against = f"engines adapt the language model only, and '{outside[0]}' lies outside of it"
    if wanted == "adapter" and against:
        raise UsageError(f"sync.lora: {against}; use sync.lora=merged, or learner.freeze for layers to leave out")
    if wanted == "auto" and not against and not gpus:
        against = "without a GPU adapters slow the engine down"
    if against:
        return SyncPlan(False, against, {})
    reason = "named in the recipe" if wanted == "adapter" else f"the engine '{engine}' takes it"
    return SyncPlan(True, reason, {"max_lora_rank": lora.rank})


def check_sync(recipe: Recipe, engine: str, *, gpus: int, local: bool, nodes: int = 1) -> None:
    """Refuse a transport that this engine or these machines do not have, before anything is loaded.

    Raises: UsageError.
    """
    if recipe.sync.folder is None and nodes > 1:
        raise UsageError(
            f"sync.folder: the cluster has {nodes} nodes, and weights for their engines pass through a folder: "
            "name one that all of them see"
        )
    if recipe.sync.kind != "nccl":
        return
    if gpus == 0:
        raise UsageError("sync.kind: 'nccl' needs GPUs, and there is none here; use sync.kind=disk")
    if local:
        raise UsageError("sync.kind: 'nccl' needs an actor for each engine, which --local has not; use sync.kind=disk")
    if not engine_info(engine).receives_weights:
        raise UsageError(f"sync.kind: the engine '{engine}' takes weights from files only; use sync.kind=disk")


def open_sync(recipe: Recipe, plan: SyncPlan, run: Path, model: Path) -> DiskSync | NcclSync:
    """The transport of the recipe's run, whose folder is `run`, for weights as large as those in `model`."""
    root = sync_folder(recipe.sync.folder, run, need=0 if plan.adapter else _published_bytes(recipe, model))
    if recipe.sync.kind == "nccl":
        return NcclSync(root, workers=recipe.rollout.options.get("tensor_parallel_size", 1))
    return DiskSync(root, adapter=plan.adapter)


def _published_bytes(recipe: Recipe, model: Path) -> int:
    """Room for two versions: the engines' own stays until they have the next. At most, if half of it is stored so."""
    stored = sum(file.stat().st_size for file in model.glob("*.safetensors"))
    return 2 * stored * (2 if recipe.model.dtype == "float32" else 1)
