"""From items to scores when replicas fail, with backends that fail as they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from morl.recipe.schema.objective_section import ObjectiveSpec
from morl.rewards.reward_input import RewardInput
from morl.service.limits import Limits
from morl.service.prometheus import Metrics
from morl.service.refusal import Refusal
from morl.service.router import CALL_ITEMS, MAX_DEATHS, ReplicaLostError, Router
from morl.service.wire import Item
from morl.types import Score, TermScore

LENGTH = {"use": "length", "maximum": 3}


def objective(*rewards: dict[str, Any], **more: Any) -> ObjectiveSpec:
    data = {"source": "jsonl", "path": "none.jsonl"}
    return ObjectiveSpec.model_validate({"share": 1, "data": data, "prompt": "x", "rewards": list(rewards), **more})


class Recipe:
    """As much of one as the router reads."""

    def __init__(self, **objectives: ObjectiveSpec) -> None:
        self.objectives = objectives


class Backend:
    """Scores a response by the number in it; what else it does, the response says, too."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []
        self.working = 0
        self.deaths = 0
        self.dying = False

    async def score(self, items: Sequence[RewardInput]) -> list[TermScore]:
        texts = [item.response for item in items]
        self.calls.append(texts)
        self.working += 1
        deaths = self.deaths
        try:
            if "lost once" in texts and len(self.calls) == 1:
                raise ReplicaLostError("as asked")
            if "deadly" in texts:
                self.dying = True
            if "deadly" in texts or "beside" in texts:
                await asyncio.sleep(0.002)
            if "deadly" in texts:
                self.dying = False
                self.deaths += 1
                raise ReplicaLostError("as asked")
            if self.dying or deaths < self.deaths:  # all calls are with one replica
                raise ReplicaLostError("as another asked")
            if "refused" in texts:
                raise Refusal(500, "reward_failed", "as asked")
            if "for ever" in texts:
                await asyncio.Event().wait()
            await asyncio.sleep(0.001)
        finally:
            self.working -= 1
        return [TermScore(float(text) if text[0].isdigit() else 0.0, "ok") for text in texts]


def make(limits: Limits | None = None, **objectives: ObjectiveSpec) -> tuple[Router, Backend]:
    objectives = objectives or {"o": objective(LENGTH)}
    router = Router(Recipe(**objectives), limits or Limits(), Metrics(objectives))
    backend = Backend()
    router.backends.update(dict.fromkeys(router.rewards, backend))
    return router, backend


def items(*responses: str, objective: str = "o") -> list[Item]:
    return [Item(objective=objective, response=response) for response in responses]


def score(router: Router, asked: Sequence[Item]) -> list[Score]:
    return asyncio.run(router.score(asked))


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("morl.service.router.FIRST_PAUSE_S", 0.001)


def test_a_large_request_is_spread_over_calls_and_keeps_its_order() -> None:
    router, backend = make()
    told = score(router, items(*[str(i / 1000) for i in range(200)]))
    assert [one.value for one in told] == [i / 1000 for i in range(200)]
    assert max(map(len, backend.calls)) == CALL_ITEMS


def test_terms_with_the_same_reward_and_options_are_asked_once() -> None:
    same = objective(LENGTH, {**LENGTH, "name": "again", "minimum": 0})
    other = objective({**LENGTH, "maximum": 4})
    router, backend = make(same=same, other=other)
    assert len(router.rewards) == 2
    (told,) = score(router, items("0.5", objective="same"))
    assert [term.value for term in told.terms.values()] == [0.5, 0.5]
    assert len(backend.calls) == 1


def test_what_a_lost_replica_was_asked_is_asked_again() -> None:
    router, backend = make()
    assert [one.value for one in score(router, items("lost once", "1"))] == [0.0, 1.0]
    assert backend.calls == [["lost once", "1"]] * 2


def test_who_kills_replicas_gets_no_score_and_the_others_theirs() -> None:
    router, backend = make()
    told = score(router, items("1", "deadly", "0.5"))
    assert [one.value for one in told] == [1.0, None, 0.5]
    assert told[1].terms["length"].status == "error"
    assert sum("deadly" in call for call in backend.calls) == MAX_DEATHS


def test_who_was_beside_it_gets_its_score() -> None:
    router, _ = make()

    async def run() -> list[list[Score]]:
        return await asyncio.gather(*(router.score(items(text)) for text in ["deadly", "beside", "beside", "1"]))

    assert [told[0].value for told in asyncio.run(run())] == [None, 0.0, 0.0, 1.0]


def test_a_term_that_must_not_fail_leaves_no_score() -> None:
    router, _ = make(o=objective({**LENGTH, "on_error": "fail"}), z=objective({**LENGTH, "on_error": "zero"}))
    assert score(router, items("deadly"))[0].value is None
    assert score(router, items("deadly", objective="z"))[0].value == 0.0


def test_a_value_outside_its_range_is_an_error_as_in_a_run() -> None:
    (told,) = score(make()[0], items("7"))
    assert told.value is None
    assert "outside [0, 1]" in told.terms["length"].detail


def refusal_of(router: Router, asked: Sequence[Item]) -> Refusal:
    with pytest.raises(Refusal) as caught:
        score(router, asked)
    return caught.value


def test_what_takes_too_long_is_given_up_and_ended() -> None:
    router, backend = make(Limits(timeout_s=0.05))
    assert refusal_of(router, items(*["for ever"] * 100)).status_code == 504
    assert backend.working == 0
    assert score(router, items("1"))[0].value == 1.0  # nothing is left waiting


def test_a_reward_that_cannot_work_is_told() -> None:
    router, backend = make()
    refusal = refusal_of(router, items(*["for ever"] * CALL_ITEMS, "refused"))
    assert (refusal.status_code, refusal.code) == (500, "reward_failed")
    assert backend.working == 0


def test_too_much_at_once_is_turned_away_and_told_when_to_come_back() -> None:
    limits = Limits(items=2, timeout_s=0.2)
    router, _ = make(limits)

    async def ask() -> list[Score | BaseException]:
        many = [router.score(items("for ever", "for ever")) for _ in range(limits.waiting_items // 2 + 1)]
        return await asyncio.gather(*many, return_exceptions=True)

    statuses = [error.status_code for error in asyncio.run(ask()) if isinstance(error, Refusal)]
    assert sorted(statuses) == [503] + [504] * (limits.waiting_items // 2)
    overloaded = Refusal(503, "overloaded", "")
    assert overloaded.headers == {"Retry-After": "1"}
