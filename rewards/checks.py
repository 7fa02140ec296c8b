"""Checks of rewards for `morl check`: their examples must hold, and they must read the golds of the data."""

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
from morl.rewards.pool.worker_pool import WorkerPool
from morl.rewards.reward import Example
from morl.rewards.reward_input import RewardInput, call_with
from morl.rewards.verdict import describe
from morl.traits import is_async, traits_of
from morl.types import Prompt, TermScore

if TYPE_CHECKING:
    from morl.recipe import ObjectiveSpec, TermSpec

TOLERANCE = 1e-6
"""Largest accepted difference between a value and the expected one."""
EXAMPLE_DEADLINE_S = 30.0
WINDOW = 256
"""Golds scored concurrently."""
MAX_KNOWN = 100_000
"""Cached scores of golds, per term."""


def check_examples(name: str, runner: WorkerPool | None = None) -> list[str]:
    """Run the examples of a reward as a run would. Returns one line per example that does not hold.

    Args:
        runner: provides the workers; if None, a temporary one.

    Raises: UsageError when the reward does not exist or cannot be imported.
    """
    examples = traits_of(REWARDS.load(name)).examples
    if not examples:
        return []
    with nullcontext(runner) if runner else WorkerPool(workers=min(2, len(examples))) as pool:
        scores = run_coroutine(_run_examples(name, examples, pool))
    failures = []
    for index, (example, score) in enumerate(zip(examples, scores, strict=True)):
        if isinstance(score, str):
            failures.append(f"example {index}: {score}")
        elif not _holds(example, score):
            result = f"{_shown(score.value)} ({score.status}{': ' + score.detail if score.detail else ''})"
            expected = f"expected {_shown(example.value)}"
            failures.append(f"example {index}, response {example.response[:60]!r}: {expected}, got {result}")
    return failures


async def _run_examples(name: str, examples: Iterable[Example], runner: WorkerPool) -> list[TermScore | str]:
    async def one(example: Example) -> TermScore | str:
        try:
            reward = BoundReward(name, example.options, EXAMPLE_DEADLINE_S, runner)
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


def written_gold(answer: Callable[..., str], reward_input: RewardInput, options: Mapping[str, Any]) -> str:
    """The gold as a response: `answer` is called with the gold, and with the other arguments that it names."""
    response: str = call_with(answer, reward_input, options, reward_input.gold)
    return response


def score_golds(
    spec: ObjectiveSpec,
    prompts: Iterable[Prompt],
    runner: WorkerPool | None = None,
    *,
    advance: Callable[[], None] = lambda: None,
) -> list[tuple[str, str]]:
    """Find the prompts whose gold is unusable: `(prompt id, reason)`, in the order of the prompts.

    A reward that can write its gold as a response (`answer=`) must score that response 1. Any other plain reward
    that takes a gold must be able to read it. The workers stay busy while further prompts are read.

    Args:
        prompts: read no faster than the workers score; not read at all if no reward reads golds.
        runner: provides the workers; if None, a temporary one.
        advance: called once per prompt, when its gold has been checked.

    Raises: UsageError when a reward is unknown or an option is wrong.
    """
    with nullcontext(runner) if runner else WorkerPool() as pool:
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
        reasons = await asyncio.gather(*(term.reason(prompt) for term in terms))
        advance()
        return "; ".join(filter(None, reasons))

    problems: list[tuple[str, str]] = []
    window: collections.deque[tuple[str, asyncio.Task[str]]] = collections.deque()

    async def take() -> None:
        prompt_id, task = window.popleft()
        if text := await task:
            problems.append((prompt_id, text))

    for prompt in prompts:
        window.append((prompt.id, asyncio.create_task(reason(prompt))))
        await asyncio.sleep(0)  # start it before the next prompt is read
        if len(window) >= WINDOW:
            await take()
    while window:
        await take()
    return problems


class _GoldTerm:
    """One term of an objective, used to check golds instead of responses."""

    def __init__(self, spec: TermSpec, runner: WorkerPool) -> None:
        self._name = spec.name
        self._reward = BoundReward(spec.use, spec.options, spec.deadline_s, runner)
        self._answer = self._reward.traits.answer
        function = self._reward.function
        self.has_work = self._answer is not None or ("gold" in wanted_arguments(function) and not is_async(function))
        self._cache: dict[bytes, asyncio.Future[TermScore]] = {}

    def close(self) -> None:
        """Close the reward."""
        self._reward.close()

    async def reason(self, prompt: Prompt) -> str:
        """Why the prompt's gold is unusable; empty when it is usable."""
        response, write_error = "", ""
        reward_input = RewardInput.of(prompt, "")
        try:
            if self._answer is not None and prompt.gold is not None:
                response = written_gold(self._answer, reward_input, self._reward.options)
        except Exception as error:  # noqa: BLE001  # a plugin's function may raise anything
            write_error = f"term '{self._name}': the gold cannot be written as a response: {describe(error)}"
        score = await self._score(replace(reward_input, response=response))
        if write_error and score.status != "bad_gold":
            return write_error
        if score.status == "bad_gold" or (self._answer and (score.value is None or score.value < 1 - TOLERANCE)):
            if score.value is None:
                return f"term '{self._name}': {score.status}: {score.detail}"
            detail = f" ({score.detail})" if score.detail else ""
            return f"term '{self._name}': the gold scores {_shown(score.value)}{detail}"
        return ""

    async def _score(self, reward_input: RewardInput) -> TermScore:
        key = self._key(reward_input)
        if key is None:
            return await self._reward(reward_input)
        if key not in self._cache:
            if len(self._cache) >= MAX_KNOWN:
                self._cache.clear()
            self._cache[key] = asyncio.ensure_future(self._reward(reward_input))
        return await self._cache[key]

    def _key(self, reward_input: RewardInput) -> bytes | None:
        """A hash of the arguments that the reward reads: many rows of data do not differ in these.

        None where comparing costs more than calling, or is impossible.
        """
        if "media" in self._reward.wanted and reward_input.media:
            return None
        try:
            text = pickle.dumps(reward_input.arguments(self._reward.wanted))
        except Exception:  # noqa: BLE001  # pickling may raise anything; the call reports it
            return None
        return hashlib.blake2b(text, digest_size=16).digest()
