"""Rewards for other trainers: as functions that TRL's `GRPOTrainer` and verl call."""

from __future__ import annotations

import asyncio
import functools
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from morl.error_messages import did_you_mean
from morl.errors import DataError, UsageError
from morl.event_loop import run_coroutine
from morl.registry import REWARDS
from morl.rewards.bound_reward import BoundReward
from morl.rewards.pool.worker_pool import WorkerPool
from morl.rewards.reward_input import RewardInput
from morl.traits import is_async, needs_gold, traits_of
from morl.types import Sample, TermScore

TrlReward = Callable[..., list[float | None] | Awaitable[list[float | None]]]
VerlReward = Callable[..., dict[str, Any]]


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
    inputs = [_input(row, number) for number, row in enumerate(rows)]
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
    bound = _bound(reward, options, deadline_s, WorkerPool())

    def inputs(prompts: Sequence[Any], completions: Sequence[Any], columns: Mapping[str, Any]) -> list[RewardInput]:
        rows = {name: values for name, values in columns.items() if isinstance(values, list)}
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
        return [result.value for result in await _scores(bound, inputs(prompts, completions, columns))]

    def scored_blocking(prompts: Sequence[Any], completions: Sequence[Any], **columns: Any) -> list[float | None]:
        return run_coroutine(scored(prompts, completions, **columns))

    reward_function: TrlReward = scored if is_async(function) else scored_blocking
    reward_function.__name__ = reward  # the name in TRL's logs
    return reward_function


def as_verl(reward: str, *, deadline_s: float | None = None, **options: Any) -> VerlReward:
    """A function for verl's `custom_reward_function`.

    It takes `(data_source, solution_str, ground_truth, extra_info)` and returns a dictionary of `score`, `no_score`,
    `status` and `detail`. verl cannot express a missing score: `score` is then 0 and `no_score` 1.

    Raises: UsageError for an unknown reward or a wrong option.
    """
    bound = _bound(reward, options, deadline_s, WorkerPool(workers=1))

    @functools.wraps(REWARDS.load(reward), assigned=("__name__", "__doc__"), updated=())
    def compute_score(
        data_source: str, solution_str: str, ground_truth: Any, extra_info: Mapping[str, Any] | None = None, **_: Any
    ) -> dict[str, Any]:
        row = RewardInput(solution_str, ground_truth, meta={"data_source": data_source, **(extra_info or {})})
        (result,) = run_coroutine(_scores(bound, [row]))
        no_score = float(result.value is None)
        return {"score": result.value or 0.0, "no_score": no_score, **result.as_json("status", "detail")}

    return compute_score


def _bound(reward: str, options: Mapping[str, Any], deadline_s: float | None, runner: WorkerPool) -> BoundReward:
    return BoundReward(reward, options, deadline_s or traits_of(REWARDS.load(reward)).deadline_s, runner)


def _input(row: RewardInput | Mapping[str, Any], number: int) -> RewardInput:
    if isinstance(row, RewardInput):
        return row
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
    contents = [message["content"] for message in completion if message.get("role") == "assistant"]
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
        return tuple(rows["images"][i])
    return (rows["image"][i],) if "image" in rows else ()
