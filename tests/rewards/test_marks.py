"""What rewards point at in an image: gold and answer, in parts of its width and height."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image

from morl.registry import REWARDS, check_options
from morl.rewards.marks import Mark
from morl.rewards.reward_input import RewardInput, call_with
from morl.traits import traits_of

IMAGE = Image.new("RGB", (200, 100))


def marks(use: str, response: str, gold: Any, **options: Any) -> list[Mark]:
    function = REWARDS.load(use)
    draw = traits_of(function).marks
    assert draw is not None
    given = RewardInput(response, gold, media=(IMAGE,))
    return call_with(draw, given, check_options(function, options))


@pytest.mark.parametrize(
    ("use", "response", "gold", "options", "expected"),
    [
        (
            "box",
            '<think>[0, 0, 1, 1]</think>[{"bbox_2d": [20, 10, 100, 50], "label": "cat"}]',
            [0, 0, 500, 500],
            {"gold_frame": "relative_1000"},
            [Mark("gold", (0.0, 0.0, 0.5, 0.5)), Mark("answer", (0.1, 0.1, 0.5, 0.5), "cat")],
        ),
        ("box", "nothing", [[0, 0, 20, 10]], {}, [Mark("gold", (0.0, 0.0, 0.1, 0.1))]),
        (
            "point",
            "(500, 250)",
            [20, 10, 100, 50],
            {"frame": "relative_1000"},
            [Mark("gold", (0.1, 0.1, 0.5, 0.5)), Mark("answer", (0.5, 0.25))],
        ),
        (
            "gui_action",
            '{"action": "click", "start_point": [100, 50]}',
            {"action": "click", "bbox": [0, 0, 20, 10]},
            {},
            [Mark("gold", (0.0, 0.0, 0.1, 0.1), "1 click"), Mark("answer", (0.5, 0.5), "1 click")],
        ),
        ("gui_action", '{"action": "wait"}', {"action": "wait"}, {}, []),
    ],
)
def test_marks_are_what_the_reward_compares(use, response, gold, options, expected) -> None:
    assert marks(use, response, gold, **options) == expected
