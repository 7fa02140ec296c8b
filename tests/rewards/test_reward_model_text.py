"""What a learned reward is shown of a response; a stand-in takes the model's place."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from morl.rewards.reward_model import ServedModel, reward_model


class Fake:
    """Scores every answer 0, and keeps what it was shown."""

    center = 0.0

    def __init__(self) -> None:
        self.shown: list[str] = []

    async def scores(self, questions: Sequence[Any], answers: Sequence[str]) -> list[float | str]:
        self.shown += answers
        return [0.0] * len(answers)

    def observe(self, scores: Sequence[float]) -> None:
        pass


def test_only_what_follows_the_thinking_is_shown_and_nothing_visible_is_no_answer() -> None:
    model = Fake()
    responses = [
        "<think>good</think>Paris",
        "<think>good",
        "",
        "<think>good</think>\u200b\u2060",
        "<think>a</think>b</think>c",
    ]
    told = asyncio.run(reward_model(responses, [()] * 5, [()] * 5, cast(ServedModel, model), path="unused", center=0.0))
    assert [verdict.value for verdict in told] == [0.5, 0.0, 0.0, 0.0, 0.5]
    assert [verdict.status for verdict in told] == ["ok", "no_answer", "no_answer", "no_answer", "ok"]
    assert model.shown == ["Paris", "c"]
