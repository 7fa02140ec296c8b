"""From prompts to groups on a real engine; a fake plays engine failures that a real one does not show."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from morl.errors import RunError, StaleWeightsError
from morl.rollout.collector import Collector
from morl.rollout.engine import Completion, Request, Sampling
from morl.types import Encoded, Prompt, Sample, Score

PROMPTS = [Prompt(f"o/{i}", "o", ({"role": "user", "content": chr(65 + i) * (i + 1)},)) for i in range(5)]
SAMPLING = Sampling(1.0, 12, stop_token_ids=tuple(range(40, 80)))


class Bytes:
    def encode(self, prompt: Prompt) -> Encoded:
        return Encoded(tuple(prompt.messages[0]["content"].encode()))

    def decode(self, ids: Sequence[int]) -> str:
        return ",".join(map(str, ids))


async def by_length(prompt: Prompt, sample: Sample) -> Score:
    await asyncio.sleep(0)
    return Score(sample.length / 12)


def collect(engine, run, score=by_length, key="step-1", version=0, seed=3):
    collector = Collector(engine, Bytes(), score, seed=seed)
    return run(collector.collect(PROMPTS, key=key, samples=4, sampling=SAMPLING, version=version))


def test_groups_come_in_order_and_whole(hf, run):
    rollout = collect(hf, run)
    assert [group.prompt for group in rollout.groups] == PROMPTS
    for group in rollout.groups:
        assert group.encoded.token_ids_T == Bytes().encode(group.prompt).token_ids_T
        assert [sample.index for sample in group.samples_G] == [0, 1, 2, 3]
        for sample, score in zip(group.samples_G, group.scores_G, strict=True):
            assert sample.prompt_id == group.prompt.id
            assert sample.text == Bytes().decode(sample.token_ids_T)
            assert sample.loss_mask_T == (1,) * len(sample.token_ids_T)
            assert score.value == sample.length / 12
    tokens = sum(len(sample.token_ids_T) for group in rollout.groups for sample in group.samples_G)
    assert rollout.generated_tokens == tokens


def test_seed_key_and_place_decide_the_samples(hf, run):
    def drawn(**changes):
        return [[s.token_ids_T for s in group.samples_G] for group in collect(hf, run, **changes).groups]

    assert drawn() == drawn()
    assert drawn() != drawn(key="step-2")
    assert drawn() != drawn(seed=4)


def test_each_answer_is_scored_as_it_lands(hf, run):
    """Each response is already scored when the next one arrives."""
    landed, scored = [], []

    class Watched:
        async def generate(self, requests):
            async for completion in hf.generate(requests):
                landed.append(completion)
                yield completion
                await asyncio.sleep(0)
                assert len(scored) == len(landed)

    async def note(prompt, sample):
        scored.append(sample)
        return Score(1.0)

    collect(Watched(), run, score=note)
    assert len(scored) == 20


def test_stale_weights_are_noticed(hf, run):
    with pytest.raises(StaleWeightsError, match="version 0; the learner is at 1"):
        collect(hf, run, version=1)


def test_a_failing_reward_ends_the_collection_and_leaves_the_engine_free(hf, run):
    async def fail(prompt: Prompt, sample: Sample) -> Score:
        raise RunError("the reward is broken")

    with pytest.raises(RunError, match="the reward is broken"):
        collect(hf, run, score=fail)
    assert len(collect(hf, run).groups) == 5


class Careless:
    """Yields sample `index` of each request `times[index]` times."""

    def __init__(self, *times: int) -> None:
        self.times = times

    async def generate(self, requests: Sequence[Request]):
        for request in requests:
            for index, times in enumerate(self.times):
                for _ in range(times):
                    yield Completion(request.id, index, (1,), (-1.0,), "stop", 0)


def test_lost_and_doubled_answers_are_noticed(run):
    with pytest.raises(RunError, match=r"step-1/0#2 twice"):
        collect(Careless(1, 1, 2, 1), run)
    with pytest.raises(RunError, match="returned 3 completions of step-1/0, not 4"):
        collect(Careless(1, 1, 1, 0), run)
    assert len(collect(Careless(1, 1, 1, 1), run).groups) == 5


def test_rewards_read_the_tag_that_the_prompt_opened(hf, run):
    class Opening(Bytes):
        def encode(self, prompt: Prompt) -> Encoded:
            return Encoded(super().encode(prompt).token_ids_T, opened="<think>")

    collector = Collector(hf, Opening(), by_length, seed=3)
    rollout = run(collector.collect(PROMPTS[:1], key="step-1", samples=2, sampling=SAMPLING, version=0))
    for sample in rollout.groups[0].samples_G:
        assert sample.text == "<think>" + Bytes().decode(sample.token_ids_T)
