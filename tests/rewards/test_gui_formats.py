"""Every format in which actions are written is read into the same action, and nothing else is."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from morl.rewards.parsing.gui_formats import MAX_ACTIONS, read_actions, steps_from
from morl.rewards.parsing.gui_names import key_set
from morl.rewards.parsing.gui_steps import Action, Unread, place, to_action

CLICK = Action("click", (10.0, 20.0))
CTRL_C = Action("press", keys=frozenset(("ctrl", "c")))
DRAG = Action("drag", (1.0, 2.0), end_point=(3.0, 4.0))
SUCCESS, FAILURE = Action("finished", status="success"), Action("finished", status="failure")


def tool(name: str, **arguments: Any) -> str:
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


MIMO = [
    ('{"action": "click", "start_point": [10, 20], "text": "OK"}', CLICK),
    ('```json\n{"action": "click", "start_point": [10, 20]}\n```', CLICK),
    ('I tap it.\n```\n[{"action": "click", "start_point": [10, 20]}]\n```\nThat opens the menu.', CLICK),
    ('<answer>{"action": "click", "start_point": [10, 20]}</answer>', CLICK),
    (r'\boxed{{"action": "click", "start_point": [10, 20]}}', CLICK),
    ('{"action": "click", "start_point": [10, 20]}\nElement: {"type": "button"}', CLICK),
    ('{"thought": "first", "action": {"type": "click", "start_point": [10, 20]}}', CLICK),
    ('{"action": "click", "start_point": "(10, 20)"}', CLICK),
    ('{"action": "click", "start_point": {"x": 10, "y": 20}}', CLICK),
    ('{"action": "click", "start_point": [[10, 20]]}', CLICK),
    ('{"action": "CLICK", "start_point": [10.0, 2e1]}', CLICK),
    ('{"action": "scroll", "direction": "up"}', Action("scroll", direction="up")),
    (
        '{"action": "scroll", "direction": "Left ", "scroll_distance": 300}',
        Action("scroll", direction="left", distance=300.0),
    ),
    ('{"action": "input", "text": "a\nb", "start_point": [10, 20]}', Action("input", (10.0, 20.0), text="a\nb")),
    ('{"action": "input", "text": 30}', Action("input", text="30")),
    (
        '{"action": "drag", "start_point": [1, 2], "end_point": [3, 4]}',
        Action("drag", (1.0, 2.0), end_point=(3.0, 4.0)),
    ),
    ('{"action": "open", "app": "Gmail"}', Action("open", app="Gmail")),
    ('{"action": "press", "keys": ["Ctrl", "C"]}', CTRL_C),
    ('{"action": "press", "keys": ["ctrl+c"]}', CTRL_C),
    ('{"action": "finished", "status": "success"}', SUCCESS),
    ('{"action": "finished"}', Action("finished")),
    ('{"action": "longpress", "start_point": [10, 20]}', Action("longpress", (10.0, 20.0))),
    ('{"action": "hover"}', Action("hover")),
    ('{"action": "select", "text": "Red"}', Action("select", text="Red")),
    ('{"action": "wait"}', Action("wait")),
    ('{"action": "appswitch", "app": "Maps"}', Action("appswitch", app="Maps")),
]
UI_TARS = [
    ("Thought: I see it.\nAction: click(start_box='(10,20)')", CLICK),
    ("Thought: I see it. Action: click(start_box='(10,20)')", CLICK),
    ("Action: click(start_box='<|box_start|>(10,20)<|box_end|>')", CLICK),
    ("Action: click(start_box=<|box_start|>(10,20)<|box_end|>)", CLICK),
    ("Action: click(point='<point>10 20</point>')", CLICK),
    ("**Action:** `click(point='<point>10 20</point>')`", CLICK),
    ("click(start_box=(10, 20))", CLICK),
    ("click(x=10, y=20)", CLICK),
    ("pyautogui.click(x=10, y=20)", CLICK),
    ("click(start_box='[5,10,15,30]')", Action("click", (10.0, 20.0), (5.0, 10.0, 15.0, 30.0))),
    ("click(start_box='[10,20,10,20]')", CLICK),
    ("left_double(start_box='(10,20)')", Action("click", (10.0, 20.0), clicks=2)),
    ("right_single(start_box='(10,20)')", Action("click", (10.0, 20.0), button="right")),
    ("drag(start_box='(1,2)', end_box='(3,4)')", Action("drag", (1.0, 2.0), end_point=(3.0, 4.0))),
    (
        "drag(start_point='<point>1 2</point>', end_point='<point>3 4</point>')",
        Action("drag", (1.0, 2.0), end_point=(3.0, 4.0)),
    ),
    ("drag(1, 2, 3, 4)", Action("drag", (1.0, 2.0), end_point=(3.0, 4.0))),
    ("swipe(10,10,90,10)", Action("scroll", direction="right", distance=80.0)),
    ("Thought: it loads.\nAction: wait", Action("wait")),
    ("Action: press_back.", Action("press", keys=frozenset(("back",)))),
    ("hotkey(key='ctrl c')", CTRL_C),
    (r"type(content='it\'s\n')", Action("input", text="it's\n")),
    ("type(content='it's (x), ok')", Action("input", text="it's (x), ok")),
    ("type(content='a=1, b=2') # a formula", Action("input", text="a=1, b=2")),
    ("type(content=\"say 'hi'\")", Action("input", text="say 'hi'")),
    ("type(content='two\nlines')", Action("input", text="two\nlines")),
    (r"type(content='\u00e9\x41')", Action("input", text="éA")),
    ('type(content=\'{"action": "wait"}\')', Action("input", text='{"action": "wait"}')),
    ("scroll(start_box='(1,2)', direction='down')", Action("scroll", direction="down")),
    ("scroll(direction=right)", Action("scroll", direction="right")),
    ("wait() #Sleep for 5s", Action("wait")),
    ("finished(content='All is done.')", SUCCESS),
    ("long_press(start_box='(10,20)', time='')", Action("longpress", (10.0, 20.0))),
    ("open_app(app_name='Gmail')", Action("open", app="Gmail")),
    ("press_home()", Action("press", keys=frozenset(("home",)))),
    ("press_back()", Action("press", keys=frozenset(("back",)))),
    ("finish(message='All is done.')", SUCCESS),
    ("pyautogui.click((10, 20))", CLICK),
    ("pyautogui.click([10, 20], clicks=2)", Action("click", (10.0, 20.0), clicks=2)),
    ("pyautogui.hotkey(['ctrl', 'c'])", CTRL_C),
    ("pyautogui.moveTo(10, 20)\npyautogui.click()", CLICK),
    ("pyautogui.moveTo(1, 2)\ntime.sleep(0.5)\npyautogui.dragTo(3, 4)", DRAG),
    ("pyautogui.moveTo(x=1, y=2)\npyautogui.dragTo(x=3, y=4, duration=1)", DRAG),
    ("drag((1, 2), (3, 4))", DRAG),
    ("swipe(x1=10, y1=10, x2=90, y2=10)", Action("scroll", direction="right", distance=80.0)),
    ("pyautogui.hscroll(5)", Action("scroll", direction="left", distance=5.0)),
    ("select(content='Red')", Action("select", text="Red")),
    ('do(action="Tap", element=[10,20])', CLICK),
    ('do(action="Long Press", element=[10,20])', Action("longpress", (10.0, 20.0))),
    ('do(action="Swipe", start=[10,10], end=[90,10])', Action("scroll", direction="right", distance=80.0)),
    ('<answer>do(action="Launch", app="Gmail")</answer>', Action("open", app="Gmail")),
]
OS_ATLAS = [
    ("thoughts:\nclick on it\nactions:\nCLICK <point>[[10,20]]</point>", CLICK),
    ("CLICK <point>[[10, 20]]</point>.", CLICK),
    ("Action: CLICK [[10, 20]]", CLICK),
    ("CLICK <box>[[5,10,15,30]]</box>", Action("click", (10.0, 20.0), (5.0, 10.0, 15.0, 30.0))),
    ("DOUBLECLICK <point>[[10,20]]</point>", Action("click", (10.0, 20.0), clicks=2)),
    ("TYPE [hello [x] y]", Action("input", text="hello [x] y")),
    ("TYPE [two\nlines]", Action("input", text="two\nlines")),
    ("SCROLL [UP]", Action("scroll", direction="up")),
    ("SCROLL UP", Action("scroll", direction="up")),
    ('TYPE "hello"', Action("input", text="hello")),
    ("Click <point>[[10, 20]]</point>", CLICK),
    ("OPEN_APP [Google Chrome]", Action("open", app="Google Chrome")),
    ("PRESS_BACK", Action("press", keys=frozenset(("back",)))),
    ("PRESS_RECENT", Action("press", keys=frozenset(("recent",)))),
    ("PRESS_PGDN", Action("press", keys=frozenset(("pagedown",)))),
    ("ENTER", Action("press", keys=frozenset(("enter",)))),
    ("HOTKEY [CTRL_C]", CTRL_C),
    ("LONG_PRESS <point>[[10,20]]</point>", Action("longpress", (10.0, 20.0))),
    ("MOVETO <point>[[10,20]]</point>", Action("hover", (10.0, 20.0))),
    ("HOVER", Action("hover")),
    ("DRAG <point>[[1,2]]</point> <point>[[3,4]]</point>", Action("drag", (1.0, 2.0), end_point=(3.0, 4.0))),
    ("SELECT [Red]", Action("select", text="Red")),
    ("WAIT", Action("wait")),
    ("WAIT.", Action("wait")),
    ("COMPLETE", SUCCESS),
    ("IMPOSSIBLE", FAILURE),
]
ANDROID_CONTROL = [
    ('{"action_type": "click", "x": 10, "y": 20}', CLICK),
    ("{'action_type': 'click', 'x': 10, 'y': 20}", CLICK),
    ('Reason: it fits.\nAction: {"action_type": "click", "x": 10, "y": 20}', CLICK),
    ('{"action_type": "open_app", "app_name": "Gmail"}', Action("open", app="Gmail")),
    ('{"action": "open_app", "value": "Gmail"}', Action("open", app="Gmail")),
    ('{"action": "task_complete"}', SUCCESS),
    ('{"action_type": "status_task_impossible"}', FAILURE),
    ('{"Action": "Click", "Start_Point": [10, 20]}', CLICK),
    ("{'action': 'SCROLL', 'value': 'down', 'position': None}", Action("scroll", direction="down")),
    ('{"action": "drag", "start": [1, 2], "end": [3, 4]}', DRAG),
    ('{"action": "drag", "from": [1, 2], "to": [3, 4]}', DRAG),
    ('{"action": "drag", "start_x": 1, "start_y": 2, "end_x": 3, "end_y": 4}', DRAG),
    ('{"action": "mouse_move", "coordinate": [10, 20]}\n{"action": "left_click"}', CLICK),
    ('{"action_type": "click", "x": 10, "y": 20,}', CLICK),
    ('{"action": "click", "start_point": [10, 20, ],\n}', CLICK),
    ("{'action_type': 'input_text', 'text': 'it\\'s (1)'}", Action("input", text="it's (1)")),
    ('{"action_type": "type_text", "text": "a", "element": "To field"}', Action("input", text="a")),
    ('{"action_type": "navigate_back"}', Action("press", keys=frozenset(("back",)))),
    ('{"action_type": "navigate_home"}', Action("press", keys=frozenset(("home",)))),
    ('{"action_type": "keyboard_enter"}', Action("press", keys=frozenset(("enter",)))),
    ('{"action_type": "scroll", "direction": "down"}', Action("scroll", direction="down")),
    ('{"action_type": "long_press", "x": 10, "y": 20}', Action("longpress", (10.0, 20.0))),
    ('{"action_type": "status", "goal_status": "successful"}', SUCCESS),
    ('{"action_type": "status", "goal_status": "infeasible"}', FAILURE),
    ("{'action': 'press', 'keys': ['ctrl', 'c']}", CTRL_C),
]
QWEN = [
    (tool("computer_use", action="left_click", coordinate=[10, 20]), CLICK),
    (tool("computer_use", action="right_click", coordinate=[10, 20]), Action("click", (10.0, 20.0), button="right")),
    (tool("computer_use", action="double_click", coordinate=[10, 20]), Action("click", (10.0, 20.0), clicks=2)),
    (tool("computer_use", action="mouse_move", coordinate=[10, 20]), Action("hover", (10.0, 20.0))),
    (tool("computer_use", action="left_click_drag", coordinate=[3, 4]), Action("drag", end_point=(3.0, 4.0))),
    (
        tool("computer_use", action="left_click_drag", start_coordinate=[1, 2], coordinate=[3, 4]),
        Action("drag", (1.0, 2.0), end_point=(3.0, 4.0)),
    ),
    (tool("computer_use", action="type", text="a"), Action("input", text="a")),
    (tool("computer_use", action="key", keys=["ctrl", "c"]), CTRL_C),
    (tool("computer_use", action="key", text="ctrl+c"), CTRL_C),
    (tool("computer_use", action="scroll", pixels=-500), Action("scroll", direction="up", distance=500.0)),
    (tool("computer_use", action="terminate", status="failure"), FAILURE),
    (
        tool("mobile_use", action="swipe", coordinate=[500, 800], coordinate2=[510, 200]),
        Action("scroll", direction="up", distance=600.0),
    ),
    (
        tool("mobile_use", action="swipe", coordinate=[800, 500], coordinate2=[200, 500]),
        Action("scroll", direction="left", distance=600.0),
    ),
    (tool("mobile_use", action="long_press", coordinate=[10, 20], time=2), Action("longpress", (10.0, 20.0))),
    (tool("mobile_use", action="system_button", button="Back"), Action("press", keys=frozenset(("back",)))),
    (tool("mobile_use", action="key", text="volume_up"), Action("press", keys=frozenset(("volumeup",)))),
    (tool("mobile_use", action="open", text="Gmail"), Action("open", app="Gmail")),
    (tool("mobile_use", action="wait", time=2), Action("wait")),
    ('{"name": "computer_use", "arguments": "{\\"action\\": \\"wait\\"}"}', Action("wait")),
    ('{"name": "click", "arguments": {"coordinate": [10, 20]}}', CLICK),
    ('<tool_call>{"name": "click", "arguments": {"coordinate": [10, 20]}}', CLICK),
]
MIND2WEB = [
    ('{"operation": "TYPE", "value": "08817"}', Action("input", text="08817")),
    ('{"operation": {"original_op": "CLICK", "op": "SELECT", "value": "Red"}}', Action("select", text="Red")),
]
OTHERS = [
    ("<answer>click(point='<point>10 20</point>')</answer>", CLICK),
    ("Action: <|begin_of_box|>left_click(start_box='[10, 20]')<|end_of_box|>", CLICK),
    ("click(10, 20)", CLICK),
    ("```python\npyautogui.click(10, 20)\n```", CLICK),
    ("{'action': 'click', 'point': [10, 20], 'held': false}", CLICK),
    ('{"action_name": "click", "start_point": [10, 20]}', CLICK),
    ('{"action": {"action_name": "click", "start_point": [10, 20]}}', CLICK),
    ('{"action_type": "click", "box_2d": [[5, 10, 15, 30]]}', Action("click", (10.0, 20.0), (5.0, 10.0, 15.0, 30.0))),
    ("{'action_type': 'tap', 'box_2d': [[5, 10, 15, 30]]}", Action("click", (10.0, 20.0), (5.0, 10.0, 15.0, 30.0))),
    ('{"action": "click", "bbox": [9, 9, 9, 9], "start_point": [10, 20]}', CLICK),
    ("left_double_click(start_box='[10, 20]')", Action("click", (10.0, 20.0), clicks=2)),
    ("left_drag(start_box='[1, 2]', end_box='[3, 4]')", Action("drag", (1.0, 2.0), end_point=(3.0, 4.0))),
    ("SCROLL_DOWN(point=(10, 20), distance=50)", Action("scroll", direction="down", distance=50.0)),
    ("swipe_left()", Action("scroll", direction="left")),
    ("scroll(direction='up', step=3)", Action("scroll", direction="up", distance=3.0)),
    ("[{'action': 'type', 'point': [-100, -100], 'input_text': 'a b'}]", Action("input", (-100.0, -100.0), text="a b")),
    ("[{'action': 'scroll', 'input_text': 'up'}]", Action("scroll", direction="up")),
    ("[{'action': 'open_app', 'input_text': 'Maps'}]", Action("open", app="Maps")),
    ("KEY_PRESS(key='Return')", Action("press", keys=frozenset(("enter",)))),
    ("FAIL()", FAILURE),
    ("pyautogui.click(x=10, y=20, clicks=2, button='LEFT')", Action("click", (10.0, 20.0), clicks=2)),
    ("pyautogui.click(10, 20)  # the button (blue)", CLICK),
    ("pyautogui.hotkey('ctrl', 'c')", Action("press", keys=frozenset(("ctrl", "c")))),
    ("pyautogui.write('red shoes', interval=0.1)", Action("input", text="red shoes")),
    ("pyautogui.write(message='red shoes')", Action("input", text="red shoes")),
    ('open_app("Maps")', Action("open", app="Maps")),
    ('scroll("down")', Action("scroll", direction="down")),
    ("pyautogui.scroll(-5)", Action("scroll", direction="up", distance=5.0)),
    ("wait(5)", Action("wait")),
    ('{"action": "click", "point_2d": [10, 20]}', CLICK),
    ('{"action": "click", "coordinates": [10, 20]}', CLICK),
    ('{"action": "click", "args": {"coordinate": [10, 20]}}', CLICK),
    (
        "Grounded Operation: CLICK(box=[[5,10,15,30]], element_type='button')",
        Action("click", (10.0, 20.0), (5.0, 10.0, 15.0, 30.0)),
    ),
]


@pytest.mark.parametrize(("text", "action"), [*OTHERS, *MIMO, *UI_TARS, *OS_ATLAS, *ANDROID_CONTROL, *QWEN, *MIND2WEB])
def test_each_format_is_read(text: str, action: Action) -> None:
    assert read_actions(text) == [action]


@pytest.mark.parametrize(
    "text",
    [
        '{"action": "click", "action": "wait"}',
        '{"action": "wait", "x": 1, "x": 2}',
        '{"action": "click", "start_point": [NaN, 1]}',
        '{"action": "click", "start_point": [Infinity, 1]}',
        '{"action": "click", "start_point": [1e999, 1]}',
        '{"action": "click", "start_point": [true, 1]}',
        '{"action": "click", "start_point": [1]}',
        '{"action": "click", "start_point": [1, 2, 3]}',
        '{"action": "click", "start_point": [0, 0, 1000, 1000]}',
        '{"action": "click", "start_point": [[1, 2], [3, 4]]}',
        '{"action": "click", "start_point": "ten, twenty"}',
        '{"action": "click", "start_box": [9, 9, 1, 1]}',
        '{"action": "click", "x": 1}',
        '{"action": "click", "start_point": [1, 2], "button": "all"}',
        '{"action": "cl\u0456ck", "start_point": [1, 2]}',
        '{"action": "click or wait", "start_point": [1, 2]}',
        '{"action": "scroll", "direction": "up down"}',
        '{"action": "scroll", "direction": ["up", "down"]}',
        '{"action": "scroll"}',
        '{"action": "scroll", "pixels": 0}',
        '{"action": "swipe", "coordinate": [1, 1], "coordinate2": [5, 5]}',
        '{"action": "press", "keys": []}',
        '{"action": "press", "keys": [1]}',
        '{"action": "press"}',
        '{"action": "input", "text": ["a", "b"]}',
        '{"action": "open", "app": true}',
        '{"name": "computer_use", "arguments": "wait"}',
        "call_user()",
        "click(start_box='(1,2)', start_box='(3,4)')",
        "click(start_box='(1,2)') or click(start_box='(3,4)')",
        "click(10, 20, x=1)",
        "click(10, 20, 30)",
        "click((10, 20, 30))",
        "click((10, 20], x=1)",
        "hotkey(['ctrl', 'c'",
        "do(element=[1, 2])",
        "click(10)",
        "click(10, 20)  # or click(30, 40)",
        "scroll('up', 'down')",
        "CLICK <point>[[1,2]]</point> or CLICK <point>[[3,4]]</point>",
        '{"action": "wait", "x": 1, "x": 2,}',
        "drag(1, 2, 3)",
        "CLICK <point>[[1,2]]</point> <point>[[3,4]]</point>",
        "SCROLL [UP] or SCROLL [DOWN]",
    ],
)
def test_what_is_no_action_is_a_step_that_is_none(text: str) -> None:
    assert [type(step) for step in read_actions(text)] == [Unread]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "I would click it.",
        "Click on the button at (10, 20)",
        "The next action is to wait.",
        "WAIT for the page",
        "WAIT. The page loads",
        "Action: wait for the page",
        "Action: scroll",
        "Wait",
        "[10, 20]",
        '{"point": [10, 20]}',
        '{"type": "button", "bbox": [1, 2, 3, 4]}',
        '"{\\"action\\": \\"wait\\"}"',
        "{\"action\": 'wait'",
        '{"action": "wait"',
        "I use click(start_box='(1,2)') for that",
    ],
)
def test_no_action_in_the_text(text: str) -> None:
    with pytest.raises(ValueError, match="no action"):
        read_actions(text)


WAIT, HOVER = '{"action": "wait"}', '{"action": "hover"}'


@pytest.mark.parametrize(
    "text",
    [
        f"[{WAIT}, {HOVER}]",
        f'{{"actions": [{WAIT}, {HOVER}]}}',
        f"{WAIT}\n{HOVER}",
        f"{WAIT}, {HOVER}",
        f"{WAIT} and then {HOVER}",
        f"First, {WAIT}. Second, {HOVER}",
        f"```json\n{WAIT}\n{HOVER}\n```",
        f"1. {WAIT}\n2. {HOVER}",
        f"[{{'action': 'wait'}}, {HOVER}]",
        f"{tool('mobile_use', action='wait')}\n{tool('computer_use', action='hover')}",
        "Action: wait()\n\nhover()",
        "wait(); hover()",
        "Action 1: wait()\nAction 2: hover()",
        "Action: wait()\nAction: hover()",
        "**Action:** wait()\n\n**Action:** hover()",
        "wait()\n# the menu\ntime.sleep(1)\nhover()",
        "actions:\n- WAIT\n- HOVER",
    ],
)
def test_actions_one_after_the_other_are_a_sequence(text: str) -> None:
    assert read_actions(text) == [Action("wait"), Action("hover")]


@pytest.mark.parametrize(
    "text",
    [
        f"{WAIT}. No, that is wrong. {HOVER}",
        f"{WAIT}\nThe page has loaded, so I point at the menu.\n\nSo the answer is:\n{HOVER}",
        "Thought: a, b or c\nAction: wait()\nThought: maybe that, or this\nAction: hover()",
        "Action: wait()\nThought: no, elsewhere\nAction: hover()",
    ],
)
def test_what_comes_later_replaces_what_came_before(text: str) -> None:
    assert read_actions(text) == [Action("hover")]


@pytest.mark.parametrize(
    "text",
    [
        f"{WAIT} or {HOVER}",
        f"{WAIT} / {HOVER}",
        f"```json\n{WAIT}\n```\nAlternatively:\n```json\n{HOVER}\n```",
        "Action: wait()\nor\nAction: hover()",
    ],
)
def test_alternatives_are_no_answer(text: str) -> None:
    with pytest.raises(ValueError, match="alternatives"):
        read_actions(text)
    assert read_actions(text.replace("hover", "wait")) == [Action("wait")]


def test_a_call_of_a_script_that_is_not_known_is_a_step() -> None:
    script = "pyautogui.keyDown('ctrl')\npyautogui.press('c')\npyautogui.keyUp('ctrl')"
    assert [type(step) for step in read_actions(script)] == [Unread, Action, Unread]
    assert read_actions("pyautogui.moveTo(10, 20)\npyautogui.sleep(1)\npyautogui.click()") == [CLICK]


def test_items_of_a_list_that_are_no_actions_count_as_steps() -> None:
    assert [type(step) for step in steps_from([{"action": "wait"}, 3, {"x": 1}])] == [Action, Unread, Unread]
    assert steps_from([3, {"x": 1}]) == steps_from("wait") == []


@pytest.mark.parametrize("form", ["[{}]", "{}"])
def test_too_many_actions_are_none(form: str) -> None:
    assert len(read_actions(form.format(", ".join([WAIT] * MAX_ACTIONS)))) == MAX_ACTIONS
    with pytest.raises(ValueError, match="more than"):
        read_actions(form.format(", ".join([WAIT] * (MAX_ACTIONS + 1))))


def test_the_convention_turns_words_and_no_gestures() -> None:
    for written, finger in (("up", "down"), ("down", "up"), ("left", "right"), ("right", "left")):
        step = read_actions(f'{{"action": "scroll", "direction": "{written}"}}', "content")[0]
        assert isinstance(step, Action)
        assert step.direction == finger
    for text in ('{"action": "scroll", "pixels": 3}', '{"action": "swipe", "start_box": [5, 1], "end_box": [5, 9]}'):
        assert read_actions(text, "content") == read_actions(text, "finger")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ctrl", "Control"),
        ("cmd", "win"),
        ("super", "meta"),
        ("esc", "Escape"),
        ("return", "Enter"),
        ("arrowup", "up"),
        ("ArrowDown", "down"),
        ("del", "delete"),
        ("pgdn", "Page_Down"),
        (" ", "space"),
        ("KEYCODE_BACK", "back"),
        ("app_switch", "recent"),
        ("ctrl+shift+t", ["t", "shift", "ctrl", "ctrl"]),
        ("ctrl-c", "C CTRL"),
        ("['ctrl', 'c']", ["ctrl", "c"]),
        ("ctrl++", ["ctrl", "+"]),
        ("ctrl--", ["ctrl", "-"]),
        ("ctrl + a", "ctrl+a"),
    ],
)
def test_keys_have_many_names(one: Any, other: Any) -> None:
    assert key_set(one) == key_set(other)


@pytest.mark.parametrize(("one", "other"), [("c", "\u0441"), ("+", "-"), ("up", "pageup"), ("f1", "f11"), ("a", "b")])
def test_different_keys_stay_different(one: str, other: str) -> None:
    assert key_set(one) != key_set(other)


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_a_point_survives_being_written(x: float, y: float) -> None:
    for form in ("({!r}, {!r})", "<point>{!r} {!r}</point>", "<|box_start|>({!r},{!r})<|box_end|>", "[[{!r},{!r}]]"):
        assert place(form.format(x, y)) == ((x, y), None)
    assert place([x, y]) == ((x, y), None)
    assert to_action("click", {"x": x, "y": y}) == to_action("tap", {"start_point": [x, y]})


MARKS = [
    "[",
    "]",
    "{",
    "}",
    ", ",
    "\n",
    "'",
    '"',
    "\\",
    "(",
    ")",
    "=",
    "; ",
    " or ",
    "```json\n",
    "1e999",
    "\ud800",
    "\u202e",
    "\uff11",
]
PARTS = [
    WAIT,
    '{"action": ',
    '"click"',
    "Action: ",
    "click(",
    "start_box=",
    "'(1,2)'",
    "TYPE [",
    "SCROLL [UP]",
    "CLICK ",
]
PARTS += ["<point>", "</point>", "<tool_call>", "{'action': ", "wait()", "DRAG ", "press_", "content="]
pieces = st.sampled_from(MARKS + PARTS)


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


LONG = [
    "9",
    "[",
    '{"a":',
    '{"',
    "type(content='",
    "type(content='\n",
    "TYPE [\n",
    "TYPE [a",
    "Action: ",
    "{'a':",
    "{'a':1,",
]
LONG += [
    "{'a':'",
    "click(",
    "click(\n",
    "click()\n",
    "WAIT\n",
    "wait();",
    " \n",
    "\na(b='',",
    '["",',
    "CLICK 1 2 ",
    "DRAG <point>",
]
LONG += [
    "\\",
    "\na(b=[[1",
    "\na(b='' ",
    "{'a':(",
    "<|image_pad|>",
    f"{WAIT} or ",
    f"{WAIT}\n",
    "actions:\n\n",
    "- 1. ",
    "a(b='x')'",
    '{"a":1,',
    '{"a":"\\',
    "action: a",
    ", ",
    "drag(1,2,",
    "drag((1,2),",
    "press(['a',",
    "# a\n",
    "time.sleep(1)\n",
    "a <point>",
    'TYPE "',
    "SCROLL UP ",
]


@pytest.mark.parametrize("pump", LONG, ids=range(len(LONG)))
@pytest.mark.timeout(10)
def test_a_megabyte_is_read_at_once(pump: str) -> None:
    for text in (pump * ((1 << 20) // len(pump)), "Action: type(content='" + pump * ((1 << 20) // len(pump))):
        with suppress(ValueError):
            assert read_actions(text)
