"""From prompts to groups: sample, decode, and score each response as soon as it is complete."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Protocol

from morl.errors import RunError, StaleWeightsError
from morl.rollout.engine import Completion, Engine, Request, Sampling
from morl.types import Encoded, Group, Prompt, Sample, Score

Scored = tuple[Sample, "asyncio.Task[Score]"]


class Codec(Protocol):
    """Converts prompts to tokens and tokens to text."""

    def encode(self, prompt: Prompt) -> Encoded:
        """The prompt as the model receives it."""

    def decode(self, ids: Sequence[int]) -> str:
        """The response's text, without special tokens."""


@dataclass(frozen=True, slots=True)
class Rollout:
    """The groups of one collection, and their cost."""

    groups: list[Group]
    """In the order of the prompts; samples are ordered by index."""
    generated_tokens: int
    generate_s: float
    """Seconds from the first request to the last completion."""
    reward_wait_s: float
    """Seconds from the last completion to the last score."""


class Collector:
    """Samples a policy and has its responses scored."""

    def __init__(
        self, pool: Engine, codec: Codec, score: Callable[[Prompt, Sample], Awaitable[Score]], *, seed: int
    ) -> None:
        self._pool = pool
        self._codec = codec
        self._score = score
        self._seed = seed

    async def collect(
        self, prompts: Sequence[Prompt], *, key: str, samples: int, sampling: Sampling, version: int, first: int = 0
    ) -> Rollout:
        """`samples` scored responses to each prompt.

        `key` names the collection ("step-12"). Together with the collector's seed and the prompt's position,
        counted from `first`, it determines the random stream: the same call draws the same responses.

        Raises: StaleWeightsError when a response was written by a version other than
        `version`; RunError when an engine loses or repeats one; any error of `score`.
        """
        requests = [
            Request(
                id=f"{key}/{i}",
                prompt=encoded,
                samples=samples,
                seed=request_seed(self._seed, key, i),
                sampling=sampling,
            )
            for i, encoded in enumerate(map(self._codec.encode, prompts), first)
        ]
        position = {request.id: i for i, request in enumerate(requests)}
        scored: list[dict[int, Scored]] = [{} for _ in prompts]
        begin = end = time.perf_counter()
        try:
            # A score that raises cancels the generation still in progress.
            async with asyncio.TaskGroup() as scoring, aclosing(self._pool.generate(requests)) as landing:
                async for completion in landing:
                    end = time.perf_counter()
                    i = position[completion.request_id]
                    if completion.policy_version != version:
                        raise StaleWeightsError(
                            f"{completion.request_id} was written by policy version {completion.policy_version}; "
                            f"the learner is at {version}"
                        )
                    if completion.index in scored[i]:
                        raise RunError(f"the engine returned {completion.request_id}#{completion.index} twice")
                    sample = self._sample(prompts[i], completion, requests[i].prompt.opened)
                    task = scoring.create_task(self._scored(prompts[i], sample))
                    scored[i][completion.index] = (sample, task)
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
        done = time.perf_counter()
        for request, by_index in zip(requests, scored, strict=True):
            if len(by_index) != samples:
                raise RunError(f"the engine returned {len(by_index)} completions of {request.id}, not {samples}")
        groups = [_group(*parts) for parts in zip(prompts, requests, scored, strict=True)]
        tokens = sum(sample.length for group in groups for sample in group.samples_G)
        return Rollout(groups, tokens, end - begin, done - end)

    async def _scored(self, prompt: Prompt, sample: Sample) -> Score:
        return await self._score(prompt, sample)

    def _sample(self, prompt: Prompt, completion: Completion, opened: str) -> Sample:
        return Sample(
            prompt_id=prompt.id,
            index=completion.index,
            token_ids_T=completion.token_ids_T,
            loss_mask_T=(1,) * len(completion.token_ids_T),
            logprobs_T=completion.logprobs_T,
            policy_version=completion.policy_version,
            finish_reason=completion.finish_reason,
            text=opened + self._codec.decode(completion.token_ids_T),
        )


def request_seed(seed: int, key: str, index: int) -> int:
    """A seed determined by these three values, far from all other seeds."""
    digest = hashlib.blake2b(f"{seed}/{key}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 3


def _group(prompt: Prompt, request: Request, by_index: dict[int, Scored]) -> Group:
    pairs = [by_index[index] for index in range(request.samples)]
    return Group(
        prompt=prompt,
        encoded=replace(request.prompt, pixels=None),
        samples_G=tuple(sample for sample, _ in pairs),
        scores_G=tuple(task.result() for _, task in pairs),
    )
