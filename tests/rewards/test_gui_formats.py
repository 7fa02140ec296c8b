"""Every format in which actions are written is read into the same action, and nothing else is."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from morl.rewards.gui_formats import MAX_ACTIONS, read_actions
from morl.rewards.gui_steps import Action, Unread, place, to_action

SUCCESS, FAILURE = Action("finished", status="success"), Action("finished", status="failure")


WAIT, HOVER = '{"action": "wait"}', '{"action": "hover"}'


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
