"""The conformance kit for authors of rewards: one call checks all that a run relies on.

from morl.testing import check_reward


def test_palindrome():
    check_reward("palindrome")
"""

from __future__ import annotations

import asyncio
import inspect
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from morl.errors import MorlError, UsageError
from morl.event_loop import run_coroutine
from morl.recipe import TermSpec
from morl.registry import REWARDS, Entry, options_model, wanted_arguments
from morl.rewards import (
    TOLERANCE,
    BoundReward,
    Example,
    RewardInput,
    WorkerPool,
    check_examples,
    checked_options,
    clip,
    describe,
    written_gold,
)
from morl.testing.adversarial_inputs import HOSTILE_GOLDS, HOSTILE_RESPONSES, QUESTION
from morl.testing.probe import BECAUSE, BROKEN, OK, TARGET, shown, verdict_of
from morl.traits import needs_gold, traits_of
from morl.types import Sample, TermScore

SHOWN = 3
"""Most inputs shown per broken rule."""
SMALL = 20_000
"""Longest response, in characters, that is scored several times to compare the scores."""


class RewardCheckError(MorlError, AssertionError):
    """A reward breaks rules that a run relies on; the text names each broken rule with its inputs."""

    def __init__(self, name: str, broken: Sequence[str]) -> None:
        self.name = name
        self.broken = tuple(broken)
        """One text per broken rule."""
        rules = "1 rule" if len(broken) == 1 else f"{len(broken)} rules"
        super().__init__("\n".join([f"reward '{name}' breaks {rules}:", *(f"- {text}" for text in broken)]))

    def __reduce__(self) -> tuple[type[RewardCheckError], tuple[str, tuple[str, ...]]]:
        return type(self), (self.name, self.broken)


Kind = Literal["example", "response", "gold", "bare", "parts", "answer", "nothing"]
_MESSAGES: dict[Kind, tuple[dict[str, Any], ...]] = {
    "bare": (),
    "parts": ({"role": "user", "content": [{"type": "image"}, {"type": "text", "text": QUESTION}]},),
}


