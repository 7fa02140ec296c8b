"""What a reward function declares about itself, beside its name and options: read where recipes are read."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from morl.rewards import Example, Mark, Resource


@dataclass(frozen=True, slots=True)
class Traits:
    """The arguments of the decorator `@reward`, beside the name."""

    examples: tuple[Example, ...] = ()
    answer: Callable[..., str] | None = None
    """Writes a gold as a response that must score 1; None where that cannot be done."""
    runs: Literal["worker", "inline"] = "worker"
    batch: bool = False
    resource: type[Resource] | None = None
    deadline_s: float = 10.0
    marks: Callable[..., list[Mark]] | None = None
    """What the answer and its gold point at in the image; None where there is nothing to draw."""


def traits_of(function: Callable[..., Any]) -> Traits:
    """What the decorator was given; the defaults for an undecorated function that an entry point names."""
    traits: Traits = getattr(function, "__morl_reward__", Traits())
    return traits


def is_async(function: Callable[..., Any]) -> bool:
    """Whether it runs on the event loop because it is a coroutine function."""
    return inspect.iscoroutinefunction(function)


def needs_gold(function: Callable[..., Any]) -> bool:
    """Whether a prompt without a gold is an error of the data: it names `gold`, without a default."""
    parameter = inspect.signature(function).parameters.get("gold")
    return parameter is not None and parameter.default is inspect.Parameter.empty
