from __future__ import annotations

import pytest

from morl.learner.learning_rate import learning_rate


def rates(schedule: str, warmup: int, total: int) -> list[float]:
    return [
        learning_rate(step, peak=1.0, warmup_steps=warmup, total_steps=total, schedule=schedule)
        for step in range(1, total + 1)
    ]


def test_warmup_rises_in_equal_steps_and_then_stays() -> None:
    assert rates("constant", 3, 6) == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_linear_falls_in_equal_steps_towards_zero() -> None:
    assert rates("linear", 0, 4) == [1.0, 0.75, 0.5, 0.25]


def test_cosine_is_half_way_at_half_time() -> None:
    assert rates("cosine", 0, 4) == pytest.approx([1.0, 0.8535533906, 0.5, 0.1464466094])