@dataclass(frozen=True, slots=True)
class _Case:
    """One call, and its purpose."""

    kind: Kind
    response: str
    gold: Any
    example: Example
    """Provides the options and the row's other columns."""

    def reward_input(self) -> RewardInput:
        bare = self.kind == "bare"  # as in `morl score`: no messages, no sample, no columns
        length = min(len(self.response) // 4 + 1, 4096)
        sample = Sample("check/0", 0, (1,) * length, (1,) * length, (-1.0,) * length, 0, "stop", self.response)
        messages = _MESSAGES.get(self.kind, ({"role": "user", "content": QUESTION},))
        meta = {} if bare else dict(self.example.meta)
        return RewardInput(self.response, self.gold, messages, (), meta, None if bare else sample)

    def __str__(self) -> str:
        options = f", options {dict(self.example.options)!r}" if self.example.options else ""
        context = {"bare": ", without messages, sample and columns", "parts": ", prompt with an image"}
        return f"response {_short(self.response)}, gold {_short(self.gold)}{options}{context.get(self.kind, '')}"


def _short(value: Any) -> str:
    text = repr(value[:80] if isinstance(value, str) else value)
    if isinstance(value, str) and len(value) > 80:
        return f"{text}… ({len(value):,} characters)"
    return text if len(text) <= 120 else f"{text[:120]}…"


def check_reward(reward: str | Callable[..., Any], *, deadline_s: float | None = None, seed: int = 0) -> None:
    """Check a reward on its own examples and on adversarial inputs.

    - It has documentation, and examples with at least two different values; they hold.
    - It is pure: the same input gives the same verdict in any process, in any order and with any number of workers.
      It does not change its arguments. A worker can import it.
    - Every verdict is a value in [0, 1], or None with a status that says why; it never raises.
    - Any response to a valid gold gets a value, each of `HOSTILE_RESPONSES` within the deadline. Otherwise a policy
      could escape a low score.
    - Any gold gets a verdict, including each of `HOSTILE_GOLDS`. If a gold is required, no response matches an empty
      one.
    - If it writes golds as responses (`answer=`), these score 1, an empty response scores 0, and so does thinking
      without an end.

    Args:
        reward: its name, or the decorated function, in an importable module.
        deadline_s: seconds per call; the reward's default if None.
        seed: seed of the order of the second round of calls.

    Raises: RewardCheckError with every broken rule.
    """
    entry = _entry(reward)
    try:
        function = entry.load()
    except UsageError as error:
        raise RewardCheckError(entry.name, [str(error)]) from error
    broken = _static_rules(entry.name, function)
    examples, wrong_options = _usable_examples(entry.name, function)
    broken += wrong_options
    if examples and not broken:
        deadline_s = traits_of(function).deadline_s if deadline_s is None else deadline_s
        broken += [f"has examples that do not hold: {line}" for line in check_examples(entry.name)]
        with WorkerPool(workers=2) as runner:  # fresh workers
            broken += run_coroutine(_call_all(entry, function, examples, runner, deadline_s, seed))
    if broken:
        raise RewardCheckError(entry.name, broken)


def _entry(reward: str | Callable[..., Any]) -> Entry:
    if isinstance(reward, str):
        return REWARDS.entry(reward)
    target = f"{reward.__module__}:{reward.__qualname__}"
    for entry in REWARDS.entries().values():
        if entry.target == target:
            return entry
    raise RewardCheckError(reward.__qualname__, [f"no reward is registered as {target}: decorate it with @reward"])


def _static_rules(name: str, function: Callable[..., Any]) -> list[str]:
    broken = []
    if not inspect.getdoc(function):
        broken.append("has no documentation: `morl rewards` prints its docstring")
    if len({example.value for example in traits_of(function).examples}) < 2:
        broken.append("has no two examples with different values")
    taken = sorted(set(options_model(function).model_fields) & set(TermSpec.model_fields))
    broken += [f"has an option '{option}', which means something else in a recipe" for option in taken]
    return broken


def _usable_examples(name: str, function: Callable[..., Any]) -> tuple[list[Example], list[str]]:
    """The examples with valid options, and the errors of the others."""
    usable, broken = [], []
    with WorkerPool(workers=1) as idle:
        for index, example in enumerate(traits_of(function).examples):
            try:
                BoundReward(name, example.options, 1.0, idle)
                usable.append(example)
            except UsageError as error:
                broken.append(f"cannot be used as in example {index}: {error}")
    return usable, broken


def _cases(function: Callable[..., Any], examples: Sequence[Example]) -> Iterator[_Case]:
    yield from (_Case("example", example.response, example.gold, example) for example in examples)
    scored = sorted((e for e in examples if e.value is not None), key=lambda e: e.value or 0.0, reverse=True)
    good, seen = scored[0], list[Any]()
    for example in scored:
        if dict(example.options) not in seen:
            seen.append(dict(example.options))
            for response in HOSTILE_RESPONSES:
                if example is good or len(response) <= SMALL:
                    yield _Case("response", response, example.gold, example)
    if "gold" in wanted_arguments(function):
        yield from (_Case("gold", good.response, gold, good) for gold in HOSTILE_GOLDS)
    for response in (good.response, "", QUESTION):
        yield _Case("bare", response, good.gold, good)
        yield _Case("parts", response, good.gold, good)
    answer = traits_of(function).answer
    for example in scored if answer is not None else ():
        if example.gold is not None:
            gold_only = _Case("answer", "", example.gold, example).reward_input()
            written = written_gold(answer, gold_only, example.options)  # type: ignore[arg-type]
            yield _Case("answer", written, example.gold, example)
            yield _Case("answer", f"<think>Hm.</think>\n{written}", example.gold, example)
            for empty in ("", " \n", "\u200b", "<think>", f"<think>{written}"):
                yield _Case("nothing", empty, example.gold, example)


async def _call_all(
    entry: Entry,
    function: Callable[..., Any],
    examples: Sequence[Example],
    runner: WorkerPool,
    deadline_s: float,
    seed: int,
) -> list[str]:
    """Every rule that a call breaks, with the inputs that break it."""
    evidence: dict[str, list[str]] = {}
    try:
        cases = list(_cases(function, examples))
    except Exception as error:  # noqa: BLE001  # an author's `answer` may raise anything
        return [f"cannot write the gold of one of its examples as a response: {describe(error)}"]
    passed: list[tuple[_Case, TermScore]] = []
    for case, score in await _probe_all(entry, function, cases, runner, deadline_s):
        rule, reason = _broken_rule(function, case, score)
        if rule:
            evidence.setdefault(rule, []).append(f"{reason}: {case}")
        elif len(case.response) <= SMALL and case.gold is not None:
            passed.append((case, score))
    random.Random(seed).shuffle(passed)
    for case, score, again in await _score_together(entry.name, passed, deadline_s):
        if verdict_of(score) != (again.value, again.status, clip(f"{OK}{again.detail}")):
            rule = "gives another verdict in another process, in another order or beside other responses"
            evidence.setdefault(rule, []).append(f"{_shown(score)}, then {shown(again)}: {case}")
    return [f"{rule}:{_listed(inputs)}" for rule, inputs in evidence.items()]


def _shown(score: TermScore) -> str:
    return shown(replace(score, detail=score.detail.removeprefix(OK)))


def _listed(inputs: Sequence[str]) -> str:
    rest = f"\n  … and {len(inputs) - SHOWN} more" if len(inputs) > SHOWN else ""
    return "".join(f"\n  {text}" for text in inputs[:SHOWN]) + rest


async def _probe_all(
    entry: Entry, function: Callable[..., Any], cases: Sequence[_Case], runner: WorkerPool, deadline_s: float
) -> list[tuple[_Case, TermScore]]:
    """Score each case alone in a worker. After `SHOWN` timeouts, skip further long responses."""
    wanted = [name for name in wanted_arguments(function) if name != "resource"]
    late = 0
    few = asyncio.Semaphore(2 * runner.workers)

    async def probe(case: _Case) -> TermScore | None:
        nonlocal late
        async with few:
            small = len(case.response) <= SMALL
            if late >= SHOWN and not small:
                return None
            options = checked_options(entry.name, function, case.example.options)
            arguments = case.reward_input().arguments(wanted)
            call = {"target": entry.target, "arguments": arguments, "options": options, "times": 2 if small else 1}
            score = await runner.run(TARGET, call, {}, deadline_s)
            late += score.status == "timeout"
            return score

    scores = await asyncio.gather(*map(probe, cases))
    return [(case, score) for case, score in zip(cases, scores, strict=True) if score is not None]


def _broken_rule(function: Callable[..., Any], case: _Case, score: TermScore) -> tuple[str, str]:
    """The rule that this call breaks and the evidence, or two empty texts."""
    if score.detail.startswith(BROKEN):
        rule, _, reason = score.detail.removeprefix(BROKEN).partition(BECAUSE)
        return rule, reason
    if not score.detail.startswith(OK):  # from the runner: the reward could not be called or did not return
        return "gives no verdict", score.detail
    verdict, value = _shown(score), score.value
    if case.kind == "response" and value is None:
        return "gives no score because of what a response says, so that a policy could escape a low score", verdict
    if case.kind == "answer" and (value is None or value < 1 - TOLERANCE):
        return "does not give 1 to the response that its `answer` writes for a gold", verdict
    if case.kind == "nothing" and value != 0:
        return "does not give 0 to an empty response, or to thinking without an end", verdict
    empty = case.kind == "gold" and isinstance(case.gold, str | None) and not (case.gold or "").strip(" \u200b")
    if empty and value and needs_gold(function):
        return "lets a response match an empty gold", verdict
    return "", ""


async def _score_together(
    name: str, passed: Sequence[tuple[_Case, TermScore]], deadline_s: float
) -> list[tuple[_Case, TermScore, TermScore]]:
    """Repeat the calls as a run makes them: in one worker or on the event loop, in batches."""
    rewards: list[tuple[dict[str, Any], BoundReward]] = []
    with WorkerPool(workers=1) as runner:

        def bound(case: _Case) -> BoundReward:
            options = dict(case.example.options)
            for bound_options, reward in rewards:
                if bound_options == options:
                    return reward
            rewards.append((options, BoundReward(name, options, deadline_s, runner)))
            return rewards[-1][1]

        try:
            again = await asyncio.gather(*(bound(case)(case.reward_input()) for case, _ in passed))
        finally:
            for _, reward in rewards:
                reward.close()
    return [(case, score, second) for (case, score), second in zip(passed, again, strict=True)]


__all__ = ["HOSTILE_GOLDS", "HOSTILE_RESPONSES", "RewardCheckError", "check_reward"]
