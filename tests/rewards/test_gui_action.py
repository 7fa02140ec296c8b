"""Is an action on a screen right, and what does a policy get for anything else?"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morl.registry import REWARDS, ValidationError, check_options
from morl.rewards.checks import check_examples
from morl.rewards.pool.runner import Runner
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


def test_examples_hold(runner: Runner) -> None:
    assert check_examples("gui_action", runner) == []
    kinds = {"click", "scroll", "input", "drag", "open", "press", "finished", "longpress", "hover", "select", "wait"}
    for value in (1.0, 0.0):
        named = " ".join(f"{example.response} {example.gold}" for example in _examples() if example.value == value)
        assert {kind for kind in (*kinds, "appswitch") if kind in named.lower()} == {*kinds, "appswitch"}


def _examples() -> Any:
    return traits_of(REWARDS.load("gui_action")).examples


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


def test_a_gold_in_other_units_is_written_in_those_of_the_answer() -> None:
    options = {
        "frame": "absolute_resized",
        "gold_frame": "relative_1",
        "gold_format": "xywh",
        "size_from": ["w", "h"],
        "scroll": "content",
        "gold_scroll": "finger",
        "distance_within": 0.01,
    }
    meta = {"w": 1000, "h": 500}
    golds = [
        {"action": "click", "bbox": [0.5, 0.5, 0.6, 0.6]},
        {"action": "scroll", "direction": "up", "scroll_distance": 0.5},
        {"action": "drag", "start_point": [0.1, 0.2], "end_point": [0.3, 0.4]},
    ]
    for gold in golds:
        assert gui_action(written(gold, meta=meta, **options), gold, (), meta, **options).value == 1.0
        assert gui_action(written(gold), gold, (), meta, **options).value == 0.0
    assert gui_action(written(golds[0]), golds[0], (), {}, **options).status == "bad_gold"
    assert gui_action('{"action": "wait"}', {"action": "wait"}, (), {}, **options).value == 1.0


@pytest.mark.parametrize(("x", "y"), [(100, 200), (180, 240), (100, 240), (180, 200), (140, 220)])
def test_the_edges_of_a_box_are_in_it(x: int, y: int) -> None:
    assert value(f'{{"action": "click", "start_point": [{x}, {y}]}}', BUTTON) == 1.0
    for across, down in ((-100, 0), (100, 0), (0, -60), (0, 60)):
        assert value(f'{{"action": "click", "start_point": [{x + across}, {y + down}]}}', BUTTON) == 0.0


@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(0, 40))
def test_a_point_is_right_within_the_radius(across: int, down: int, radius: int) -> None:
    response = f'{{"action": "click", "start_point": [{500 + across}, {500 + down}]}}'
    near = across**2 + down**2 <= radius**2
    assert value(response, {"action": "click", "start_point": [500, 500]}, radius=radius) == float(near)
    assert value(response, {"action": "click", "x": 500, "y": 500, "radius": radius}, radius=1000) == float(near)


@pytest.mark.parametrize(
    ("frame", "scale"), [("relative_1000", (1000, 1000)), ("relative_1", (1, 1)), ("absolute", (640, 480))]
)
@pytest.mark.parametrize(
    ("gold_frame", "gold_scale"), [("relative_1000", (1000, 1000)), ("relative_1", (1, 1)), ("absolute", (640, 480))]
)
def test_frames_are_converted(frame: Any, scale: Any, gold_frame: Any, gold_scale: Any) -> None:
    gold = {
        "action": "click",
        "bbox": [0.1 * gold_scale[0], 0.2 * gold_scale[1], 0.3 * gold_scale[0], 0.4 * gold_scale[1]],
    }
    for x, y, right in ((0.1, 0.2, True), (0.3, 0.4, True), (0.31, 0.3, False), (0.2, 0.41, False)):
        response = json.dumps({"action": "click", "start_point": [x * scale[0], y * scale[1]]})
        verdict = gui_action(
            response, gold, (), {"size": [640, 480]}, frame=frame, gold_frame=gold_frame, size_from="size"
        )
        assert verdict.value == float(right)


def test_a_size_is_asked_for_only_where_it_is_needed() -> None:
    click = '{"action": "click", "start_point": [500, 500]}'
    assert gui_action(click, BUTTON, frame="relative_1000").status == "bad_gold"
    assert value(click, BUTTON, frame="relative_1000", gold_frame="relative_1000") == 0.0
    for gold in ({"action": "wait"}, {"action": "input", "text": "a", "start_point": [1, 2]}):
        assert value(written(gold), gold, frame="relative_1000") == 1.0
    gold = {"action": "input", "text": "a", "start_point": [1, 2]}
    assert gui_action(written(gold), gold, frame="relative_1000", check_input_point=True).status == "bad_gold"


def test_corner_and_extent() -> None:
    gold = {"operation": "CLICK", "value": "", "bbox": [[534.0, 45.0, 151.0, 22.0]]}
    assert value('{"action": "click", "start_point": [600, 60]}', gold, gold_format="xywh") == 1.0
    assert value('{"action": "click", "start_point": [100, 30]}', gold, gold_format="xywh") == 0.0
    assert gui_action('{"action": "wait"}', gold).status == "bad_gold"


UP_5 = '{"action": "scroll", "direction": "up", "scroll_distance": 5}'
UP_6 = UP_5.replace("5", "6")
UP_7 = {"action": "scroll", "direction": "up", "distance": 7}
RED = {"action": "input", "text": "red shoes"}
INPUT_THERE = {"action": "input", "text": "a", "bbox": [0, 0, 2, 2]}
DRAG = {"action": "drag", "start_point": [1, 2], "end_point": [3, 4]}


@pytest.mark.parametrize(
    ("response", "gold", "options", "expected"),
    [
        ('{"action": "double_click", "start_point": [140, 220]}', BUTTON, {}, 0.0),
        ('{"action": "double_click", "start_point": [140, 220]}', BUTTON, {"any_click": True}, 1.0),
        ('{"action": "right_click", "start_point": [140, 220]}', BUTTON, {}, 0.0),
        ('{"action": "double_click", "start_point": [0, 0]}', BUTTON, {"any_click": True}, 0.0),
        ('{"action": "click", "start_point": [1, 2]}', "left_double(start_box='(1,2)')", {}, 0.0),
        ('{"action": "hover"}', {"action": "hover", "bbox": [0, 0, 9, 9]}, {}, 0.0),
        ("mouse_move(point='<point>5 5</point>')", {"action": "hover", "bbox": [0, 0, 9, 9]}, {}, 1.0),
        ('{"action": "click", "start_point": [8, 8]}', "click(start_box='(0,0,9,9)')", {}, 1.0),
        # Scrolls
        ('{"action": "scroll", "direction": "up"}', {"action_type": "scroll", "direction": "down"}, {}, 0.0),
        ("scroll(direction='up')", {"action_type": "scroll", "direction": "down"}, {"gold_scroll": "content"}, 1.0),
        ("scroll(direction='down')", {"action_type": "scroll", "direction": "down"}, {"scroll": "content"}, 1.0),
        ("swipe(start_box='(5,9)', end_box='(5,1)')", "SCROLL [DOWN]", {"scroll": "content"}, 1.0),
        ("swipe(start_box='(5,9)', end_box='(5,1)')", "SCROLL [UP]", {}, 1.0),
        (UP_5, "SCROLL [UP]", {"distance_within": 1}, 1.0),
        (UP_5, UP_7, {}, 1.0),
        (UP_5, UP_7, {"distance_within": 1}, 0.0),
        (UP_6, UP_7, {"distance_within": 1}, 1.0),
        ('{"action": "scroll", "direction": "up"}', UP_7, {"distance_within": 1}, 0.0),
        # Texts
        (r"type(content='Hello  World\n')", {"action": "input", "text": "hello world"}, {}, 1.0),
        ("TYPE [hello]", {"action": "input", "text": "Hello"}, {"ignore_case": False}, 0.0),
        ("TYPE [\uff28ello\u200b]", {"action": "input", "text": "Hello"}, {}, 1.0),
        ("TYPE [h\u0435llo]", {"action": "input", "text": "hello"}, {}, 0.0),
        ("TYPE [hello.]", {"action": "input", "text": "hello"}, {}, 0.0),
        ("TYPE []", {"action": "input", "text": "hello"}, {"text_metric": "f1"}, 0.0),
        ("TYPE [hello]", {"action": "select", "text": "hello"}, {}, 0.0),
        ("TYPE [08817]", {"operation": "TYPE", "value": "08817", "bbox": []}, {}, 1.0),
        ("TYPE [big red shoes]", {"action": "input", "text": "red shoes"}, {"text_metric": "f1"}, 0.8),
        ("TYPE [big red shoes]", RED, {"text_metric": "f1", "text_threshold": 0.9}, 0.0),
        ("TYPE [a b c d e f g red shoes]", {"action": "input", "text": "red shoes"}, {"text_metric": "f1"}, 0.0),
        ("TYPE [shoes]", {"action": "input", "text": "shoe"}, {"text_metric": "anls"}, 0.8),
        ("TYPE [a]", {"action": "input", "text": "a", "start_point": [1, 1]}, {}, 1.0),
        ("TYPE [a]", {"action": "input", "text": "a", "start_point": [1, 1]}, {"check_input_point": True}, 0.0),
        ("TYPE [a]", {"action": "input", "text": "a"}, {"check_input_point": True}, 1.0),
        ("type(content='a', start_box='(1,1)')", INPUT_THERE, {"check_input_point": True}, 1.0),
        # Drags
        ("drag(start_box='(3,4)', end_box='(1,2)')", DRAG, {}, 0.0),
        ('{"action": "drag", "end_point": [3, 4]}', DRAG, {}, 0.0),
        # Keys
        ("hotkey(key='ctrl')", {"action": "press", "keys": ["ctrl", "c"]}, {}, 0.0),
        ('{"action": "press", "keys": ["Return"]}', "ENTER", {}, 1.0),
        ('{"action": "press", "keys": ["back"]}', {"action_type": "navigate_back"}, {}, 1.0),
        ('{"action": "press", "keys": ["back", "home"]}', {"action_type": "navigate_back"}, {}, 0.0),
        # Applications
        ('{"action": "open", "app": "google_chrome"}', {"action": "open", "app": "Google Chrome"}, {}, 1.0),
        ('{"action": "open", "app": "Chrome Gmail Maps"}', {"action": "open", "app": "Gmail"}, {}, 0.0),
        ('{"action": "open", "app": ""}', {"action": "open", "app": "Gmail"}, {}, 0.0),
        ('{"action": "open", "app": "C"}', {"action": "open", "app": "C++"}, {}, 0.0),
        ('{"action": "appswitch"}', {"action": "appswitch", "app": "Maps"}, {}, 0.0),
        ('{"action": "appswitch", "app": "Maps"}', {"action": "appswitch"}, {}, 1.0),
        ('{"action": "appswitch", "app": "Maps"}', {"action": "appswitch", "app": ""}, {}, 1.0),
        ('{"action": "finished", "status": "success"}', {"action": "finished", "status": ""}, {}, 1.0),
        # Ends
        ("COMPLETE", {"action_type": "status", "goal_status": "successful"}, {}, 1.0),
        ("finished(content='It is done.')", "COMPLETE", {}, 1.0),
        ('{"action": "finished"}', "COMPLETE", {}, 0.0),
        ('{"action": "terminate", "status": "failure"}', "IMPOSSIBLE", {}, 1.0),
        ('{"action": "terminate", "status": "failure"}', "COMPLETE", {}, 0.0),
        ('{"action": "finished", "status": "anything"}', {"action": "finished"}, {}, 1.0),
    ],
)  # fmt: skip
def test_arguments(response: str, gold: Any, options: dict[str, Any], expected: float) -> None:
    assert value(response, gold, **options) == pytest.approx(expected)


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
    "click scroll input drag open press finished longpress hover select wait appswitch",
    json.dumps([json.loads(written(gold)) for gold in GOLDS if isinstance(gold, dict)]),
    "\n".join(written(gold) for gold in GOLDS if isinstance(gold, dict)),
    '{"action": "click", "bbox": [0, 0, 10000, 10000]}',
    '{"action": "click", "start_point": [0, 0, 10000, 10000]}',
    '{"action": "click", "radius": 100000, "start_point": [0, 0]}',
    '{"action": "click", "start_point": [[140, 220], [500, 500]]}',
    '{"action": "click", "start_point": [NaN, NaN]}',
    '{"action": "click", "start_point": [1e308, 1e308]}',
    '{"action": "click", "start_point": [-1e999, 1e999]}',
    '{"action": "click", "start_point": [true, true]}',
    '{"action": ["click", "wait"], "start_point": [140, 220]}',
    '{"action": "click", "start_point": [140, 220], "action": "wait"}',
    '{"action": "", "start_point": [140, 220]}',
    '{"action": "click"}',
    '"{\\"action\\": \\"click\\", \\"start_point\\": [140, 220]}"',
    '<think>{"action": "click", "start_point": [140, 220]}</think>',
    '<think>{"action": "click", "start_point": [140, 220]}',
    '<think></think>\n{"action": "wait"}\n<think>{"action": "click", "start_point": [140, 220]}',
    "__import__('os').system('true')",
    "click(start_box=__import__('os'))",
    "CLICK <point>[[140,220]]</point> or WAIT",
    "140 220",
    "(140, 220)",
    '{"start_point": [140, 220]}',
    '{"action": "\uff43lick", "start_point": [140, 220]}',
    '{"action": "click", "start_point": ["\u0661\u0664\u0660", "\u0662\u0662\u0660"]}',
    "<|image_pad|>" * 100,
]


@pytest.mark.parametrize("response", HACKS, ids=range(len(HACKS)))
def test_a_cheap_text_pays_nothing(response: str) -> None:
    assert value(response, BUTTON) in (0.0, pytest.approx(1 / sum(isinstance(gold, dict) for gold in GOLDS)))
    for gold in ({"action": "input", "text": "red shoes"}, {"action": "press", "keys": ["enter"]}, "SCROLL [LEFT]"):
        assert value(response, gold) == 0.0


@pytest.mark.parametrize(
    "gold",
    [
        None,
        "",
        [],
        {},
        3,
        1.5,
        True,
        b"wait()",
        [None],
        ["wait", 3],
        ["wait()\nhover()"],
        "wait",
        "a button",
        {"action": "fly"},
        {"action": None},
        {"action": "click"},
        {"action": "click", "bbox": []},
        {"action": "click", "bbox": [1, 2, 3]},
        {"action": "click", "bbox": [1, 2, 1, 4]},
        {"action": "click", "bbox": [3, 2, 1, 4]},
        {"action": "click", "bbox": [1, 2, 3, float("nan")]},
        {"action": "click", "bbox": "a box"},
        {"action": "click", "bbox": 5},
        {"action": "click", "start_point": [1, 2], "radius": -1},
        {"action": "click", "start_point": [1, 2], "radius": "wide"},
        {"action": "click", "start_point": [1, None]},
        {"action_type": "click", "element": "the blue button"},
        {"action": "longpress"},
        {"action": "input"},
        {"action": "input", "text": ""},
        {"action": "input", "text": " \u200b\n"},
        {"action": "select", "text": ""},
        {"action": "scroll"},
        {"action": "scroll", "direction": "sideways"},
        {"action": "drag", "start_point": [1, 2]},
        {"action": "press", "keys": []},
        {"action": "open", "app": " "},
        [{"action": "wait"}, {"action": "click"}],
        '{"action": "wait"} or {"action": "hover"}',
    ],
)
def test_a_gold_that_cannot_be_compared_is_told(gold: Any) -> None:
    for response in ('{"action": "wait"}', "", '{"action": "click", "start_point": [1, 2]}'):
        verdict = gui_action(response, gold)
        assert (verdict.value, verdict.status) == (None, "bad_gold")
        assert verdict.detail


def test_partial_credit_is_for_the_type_only() -> None:
    assert value('{"action": "click", "start_point": [0, 0]}', BUTTON, type_credit=0.25) == 0.25
    assert value('{"action": "click"}', BUTTON, type_credit=0.25) == 0.25
    assert value('{"action": "wait"}', BUTTON, type_credit=0.25) == 0.0
    assert value('{"action": "click", "start_point": [NaN, 0]}', BUTTON, type_credit=0.25) == 0.0
    assert value('{"action": "click", "start_point": [140, 220]}', BUTTON, type_credit=0.25) == 1.0
    assert value('[{"action": "wait"}, {"action": "click"}]', [BUTTON, BUTTON], type_credit=0.5) == 0.25


WRONG: list[dict[str, Any]] = [
    {"radius": -1},
    {"radius": float("inf")},
    {"frame": "pixels"},
    {"scroll": "up"},
    {"factor": 0},
]
WRONG += [{"type_credit": 1}, {"text_threshold": 0}, {"distance_within": -1}, {"gold_format": "cxcywh"}, {"raduis": 3}]


@pytest.mark.parametrize("options", WRONG)
def test_a_wrong_option_fails_at_load(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        check_options(gui_action, options)


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
