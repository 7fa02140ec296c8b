"""The decorator that makes a function a reward, its examples, and the verdict that it returns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from morl.errors import UsageError
from morl.registry import REWARDS
from morl.rewards.resource import Resource
from morl.traits import Traits
from morl.types import Status

if TYPE_CHECKING:
    from morl.rewards.marks import Mark

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Verdict:
    """A value with its reason. A reward may also return a bare number.

    >>> Verdict(0.0, "no_answer", "nothing follows the thinking").value
    0.0
    """

    value: float | None
    """In [0, 1] unless the recipe scales it. None is "no score" and needs a status that says why."""
    status: Status = "ok"
    detail: str = ""
    """One readable line: the extracted answer, or why there is no score."""


@dataclass(frozen=True, slots=True)
class Example:
    """A row with its expected value; `morl check` runs it."""

    response: str
    gold: Any
    value: float | None
    """The expected value, to within 1e-6; None for "no score"."""
    options: Mapping[str, Any] = field(default_factory=dict)
    meta: Mapping[str, Any] = field(default_factory=dict)


def reward(
    name: str,
    *,
    examples: Sequence[Example] = (),
    answer: Callable[..., str] | None = None,
    runs: Literal["worker", "inline"] = "worker",
    batch: bool = False,
    resource: type[Resource] | None = None,
    deadline_s: float = 10.0,
    marks: Callable[..., list[Mark]] | None = None,
) -> Callable[[F], F]:
    """Decorator: make a function usable in recipes as `{use: name}`.

    Args:
        name: its name in recipes; two rewards cannot share one.
        examples: rows that must hold; at least a right answer and a wrong one.
        answer: writes a gold as a response. `morl check` scores that response for every row of the data, which
            finds unreadable golds before the run. Called with the gold; it may also name `media`, `meta` and
            `messages`, and options of the reward as keyword-only parameters, or take all options as `**options`.
        runs: `worker` calls the function in a process that is killed at the deadline; `inline` calls it on the
            trainer's event loop, for cheap functions that cannot hang. A coroutine function always runs on the
            event loop, with the deadline.
        batch: the function takes a list for each argument and returns a list of values of the same length.
        resource: created with the term's options, kept for the run, and passed as the argument `resource`. The
            function must be a coroutine function or run `inline`.
        deadline_s: seconds per call, unless the recipe sets them.
        marks: returns boxes and points of a response and its gold, which a report draws into the image. Called with
            those of `response`, `gold`, `media` and `meta` that it names; options are passed as for `answer`.

    Raises: UsageError when the name is taken or workers could not import the function.
    """

    def decorate(function: F) -> F:
        if name == "new":
            raise UsageError("no reward can be called 'new': `morl rewards new` creates a package")
        if "<locals>" in function.__qualname__:
            raise UsageError(f"reward '{name}' must be a function at the top level of a module: workers import it")
        function.__morl_reward__ = Traits(  # type: ignore[attr-defined]
            tuple(examples), answer, runs, batch, resource, deadline_s, marks
        )
        return REWARDS.register(name)(function)

    return decorate
