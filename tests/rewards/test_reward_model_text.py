"""What a learned reward is shown of a response; a stand-in takes the model's place."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, cast

import PIL.Image

from morl.media.items import Image
from morl.rewards.models.reward_model import ServedModel, reward_model


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


def test_reference_answers_are_remembered_by_what_the_images_show() -> None:
    class Counting(ServedModel):
        asked = 0

        async def scores(self, questions: Sequence[Any], answers: Sequence[str]) -> list[float | str]:
            self.asked += len(answers)
            return [0.0] * len(answers)

    options = {"dtype": "float32", "max_tokens": 8, "tokens_per_batch": 8, "replicas": 1}
    model = Counting(path="unused", center="reference", temperature=1.0, **options)
    message = {"role": "user", "content": "?"}
    for shade in (0, 1, 0, 1, 2):  # decoded anew each time, as rows are
        image = Image.of(PIL.Image.new("RGB", (28, 28), (shade, 0, 0)))
        asyncio.run(model.reference_scores([((message,), (image,))], ["a"]))
    assert model.asked == 3
