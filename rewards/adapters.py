"""Rewards for other trainers: as functions that TRL's `GRPOTrainer` and verl call."""

from __future__ import annotations

import asyncio
import math
import os
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from morl.error_messages import did_you_mean
from morl.errors import DataError, UsageError
from morl.event_loop import run_coroutine
from morl.registry import REWARDS, options_model
from morl.rewards.bound_reward import BoundReward, checked_options
from morl.rewards.pool.worker_pool import WorkerPool
from morl.rewards.reward_input import RewardInput
from morl.traits import is_async, needs_gold, traits_of
from morl.types import Sample, TermScore

TrlReward = Callable[..., list[float | None] | Awaitable[list[float | None]]]


def score(
    reward: str,
    rows: Iterable[RewardInput | Mapping[str, Any]],
    *,
    workers: int | None = None,
    deadline_s: float | None = None,
    **options: Any,
) -> list[TermScore]:
    """Score responses with one reward, in worker processes with its deadline and memory limit.

    >>> [result.value for result in score("number", [{"response": "It is 4.", "gold": 4}])]
    [1.0]

    Args:
        reward: its name.
        rows: the responses, as `RewardInput` or as mappings of its fields: `response`, and those that the reward
            reads (`gold`, `messages`, `media`, `meta`).
        workers: number of processes; one per core by default.
        deadline_s: seconds for one row; the reward's default if None.
        options: options of the reward.

    Returns: one score per row, in order. Where there is no score, `value` is None; `status` and `detail` say why.
    Raises: UsageError for an unknown reward, a wrong option or a row without a response.
    """
    options = dict(_own_options(reward, REWARDS.load(reward), options, "rows", "workers", "deadline_s"))
    inputs = [_input(row, number) for number, row in enumerate([rows] if isinstance(rows, Mapping) else rows)]
    with WorkerPool(workers=workers) as runner:
        bound = _bound(reward, options, deadline_s, runner)
        try:
            return run_coroutine(_scores(bound, inputs))
        finally:
            bound.close()


