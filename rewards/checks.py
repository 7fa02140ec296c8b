"""What `morl check` asks of rewards: do their examples hold, and can they read the golds of the data?"""

from __future__ import annotations

import asyncio
import collections
import hashlib
import pickle
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from morl.errors import UsageError
from morl.event_loop import run_coroutine
from morl.registry import REWARDS, wanted_arguments
from morl.rewards.bound_reward import BoundReward
from morl.rewards.pool.runner import Runner
from morl.rewards.reward import Example
from morl.rewards.reward_input import RewardInput, call_with
from morl.rewards.verdict import describe
from morl.traits import is_async, traits_of
from morl.types import Prompt, TermScore

if TYPE_CHECKING:
    from morl.recipe import ObjectiveSpec, TermSpec

TOLERANCE = 1e-6
"""How far a value may be from the expected one."""
WINDOW = 256
"""Golds that are scored at once."""
MAX_KNOWN = 100_000
"""Scores of golds that are remembered, by term."""


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
        told = run_coroutine(_run_examples(name, examples, pool, deadline_s))
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
        return await reward(RewardInput.of_example(example))

    return await asyncio.gather(*(one(example) for example in examples))


def _holds(example: Example, score: TermScore) -> bool:
    if score.value is None or example.value is None:
        return score.value is None and example.value is None
    return abs(score.value - example.value) <= TOLERANCE


def _shown(value: float | None) -> str:
    return "no score" if value is None else f"{value:g}"


def written_gold(answer: Callable[..., str], given: RewardInput, options: Mapping[str, Any]) -> str:
    """What a reward's `answer` writes for a gold: called with it, and with what else it names."""
    written: str = call_with(answer, given, options, given.gold)
    return written


def score_golds(
    spec: ObjectiveSpec,
    prompts: Iterable[Prompt],
    runner: Runner | None = None,
    *,
    advance: Callable[[], None] = lambda: None,
) -> list[tuple[str, str]]:
    """Find the prompts whose gold is no good: `(prompt id, reason)`, in the prompts' order.

    A reward that can write its gold as a response (`answer=`) must give that response 1. Of any other plain
    reward that takes a gold, it is asked whether it can read it. All workers are kept busy, while further
    prompts are read.

    Args:
        prompts: read as far as there are workers for them; not at all if no reward reads golds.
        runner: whose workers to use; without one, its own, which are gone afterwards.
        advance: called once for each prompt, when all has been said of its gold.

    Raises: UsageError when a reward is unknown or an option is wrong.
    """
    with nullcontext(runner) if runner else Runner() as pool:
        terms = [_GoldTerm(term, pool) for term in spec.rewards]
        try:
            working = [term for term in terms if term.has_work]
            return run_coroutine(_score_all(working, prompts, advance)) if working else []
        finally:
            for term in terms:
                term.close()


async def _score_all(
    terms: list[_GoldTerm], prompts: Iterable[Prompt], advance: Callable[[], None]
) -> list[tuple[str, str]]:
    async def reason(prompt: Prompt) -> str:
        told = await asyncio.gather(*(term.reason(prompt) for term in terms))
        advance()
        return "; ".join(filter(None, told))

    found: list[tuple[str, str]] = []
    window: collections.deque[tuple[str, asyncio.Task[str]]] = collections.deque()

    async def take() -> None:
        prompt_id, task = window.popleft()
        if text := await task:
            found.append((prompt_id, text))

    for prompt in prompts:
        window.append((prompt.id, asyncio.create_task(reason(prompt))))
        await asyncio.sleep(0)  # hand it out before the next one is read
        if len(window) >= WINDOW:
            await take()
    while window:
        await take()
    return found


class _GoldTerm:
    """One term of an objective, asked about golds instead of responses."""

    def __init__(self, spec: TermSpec, runner: Runner) -> None:
        self._name = spec.name
        self._reward = BoundReward(spec.use, spec.options, spec.deadline_s, runner)
        self._answer = self._reward.traits.answer
        function = self._reward.function
        self.has_work = self._answer is not None or ("gold" in wanted_arguments(function) and not is_async(function))
        self._known: dict[bytes, asyncio.Future[TermScore]] = {}

    def close(self) -> None:
        """End what the reward has started."""
        self._reward.close()

    async def reason(self, prompt: Prompt) -> str:
        """Why the prompt's gold is no good; empty when it is good."""
        response, unwritten = "", ""
        given = RewardInput.of(prompt, "")
        try:
            if self._answer is not None and prompt.gold is not None:
                response = written_gold(self._answer, given, self._reward.options)
        except Exception as error:  # noqa: BLE001  # a plugin's function, on data of any kind
            unwritten = f"term '{self._name}': the gold cannot be written as a response: {describe(error)}"
        score = await self._score(replace(given, response=response))
        if unwritten and score.status != "bad_gold":
            return unwritten
        if score.status == "bad_gold" or (self._answer and (score.value is None or score.value < 1 - TOLERANCE)):
            if score.value is None:
                return f"term '{self._name}': {score.status}: {score.detail}"
            more = f" ({score.detail})" if score.detail else ""
            return f"term '{self._name}': the gold scores {_shown(score.value)}{more}"
        return ""

    async def _score(self, given: RewardInput) -> TermScore:
        key = self._key(given)
        if key is None:
            return await self._reward(given)
        if key not in self._known:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            self._known[key] = asyncio.ensure_future(self._reward(given))
        return await self._known[key]

    def _key(self, given: RewardInput) -> bytes | None:
        """Equal only for calls with the same arguments: of the many rows of data few differ in what a reward reads.

        None where comparing is more work than calling, or cannot be done.
        """
        if "media" in self._reward.wanted and given.media:
            return None
        try:
            text = pickle.dumps(given.arguments(self._reward.wanted))
        except Exception:  # noqa: BLE001  # whatever pickling runs into; the call will tell
            return None
        return hashlib.blake2b(text, digest_size=16).digest()
