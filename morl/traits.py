"""What a reward function declares about itself, beside its name and options; read when recipes are read."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from morl.rewards import Example, Mark, Resource


@dataclass(frozen=True, slots=True)
class Traits:
    """The arguments of the decorator `@reward`, without the name."""

    examples: tuple[Example, ...] = ()
    answer: Callable[..., str] | None = None
    """Writes a gold as a response that must score 1; None if that is not possible."""
    runs: Literal["worker", "inline"] = "worker"
    batch: bool = False
    resource: type[Resource] | None = None
    deadline_s: float = 10.0
    marks: Callable[..., list[Mark]] | None = None
    """What the response and its gold point at in the image; None if there is nothing to draw."""


def traits_of(function: Callable[..., Any]) -> Traits:
    """The traits of a reward; the defaults for an undecorated function that an entry point names."""
    traits: Traits = getattr(function, "__morl_reward__", Traits())
    return traits


def is_async(function: Callable[..., Any]) -> bool:
    """Whether the reward is a coroutine function, which runs on the event loop."""
    return inspect.iscoroutinefunction(function)


def needs_gold(function: Callable[..., Any]) -> bool:
    """Whether every prompt must have a gold: the function has a parameter `gold` without a default."""
    parameter = inspect.signature(function).parameters.get("gold")
    return parameter is not None and parameter.default is inspect.Parameter.empty
