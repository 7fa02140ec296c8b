"""What a reward is given, and what its helpers get of it and of its options."""

from __future__ import annotations

import json
import pickle
from typing import Any, get_args

import pytest

from morl.registry import REWARDS, check_options
from morl.rewards.parsing.coordinates import CoordinateFrames
from morl.rewards.parsing.image_size import Resize
from morl.rewards.reward import Example
from morl.rewards.reward_input import ARGUMENTS, RewardInput, call_with
from morl.service.wire import TermResult
from morl.types import Prompt, Sample, Score, Status, TermScore

PROMPT = Prompt("o/0", "o", ({"role": "user", "content": "?"},), ("a.png",), "4", {"row": 1})
SAMPLE = Sample("o/0", 0, (5,), (1,), (-0.5,), 3, "stop", "five")


def test_a_reward_is_given_the_prompt_and_the_answer() -> None:
    given = RewardInput.of(PROMPT, SAMPLE.text, SAMPLE)
    values = ["five", "4", PROMPT.messages, ("a.png",), {"row": 1}, SAMPLE]
    assert given.arguments(ARGUMENTS) == dict(zip(ARGUMENTS, values, strict=True))
    assert given.arguments(["meta", "response"]) == {"meta": {"row": 1}, "response": "five"}


def test_what_is_not_asked_for_does_not_travel() -> None:
    given = RewardInput.of(PROMPT, SAMPLE.text, SAMPLE).only(["response", "meta"])
    assert given == RewardInput("five", meta={"row": 1})
    assert pickle.loads(pickle.dumps(given)) == given


def test_an_example_is_an_input_of_its_own() -> None:
    example = Example("a", "b", 1.0, meta={"unit": "m"})
    given = RewardInput.of_example(example)
    assert given == RewardInput("a", "b", meta={"unit": "m"})
    assert given.meta is not example.meta


def test_a_helper_gets_what_it_names() -> None:
    def helper(first: str, media: Any, *, unit: str = "m", **others: Any) -> Any:
        return first, media, unit, others

    given = RewardInput.of(PROMPT, "five")
    assert call_with(helper, given, {"unit": "km", "strict": True}, "x") == ("x", ("a.png",), "km", {"strict": True})
    assert call_with(lambda gold, *, unit="m": (gold, unit), given, {"strict": True}) == ("4", "m")
    with pytest.raises(TypeError, match="colour"):
        call_with(lambda colour: colour, given, {"colour": "red"})


@pytest.mark.parametrize("name", ["box", "point", "gui_action"])
def test_coordinate_frames_are_read_off_a_rewards_options(name: str) -> None:
    function = REWARDS.load(name)
    assert CoordinateFrames.of(check_options(function, {})) == CoordinateFrames.of({}) == CoordinateFrames()
    written = {"frame": "absolute_resized", "gold_frame": "relative_1", "gold_format": "xywh", "size_from": ["w", "h"]}
    limits = {"factor": 32, "min_pixels": 1024, "max_pixels": 4096}
    frames = CoordinateFrames("absolute_resized", "relative_1", "xywh", ["w", "h"], Resize(32, 1024, 4096))
    assert CoordinateFrames.of(check_options(function, {**written, **limits})) == frames


def test_coordinates_go_to_the_gold_and_back() -> None:
    frames = CoordinateFrames("relative_1000", "absolute", size_from="size")
    row: tuple[Any, Any] = ((), {"size": [640, 480]})
    assert frames.into_gold(*row)([500, 500]) == (320.0, 240.0)
    assert frames.out_of_gold(*row)([320, 240]) == (500.0, 500.0)
    assert frames.into_parts("gold", *row)([320, 120]) == (0.5, 0.25)
    assert frames.into_parts("answer", *row)([500, 250]) == (0.5, 0.25)
    with pytest.raises(ValueError, match="size_from"):
        frames.into_gold((), {})


@pytest.mark.parametrize("status", get_args(Status))
def test_a_score_as_json_is_what_the_service_declares(status: Status) -> None:
    term = TermScore(None, status, "why", 0.25, entered=0.0, weight=2.0)
    told = Score(0.5, {"t": term}).as_json()
    assert list(told["terms"]["t"]) == list(TermResult.model_fields)
    expected = '{"value": 0.5, "terms": {"t": {"value": null, "status": "%s", "detail": "why", "seconds": 0.25}}}'
    assert json.dumps(told) == expected % status
    assert term.as_json("detail", "value") == {"detail": "why", "value": None}
