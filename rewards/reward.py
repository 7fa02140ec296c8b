"""How a function becomes a reward: the decorator, its examples, and what a reward may return."""

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
    """A value with its reason. A reward that has no reason to give returns the bare number.

    >>> Verdict(0.0, "no_answer", "nothing follows the thinking").value
    0.0
    """

    value: float | None
    """In [0, 1] unless the recipe scales it; None is "no score" and needs a status that says why."""
    status: Status = "ok"
    detail: str = ""
    """One readable line: what was extracted, or why there is no score."""


@dataclass(frozen=True, slots=True)
class Example:
    """A row that must hold: `morl check` runs it before a recipe that uses the reward is run."""

    response: str
    gold: Any
    value: float | None
    """The reward's value, to within 1e-6; None where there must be no score."""
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
        name: what recipes call it; two rewards cannot share a name.
        examples: rows that must hold, a right answer and a wrong one at least.
        answer: writes a gold as a response; `morl check` scores that response for every row of
            the data, so that a gold which the reward cannot read is found before the run. Called with
            the gold; it may also name `media`, `meta` and `messages`, and options of the reward as
            keyword-only parameters, or take all of them as `**options`.
        runs: `worker` calls it in a process that can be killed at its deadline; `inline` calls
            it on the event loop of the trainer, for what is cheap and cannot hang. A coroutine
            function runs on the event loop anyway, with its deadline.
        batch: it takes a list for each argument and returns a list of values of that length.
        resource: made with the term's options, kept for the run, and given to the function as its
            argument `resource`; the function must be a coroutine function or run `inline`.
        deadline_s: seconds that a call may take where the recipe does not say.
        marks: boxes and points of an answer and its gold, which a report draws into the image. Called with
            those of `response`, `gold`, `media` and `meta` that it names, and options of the reward as `answer` is.

    Raises: UsageError when the name is taken, or a worker could not import the function.
    """

    def decorate(function: F) -> F:
        if name == "new":
            raise UsageError("no reward can be called 'new': `morl rewards new` begins a package")
        if "<locals>" in function.__qualname__:
            raise UsageError(f"reward '{name}' must be a function at the top level of a module: workers import it")
        function.__morl_reward__ = Traits(  # type: ignore[attr-defined]
            tuple(examples), answer, runs, batch, resource, deadline_s, marks
        )
        return REWARDS.register(name)(function)

    return decorate
