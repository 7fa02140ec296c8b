"""How a run's weights reach its engines: chosen before the engines start, because they have to know."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from morl.errors import UsageError
from morl.recipe import Recipe
from morl.rollout import ENGINES


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
    if lora is None:
        return SyncPlan(False, "no LoRA", {})
    if wanted == "merged":
        return SyncPlan(False, "named in the recipe", {})
    against = ""
    if not takes_adapters(engine):
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


def takes_adapters(engine: str) -> bool:
    """Whether the engine of this name loads LoRA adapters: whether it can be started with a `max_lora_rank`."""
    build = ENGINES.load(engine)
    return "max_lora_rank" in inspect.signature(build).parameters
