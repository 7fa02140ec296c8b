"""Calls a reward for `morl.testing.conformance` in a worker process, and watches what it does."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import Any

from morl.event_loop import run_coroutine
from morl.registry import Entry, wanted_arguments
from morl.rewards import Verdict, describe, to_term_score
from morl.traits import is_async, traits_of
from morl.types import TermScore

TARGET = f"{__name__}:probe"
WELL, BROKEN = "=", "!"
"""How the detail of a verdict of `probe` begins: it is the reward's own, or names the rule that it breaks."""
BECAUSE = " ¦ "
"""Stands between a broken rule and what shows it."""


def probe(target: str, arguments: Mapping[str, Any], options: Mapping[str, Any], times: int) -> Verdict:
    """Call the reward at `target` so many times; its verdict, or which rule it breaks.

    Args:
        arguments: each that it asks for, as for one answer, also if it is a batch reward.
    """
    function = Entry("reward", target, target, target).load()
    before = pickle.dumps((arguments, options))
    scores: list[TermScore] = []
    for _ in range(times):
        try:
            returned = _call(function, arguments, options)
        except MemoryError:
            raise
        except BaseException as error:  # noqa: BLE001  # also SystemExit, and timeouts that are no Exception
            return _broken("raises instead of returning a verdict", describe(error))
        score = to_term_score(returned, 0.0)
        if score.status == "error" and not (isinstance(returned, Verdict) and returned.status == "error"):
            return _broken("returns what is no verdict", score.detail)
        if score.value is not None and not 0.0 <= score.value <= 1.0:
            return _broken("returns a value outside [0, 1]", f"{score.value:g}")
        if pickle.dumps((arguments, options)) != before:
            return _broken("changes its arguments", "they are others afterwards")
        scores.append(score)
        if told(score) != told(scores[0]):
            return _broken("says something else when it is called again", f"{shown(scores[0])}, then {shown(score)}")
    return Verdict(scores[0].value, scores[0].status, f"{WELL}{scores[0].detail}")


def _broken(rule: str, because: str) -> Verdict:
    return Verdict(None, "error", f"{BROKEN}{rule}{BECAUSE}{because}")


def told(score: TermScore) -> tuple[float | None, str, str]:
    """All that a reward says; how long it took is not its to say."""
    return score.value, score.status, score.detail


def shown(score: TermScore) -> str:
    """What a reward says, for people."""
    value = "no score" if score.value is None else f"{score.value:g}"
    return f"{value} ({score.status}{': ' if score.detail else ''}{score.detail})"


def _call(function: Callable[..., Any], arguments: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    traits = traits_of(function)
    given = {name: arguments[name] for name in wanted_arguments(function) if name != "resource"}
    if traits.batch:
        given = {name: [value] for name, value in given.items()}
    if is_async(function) or traits.resource is not None:
        returned = run_coroutine(_call_on_loop(function, given, options))
    else:
        returned = function(**given, **options)
    if not traits.batch:
        return returned
    if not isinstance(returned, list | tuple) or len(returned) != 1:
        raise TypeError("a batch of 1 answer must return a list of 1 value")
    return returned[0]


async def _call_on_loop(function: Callable[..., Any], given: dict[str, Any], options: Mapping[str, Any]) -> Any:
    kind = traits_of(function).resource
    resource = kind(**options) if kind is not None else None
    try:
        if resource is not None:
            await resource.start()
            given = {**given, "resource": resource}
        returned = function(**given, **options)
        return await returned if is_async(function) else returned
    finally:
        if resource is not None:
            resource.close()
