"""What a reward keeps for the length of a run: started once, told the steps, saved, restored, ended."""

from __future__ import annotations

import asyncio

import pytest

from morl.errors import RunError, UsageError
from morl.recipe.schema.objective_section import ObjectiveSpec
from morl.rewards import reward
from morl.rewards.resource import Resource
from morl.rewards.scorer import Scorer
from morl.types import Prompt, Sample


class Counter(Resource):
    def __init__(self, *, by: float) -> None:
        self.by = by
        self.told: list[str] = []

    async def start(self) -> None:
        self.told.append("start")
        await asyncio.sleep(0.01)

    def begin_step(self, step: int) -> None:
        self.told.append(f"step {step}")

    def state(self) -> dict[str, object]:
        return {"told": list(self.told)}

    def restore(self, state: dict[str, list[str]]) -> None:
        self.told = [*state["told"], "restored"]

    def close(self) -> None:
        self.told.append("close")


@reward("counting_resource", resource=Counter)
async def counting(response: str, resource: Counter, *, by: float = 0.5) -> float:
    return resource.by


class Broken(Resource):
    async def start(self) -> None:
        raise RunError("the judge does not answer")


@reward("broken_resource", resource=Broken)
async def broken(response: str, resource: Broken) -> float:
    return 1.0


@reward("resource_in_a_worker", resource=Counter)
def in_a_worker(response: str, resource: Counter, *, by: float = 0.5) -> float:
    return 1.0


@reward("resource_unmade")
async def unmade(response: str, resource: Counter) -> float:
    return 1.0


def objective(**term: object) -> dict[str, ObjectiveSpec]:
    data = {"source": "jsonl", "path": "unread.jsonl"}
    return {"o": ObjectiveSpec.model_validate({"share": 1, "data": data, "prompt": "x", "rewards": [term]})}


PROMPT = Prompt("o/0", "o", ({"role": "user", "content": "x"},))
SAMPLE = Sample("o/0", 0, (1,), (1,), (0.0,), 0, "stop", "answer")


def told(scorer: Scorer) -> list[str]:
    return scorer.state()["o/counting_resource"]["told"]


def test_a_resource_is_made_with_the_options_and_started_once():
    async def score_twice() -> list[float | None]:
        scores = await asyncio.gather(*(scorer.score(PROMPT, SAMPLE) for _ in range(2)))
        return [score.value for score in scores]

    with Scorer(objective(use="counting_resource", by=0.25)) as scorer:
        assert asyncio.run(score_twice()) == [0.25, 0.25]
        assert told(scorer) == ["start"]


def test_a_resource_is_told_the_steps_and_comes_back_from_its_state():
    with Scorer(objective(use="counting_resource")) as first:
        asyncio.run(first.start())
        first.begin_step(1)
        state = first.state()
    with Scorer(objective(use="counting_resource")) as second:
        second.restore(state)
        second.begin_step(2)
        assert told(second) == ["start", "step 1", "restored", "step 2"]
    assert told(second)[-1] == "close"


def test_a_resource_that_cannot_start_stops_the_run():
    with Scorer(objective(use="broken_resource")) as scorer, pytest.raises(RunError, match="does not answer"):
        asyncio.run(scorer.score(PROMPT, SAMPLE))


@pytest.mark.parametrize(("name", "rule"), [("resource_in_a_worker", "coroutine"), ("resource_unmade", "together")])
def test_a_resource_needs_the_event_loop_and_the_decorator(name, rule):
    with pytest.raises(UsageError, match=rule):
        Scorer(objective(use=name))


def test_what_is_only_measured_is_told_no_steps():
    with Scorer({}, measured=objective(use="counting_resource")) as scorer:
        scorer.begin_step(1)
        asyncio.run(scorer.score(PROMPT, SAMPLE))
        assert scorer.state() == {}
