"""Actions on a screen: every gold can be written, more guesses pay no more, and any text is read."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from morl.rewards.parsing.gui_formats import MAX_ACTIONS, read_actions
from morl.rewards.parsing.gui_steps import Action, Unread, place, to_action
from morl.rewards.reward import Verdict
from morl.rewards.verifiers.gui_action import gui_action
from morl.traits import traits_of

BUTTON = {"action": "click", "bbox": [100, 200, 180, 240]}
GOLDS: list[Any] = [
    BUTTON,
    {"action_type": "click", "x": 1027, "y": 209},
    {"action": "double_click", "coordinate": [7, 8]},
    "right_single(start_box='(1,2)')",
    {"action": "click", "bbox": [[0, 0, 0, 5], [100, 200, 180, 240]]},
    {"action": "scroll", "direction": "down", "scroll_distance": 30},
    {"action": "swipe", "coordinate": [5, 9], "coordinate2": [5, 1]},
    {"action": "input", "text": "zürich  HB", "start_point": [3, 4]},
    {"action": "drag", "start_point": [1, 2], "end_point": [3, 4]},
    {"action": "drag", "bbox": [0, 0, 2, 2], "end_bbox": [8, 8, 9, 9]},
    {"action": "left_click_drag", "coordinate": [3, 4]},
    {"action": "open", "app": "PocketBook"},
    {"action": "press", "keys": ["ctrl", "c"]},
    {"action_type": "navigate_home"},
    {"action": "finished", "status": "success"},
    {"action": "finished", "status": "The cart is empty."},
    {"action": "finished"},
    {"action": "longpress", "start_point": [3, 4], "radius": 2},
    {"action": "hover"},
    {"action": "hover", "start_point": [3, 4]},
    {"action": "select", "text": "02 30 PM"},
    {"operation": "SELECT", "value": "02 30 PM", "bbox": [[105.0, 346.0, 345.0, 400.0]]},
    {"action": "wait"},
    {"action": "appswitch", "app": "Maps"},
    {"action": "appswitch"},
    "PRESS_RECENT",
    '{"action": "click", "bbox": [1, 2, 3, 4]}',
    "{'action_type': 'input_text', 'text': 'it is'}",
    "thoughts:\nopen it\nactions:\nOPEN_APP [PocketBook]",
    [{"action": "wait"}, BUTTON, {"action": "press", "keys": ["enter"]}],
    "wait()\nhover()",
    ["WAIT", {"action": "hover"}],
]


def value(response: str, gold: Any, **options: Any) -> float | None:
    return gui_action(response, gold, **options).value


def written(gold: Any, **options: Any) -> str:
    answer = traits_of(gui_action).answer
    assert answer is not None
    return answer(gold, **options)


def test_the_examples_name_every_kind_of_action_right_and_wrong() -> None:
    kinds = {"click", "scroll", "input", "drag", "open", "press", "finished", "longpress", "hover", "select", "wait"}
    kinds |= {"appswitch"}
    for value in (1.0, 0.0):
        examples = [example for example in traits_of(gui_action).examples if example.value == value]
        named = " ".join(f"{example.response} {example.gold}" for example in examples).lower()
        assert {kind for kind in kinds if kind in named} == kinds


@pytest.mark.parametrize("gold", GOLDS, ids=range(len(GOLDS)))
def test_a_gold_written_as_an_answer_scores_one_and_every_other_type_nothing(gold: Any) -> None:
    response = written(gold)
    assert value(response, gold) == 1.0
    assert value(f"<think>{written({'action': 'wait'})}</think>\n```json\n{response}\n```", gold) == 1.0
    kinds = {step["action"] for step in json.loads(f"[{response}]") if isinstance(step, dict)}
    for other in GOLDS:
        theirs = json.loads(written(other))
        if isinstance(theirs, dict) and isinstance(json.loads(response), dict) and theirs["action"] not in kinds:
            assert value(written(other), gold) == 0.0


@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(0, 40))
def test_a_point_is_right_within_the_radius(across: int, down: int, radius: int) -> None:
    response = f'{{"action": "click", "start_point": [{500 + across}, {500 + down}]}}'
    near = across**2 + down**2 <= radius**2
    assert value(response, {"action": "click", "start_point": [500, 500]}, radius=radius) == float(near)
    assert value(response, {"action": "click", "x": 500, "y": 500, "radius": radius}, radius=1000) == float(near)


STEPS = [{"action": "wait"}, {"action": "hover"}, {"action": "press", "keys": ["enter"]}]


@given(
    st.lists(st.sampled_from(STEPS), min_size=1, max_size=5), st.lists(st.sampled_from(STEPS), min_size=1, max_size=5)
)
def test_steps_are_compared_in_order_and_others_cost(gold: list[Any], answer: list[Any]) -> None:
    right = sum(one == other for one, other in zip(gold, answer, strict=False))
    assert value(json.dumps(answer), gold) == pytest.approx(right / max(len(gold), len(answer)))


@given(st.lists(st.sampled_from(STEPS), min_size=1, max_size=6))
def test_more_guesses_pay_no_more_than_one(answer: list[Any]) -> None:
    for form in ("[{}]", "{}"):
        response = form.format((", " if form == "[{}]" else " or ").join(map(json.dumps, answer)))
        paid = sum(value(response, gold) or 0.0 for gold in STEPS)
        assert paid <= 1.0


HACKS = [
    json.dumps([json.loads(written(gold)) for gold in GOLDS if isinstance(gold, dict)]),
    "\n".join(written(gold) for gold in GOLDS if isinstance(gold, dict)),
    "<|image_pad|>" * 100,
]


@pytest.mark.parametrize("response", HACKS, ids=range(len(HACKS)))
def test_a_cheap_text_pays_nothing(response: str) -> None:
    assert value(response, BUTTON) in (0.0, pytest.approx(1 / sum(isinstance(gold, dict) for gold in GOLDS)))
    for gold in ({"action": "input", "text": "red shoes"}, {"action": "press", "keys": ["enter"]}, "SCROLL [LEFT]"):
        assert value(response, gold) == 0.0


def verdict_holds(verdict: Verdict) -> bool:
    if verdict.value is None:
        return verdict.status == "bad_gold" and bool(verdict.detail)
    return 0.0 <= verdict.value <= 1.0 and verdict.status in ("ok", "no_answer")


names = st.sampled_from(
    ["click", "scroll", "input", "drag", "press", "open", "finished", "hover", "wait", "swipe", "tap", "x"]
)
keys = st.sampled_from(
    "action action_type operation actions name arguments start_point end_point coordinate bbox x y radius text keys "  # noqa: SIM905
    "direction distance pixels app status button clicks".split()
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | names | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=8,
)
objects = (
    st.builds(lambda name, rest: {**rest, "action": name}, names, st.dictionaries(keys, values, max_size=4)) | values
)


@settings(max_examples=300, deadline=None)
@given(objects, objects)
def test_any_object_gets_a_verdict(answer: Any, gold: Any) -> None:
    assert verdict_holds(gui_action(json.dumps(answer), gold))
    assert verdict_holds(gui_action(repr(answer), gold, check_input_point=True, distance_within=1))
    assert verdict_holds(gui_action(str(answer), [gold, BUTTON], any_click=True, radius=3, text_metric="f1"))


def test_a_plain_click_is_scored_at_once() -> None:
    response = '{"action": "click", "start_point": [140, 220]}'
    seconds = []
    for _ in range(5):
        begun = time.perf_counter()
        for _ in range(100):
            gui_action(response, BUTTON)
        seconds.append((time.perf_counter() - begun) / 100)
    assert min(seconds) < 500e-6


WAIT = '{"action": "wait"}'


@pytest.mark.parametrize("form", ["[{}]", "{}"])
def test_too_many_actions_are_none(form: str) -> None:
    assert len(read_actions(form.format(", ".join([WAIT] * MAX_ACTIONS)))) == MAX_ACTIONS
    with pytest.raises(ValueError, match="more than"):
        read_actions(form.format(", ".join([WAIT] * (MAX_ACTIONS + 1))))


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_a_point_survives_being_written(x: float, y: float) -> None:
    for form in ("({!r}, {!r})", "<point>{!r} {!r}</point>", "<|box_start|>({!r},{!r})<|box_end|>", "[[{!r},{!r}]]"):
        assert place(form.format(x, y)) == ((x, y), None)
    assert place([x, y]) == ((x, y), None)
    assert to_action("click", {"x": x, "y": y}) == to_action("tap", {"start_point": [x, y]})


MARKS = (
    "[", "]", "{", "}", ", ", "\n", "'", '"', "\\", "(", ")", "=", "; ", " or ", "```json\n", "1e999", "\ud800",
    "\u202e", "\uff11",
)  # fmt: skip
PARTS = (
    WAIT, '{"action": ', '"click"', "Action: ", "click(", "start_box=", "'(1,2)'", "TYPE [", "SCROLL [UP]", "CLICK ",
    "<point>", "</point>", "<tool_call>", "{'action': ", "wait()", "DRAG ", "press_", "content=",
)  # fmt: skip
pieces = st.sampled_from((*MARKS, *PARTS))


@settings(max_examples=300, deadline=None)
@given(st.lists(pieces, max_size=15).map("".join) | st.text(max_size=80))
@example("{'action': 'wait', 'a': (}")
@example("a(=)")
def test_any_text_has_actions_or_none(text: str) -> None:
    try:
        steps = read_actions(text)
    except ValueError:
        return
    assert 0 < len(steps) <= MAX_ACTIONS
    assert all(isinstance(step, Action | Unread) for step in steps)


LONG = (
    "9", "[", '{"a":', '{"', "type(content='", "type(content='\n", "TYPE [\n", "TYPE [a", "Action: ", "{'a':",
    "{'a':1,", "{'a':'", "click(", "click(\n", "click()\n", "WAIT\n", "wait();", " \n", "\na(b='',", '["",',
    "CLICK 1 2 ", "DRAG <point>", "\\", "\na(b=[[1", "\na(b='' ", "{'a':(", "<|image_pad|>", f"{WAIT} or ",
    f"{WAIT}\n", "actions:\n\n", "- 1. ", "a(b='x')'", '{"a":1,', '{"a":"\\', "action: a", ", ", "drag(1,2,",
    "drag((1,2),", "press(['a',", "# a\n", "time.sleep(1)\n", "a <point>", 'TYPE "', "SCROLL UP ",
)  # fmt: skip


@pytest.mark.parametrize("pump", LONG, ids=range(len(LONG)))
@pytest.mark.timeout(10)
def test_a_megabyte_is_read_at_once(pump: str) -> None:
    for text in (pump * ((1 << 20) // len(pump)), "Action: type(content='" + pump * ((1 << 20) // len(pump))):
        with suppress(ValueError):
            assert read_actions(text)