def as_trl(reward: str, *, gold: str = "gold", deadline_s: float | None = None, **options: Any) -> TrlReward:
    """A reward function for `GRPOTrainer(reward_funcs=[…])` of TRL; a coroutine function if the reward is one.

    TRL calls it with `prompts`, `completions`, their token ids and the columns of the data set. The reward receives
    the columns as `meta` and the images as `media`. A response without a score gives None, which TRL leaves out.

    Args:
        reward: its name.
        gold: the column with the reference answer.
        deadline_s: seconds for one response; the reward's default if None.
        options: options of the reward.

    Raises: UsageError for an unknown reward or a wrong option; DataError, when called, without the column `gold`.
    """
    function = REWARDS.load(reward)
    calls = _Calls(reward, _own_options(reward, function, options, "gold", "deadline_s"), deadline_s)

    def inputs(prompts: Sequence[Any], completions: Sequence[Any], columns: Mapping[str, Any]) -> list[RewardInput]:
        rows = {name: values for name, values in columns.items() if isinstance(values, list | tuple)}
        token_ids = rows.pop("completion_ids", None)
        if gold not in rows and needs_gold(function):
            raise DataError(f"reward '{reward}' reads a gold answer: no column '{gold}'{did_you_mean(gold, rows)}")
        return [
            RewardInput(
                _text(completion),
                rows[gold][i] if gold in rows else None,
                _messages(prompt),
                _images(rows, i),
                {name: values[i] for name, values in rows.items()},
                None if token_ids is None else _sample(_text(completion), token_ids[i]),
            )
            for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True))
        ]

    async def scored(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        return [result.value for result in await calls.scores(inputs(prompts, completions, columns))]

    def scored_blocking(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        return run_coroutine(scored(prompts, completions, **columns))

    reward_function: TrlReward = scored if is_async(function) else scored_blocking
    reward_function.__name__ = reward  # the name in TRL's logs
    return reward_function


def as_verl(reward: str, *, deadline_s: float | None = None, **options: Any) -> VerlReward:
    """A function for verl's `custom_reward_function`. It can be pickled, and starts its worker where it is called.

    Raises: UsageError for an unknown reward or a wrong option.
    """
    checked = _own_options(reward, REWARDS.load(reward), options, "deadline_s")
    return VerlReward(_Calls(reward, checked, deadline_s, workers=1))


class VerlReward:
    """A reward as verl calls it; see `as_verl`."""

    def __init__(self, calls: _Calls) -> None:
        self._calls = calls
        self.__name__ = calls.reward

    def __call__(
        self,
        data_source: str,
        solution_str: str,
        ground_truth: Any,
        extra_info: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> dict[str, Any]:
        """`score`, `no_score`, `status` and `detail`. verl cannot express a missing score: `score` is then 0."""
        row = RewardInput(solution_str, ground_truth, meta={"data_source": data_source, **(extra_info or {})})
        (result,) = run_coroutine(self._calls.scores([row]))
        no_score = float(result.value is None)
        return {"score": result.value or 0.0, "no_score": no_score, **result.as_json("status", "detail")}

    def close(self) -> None:
        """End the worker; the next call starts another."""
        self._calls.close()


class _Calls:
    """A reward with its options, called in a worker pool that the first call of a process starts."""

    def __init__(
        self, reward: str, options: Mapping[str, Any], deadline_s: float | None, workers: int | None = None
    ) -> None:
        checked_options(reward, REWARDS.load(reward), options)
        self.reward = reward
        self._settings = (reward, dict(options), deadline_s, workers)
        self._lock = threading.Lock()
        self._bound: tuple[int, WorkerPool, BoundReward] | None = None
        """With the process that it works in: a fork has none of its threads."""

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._settings

    async def scores(self, rows: Sequence[RewardInput]) -> list[TermScore]:
        reward, options, deadline_s, workers = self._settings
        with self._lock:
            if self._bound is None or self._bound[0] != os.getpid():
                pool = WorkerPool(workers=workers)
                self._bound = os.getpid(), pool, _bound(reward, options, deadline_s, pool)
            bound = self._bound[2]
        return await _scores(bound, rows)

    def close(self) -> None:
        with self._lock:
            if self._bound is not None:
                _, pool, bound = self._bound
                bound.close()
                pool.close()
                self._bound = None


def _own_options(
    reward: str, function: Callable[..., Any], options: Mapping[str, Any], *taken: str
) -> Mapping[str, Any]:
    """The options, if none of the reward's is called as an argument of ours. Raises: UsageError."""
    if clash := sorted(set(taken) & set(options_model(function).model_fields)):
        raise UsageError(f"reward '{reward}' has an option '{clash[0]}', which is an argument here: use a recipe")
    return options


def _bound(reward: str, options: Mapping[str, Any], deadline_s: float | None, pool: WorkerPool) -> BoundReward:
    default = traits_of(REWARDS.load(reward)).deadline_s
    return BoundReward(reward, options, default if deadline_s is None else deadline_s, pool)


def _input(row: RewardInput | Mapping[str, Any], number: int) -> RewardInput:
    if isinstance(row, RewardInput):
        return row
    if not isinstance(row, Mapping):
        raise UsageError(f"row {number}: should be a mapping or a RewardInput, not {type(row).__name__}")
    try:
        return RewardInput.of_row(row)
    except ValueError as error:
        raise UsageError(f"row {number}: {error}") from error


async def _scores(bound: BoundReward, rows: Sequence[RewardInput]) -> list[TermScore]:
    return list(await asyncio.gather(*(bound(row) for row in rows)))


def _text(completion: str | Sequence[Mapping[str, Any]]) -> str:
    """The text of a completion, or of the assistant's last message in it."""
    if isinstance(completion, str):
        return completion
    contents = [message.get("content") for message in completion if message.get("role") == "assistant"]
    content = (contents or [""])[-1] or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def _sample(text: str, token_ids: Sequence[int]) -> Sample:
    """The tokens of a response, for rewards that count them; TRL provides nothing else."""
    count = len(token_ids)
    return Sample("", 0, tuple(token_ids), (1,) * count, (math.nan,) * count, 0, "stop", text)


def _messages(prompt: str | Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    return ({"role": "user", "content": prompt},) if isinstance(prompt, str) else tuple(prompt)


def _images(rows: Mapping[str, Sequence[Any]], i: int) -> tuple[Any, ...]:
    if "images" in rows:
        return tuple(rows["images"][i] or ())
    image = rows["image"][i] if "image" in rows else None
    return () if image is None else (image,)
