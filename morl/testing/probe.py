"""Calls a reward in a worker process for `morl.testing.conformance`, and checks its behaviour."""

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
OK, BROKEN = "=", "!"
"""First character of the detail of a verdict of `probe`: the reward's detail, or a broken rule, follows."""
BECAUSE = " ¦ "
"""Separates a broken rule from its evidence."""


def probe(target: str, arguments: Mapping[str, Any], options: Mapping[str, Any], times: int) -> Verdict:
    """Call the reward at `target` `times` times. Returns its verdict, or the rule that it breaks.

    Args:
        arguments: the arguments that it names, for one response even if it is a batch reward.
    """
    function = Entry("reward", target, target, target).load()
    before = pickle.dumps((arguments, options))
    scores: list[TermScore] = []
    for _ in range(times):
        try:
            returned = _call(function, arguments, options)
        except MemoryError:
            raise
        except BaseException as error:  # noqa: BLE001  # also SystemExit, and timeouts outside Exception
            return _broken("raises instead of returning a verdict", describe(error))
        score = to_term_score(returned, 0.0)
        if score.status == "error" and not (isinstance(returned, Verdict) and returned.status == "error"):
            return _broken("returns no valid verdict", score.detail)
        if score.value is not None and not 0.0 <= score.value <= 1.0:
            return _broken("returns a value outside [0, 1]", f"{score.value:g}")
        if pickle.dumps((arguments, options)) != before:
            return _broken("changes its arguments", "they differ afterwards")
        scores.append(score)
        if verdict_of(score) != verdict_of(scores[0]):
            return _broken("gives another verdict when called again", f"{shown(scores[0])}, then {shown(score)}")
    return Verdict(scores[0].value, scores[0].status, f"{OK}{scores[0].detail}")


def _broken(rule: str, evidence: str) -> Verdict:
    return Verdict(None, "error", f"{BROKEN}{rule}{BECAUSE}{evidence}")


def verdict_of(score: TermScore) -> tuple[float | None, str, str]:
    """The verdict in a score, without the time taken."""
    return score.value, score.status, score.detail


def shown(score: TermScore) -> str:
    """A score as one readable line."""
    value = "no score" if score.value is None else f"{score.value:g}"
    return f"{value} ({score.status}{': ' if score.detail else ''}{score.detail})"


def _call(function: Callable[..., Any], arguments: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    traits = traits_of(function)
    wanted = {name: arguments[name] for name in wanted_arguments(function) if name != "resource"}
    if traits.batch:
        wanted = {name: [value] for name, value in wanted.items()}
    if is_async(function) or traits.resource is not None:
        returned = run_coroutine(_call_on_loop(function, wanted, options))
    else:
        returned = function(**wanted, **options)
    if not traits.batch:
        return returned
    if not isinstance(returned, list | tuple) or len(returned) != 1:
        raise TypeError("a batch of 1 response must return a list of 1 value")
    return returned[0]


async def _call_on_loop(function: Callable[..., Any], arguments: dict[str, Any], options: Mapping[str, Any]) -> Any:
    kind = traits_of(function).resource
    resource = kind(**options) if kind is not None else None
    try:
        if resource is not None:
            await resource.start()
            arguments = {**arguments, "resource": resource}
        returned = function(**arguments, **options)
        return await returned if is_async(function) else returned
    finally:
        if resource is not None:
            resource.close()
