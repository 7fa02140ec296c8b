"""What `morl check` asks of rewards: do their examples hold, and can they read the golds of the data?"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from morl.errors import UsageError
from morl.registry import wanted_arguments
from morl.rewards.caller import BoundReward
from morl.rewards.decorator import REWARDS, Example, is_async, traits_of
from morl.rewards.runner import Runner
from morl.rewards.verdict import describe
from morl.types import Prompt, TermScore

if TYPE_CHECKING:
    from morl.recipe import ObjectiveSpec, TermSpec

TOLERANCE = 1e-6
"""How far a value may be from the expected one."""
SLAB = 1024
"""Golds that are scored at once."""


def check_examples(name: str, runner: Runner | None = None, *, deadline_s: float = 30.0) -> list[str]:
    """Run each example of a reward as a run would; one line for each that does not hold.

    Args:
        runner: whose workers to use; without one, its own, which are gone afterwards.

    Raises: UsageError when there is no such reward or it cannot be imported.
    """
    examples = traits_of(REWARDS.load(name)).examples
    if not examples:
        return []
    with nullcontext(runner) if runner else Runner(workers=min(2, len(examples))) as pool:
        told = asyncio.run(_run_examples(name, examples, pool, deadline_s))
    failures = []
    for index, (example, score) in enumerate(zip(examples, told, strict=True)):
        if isinstance(score, str):
            failures.append(f"example {index}: {score}")
        elif not _holds(example, score):
            said = f"{_shown(score.value)} ({score.status}{': ' + score.detail if score.detail else ''})"
            expected = f"expected {_shown(example.value)}"
            failures.append(f"example {index}, response {example.response[:60]!r}: {expected}, got {said}")
    return failures


async def _run_examples(
    name: str, examples: Iterable[Example], runner: Runner, deadline_s: float
) -> list[TermScore | str]:
    async def one(example: Example) -> TermScore | str:
        try:
            reward = BoundReward(name, example.options, deadline_s, runner)
        except UsageError as error:
            return str(error)
        return await reward(_available(example.response, example.gold, example.meta))

    return await asyncio.gather(*(one(example) for example in examples))


def _holds(example: Example, score: TermScore) -> bool:
    if score.value is None or example.value is None:
        return score.value is None and example.value is None
    return abs(score.value - example.value) <= TOLERANCE


def _shown(value: float | None) -> str:
    return "no score" if value is None else f"{value:g}"


def _available(response: str, gold: Any, meta: Mapping[str, Any]) -> dict[str, Any]:
    return {"response": response, "gold": gold, "meta": dict(meta), "messages": (), "media": (), "sample": None}


def score_golds(spec: ObjectiveSpec, prompts: Iterable[Prompt], runner: Runner | None = None) -> list[tuple[str, str]]:
    """Find the prompts whose gold is no good: `(prompt id, reason)`, in the prompts' order.

    A reward that can write its gold as a response (`answer=`) must give that response 1. Of any other plain
    reward that takes a gold, it is asked whether it can read it.

    Args:
        runner: whose workers to use; without one, its own, which are gone afterwards.

    Raises: UsageError when a reward is unknown or an option is wrong.
    """
    with nullcontext(runner) if runner else Runner() as pool:
        terms = [term for term in (_GoldTerm(term, pool) for term in spec.rewards) if term.has_work]
        found: list[tuple[str, str]] = []
        waiting = iter(prompts) if terms else iter(())
        while slab := list(itertools.islice(waiting, SLAB)):
            reasons = asyncio.run(_score_slab(terms, slab))
            found += [(prompt.id, reason) for prompt, reason in zip(slab, reasons, strict=True) if reason]
        return found


async def _score_slab(terms: list[_GoldTerm], prompts: list[Prompt]) -> list[str]:
    told = await asyncio.gather(*(term.reason(prompt) for prompt in prompts for term in terms))
    width = len(terms)
    return ["; ".join(filter(None, told[i * width : (i + 1) * width])) for i in range(len(prompts))]


class _GoldTerm:
    """One term of an objective, asked about golds instead of responses."""

    def __init__(self, spec: TermSpec, runner: Runner) -> None:
        self._name = spec.name
        self._reward = BoundReward(spec.use, spec.options, spec.deadline_s, runner)
        self._answer = self._reward.traits.answer
        function = self._reward.function
        self.has_work = self._answer is not None or ("gold" in wanted_arguments(function) and not is_async(function))
        # Data has few different golds: each is scored once, if nothing else is looked at.
        self._known: dict[tuple[str, str], asyncio.Future[TermScore] | TermScore] | None = (
            {} if set(self._reward.wanted) <= {"response", "gold"} else None
        )

    async def reason(self, prompt: Prompt) -> str:
        """Why the prompt's gold is no good; empty when it is good."""
        response, unwritten = "", ""
        try:
            response = self._answer(prompt.gold) if self._answer and prompt.gold is not None else ""
        except Exception as error:  # noqa: BLE001  # a plugin's function, on data of any kind
            unwritten = f"term '{self._name}': the gold cannot be written as a response: {describe(error)}"
        score = await self._score(response, prompt)
        if unwritten and score.status != "bad_gold":
            return unwritten
        if score.status == "bad_gold" or (self._answer and (score.value is None or score.value < 1 - TOLERANCE)):
            if score.value is None:
                return f"term '{self._name}': {score.status}: {score.detail}"
            more = f" ({score.detail})" if score.detail else ""
            return f"term '{self._name}': the gold scores {_shown(score.value)}{more}"
        return ""

    async def _score(self, response: str, prompt: Prompt) -> TermScore:
        available = _available(response, prompt.gold, prompt.meta) | {
            "messages": prompt.messages,
            "media": prompt.media,
        }
        if self._known is None:
            return await self._reward(available)
        key = (response, repr(prompt.gold))
        known = self._known.get(key)
        if known is None:
            waiting = self._known[key] = asyncio.ensure_future(self._reward(available))
            self._known[key] = await waiting
            return waiting.result()
        return known if isinstance(known, TermScore) else await known
