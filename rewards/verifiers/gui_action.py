"""GUI actions: are the type of each action and its arguments right?"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import Field

from morl.rewards.marks import Mark
from morl.rewards.parsing.answer import final_text
from morl.rewards.parsing.coordinates import BoxFormat, CoordinateFrames, Frame
from morl.rewards.parsing.gui_compare import Rules, Target, compare, read_gold
from morl.rewards.parsing.gui_formats import read_actions
from morl.rewards.parsing.gui_names import OPPOSITE
from morl.rewards.parsing.gui_steps import Action, Convention, Step
from morl.rewards.parsing.image_size import FACTOR, MAX_PIXELS, MIN_PIXELS, Resize
from morl.rewards.parsing.locations import Box, Point
from morl.rewards.reward import Example, Verdict, reward

_NO_META: Mapping[str, Any] = MappingProxyType({})

_BUTTON = {"action": "click", "bbox": [100, 200, 180, 240]}
_SEARCH = {"action": "input", "text": "red shoes"}
_MOVE = {"action": "drag", "start_point": [10, 10], "end_point": [90, 10], "radius": 5}
_COPY = {"action": "press", "keys": ["ctrl", "c"]}


def _written(
    gold: Any,
    media: Sequence[Any] = (),
    meta: Mapping[str, Any] = _NO_META,
    *,
    scroll: Convention = "finger",
    gold_scroll: Convention | None = None,
    **options: Any,
) -> str:
    """The gold in MiMo-VL's answer format, under the reward's options; a list if it has several steps."""
    frames = CoordinateFrames.of(options)
    targets = read_gold(gold, box_format=frames.gold_format, scroll=gold_scroll or scroll)

    def into_answer(point: Point | None) -> list[float] | None:
        return list(frames.out_of_gold(media, meta)(point)) if point else None

    steps = []
    for target in targets:
        action = target.action
        clicked = {1: "click", 2: "double_click", 3: "triple_click"} if action.button == "left" else {}
        distances = into_answer((action.distance, action.distance)) if action.distance else None
        fields = {
            "action": clicked.get(action.clicks, f"{action.button}_click") if action.type == "click" else action.type,
            "start_point": into_answer(_middle(target.boxes) or action.point),
            "end_point": into_answer(_middle(target.end_boxes) or action.end_point),
            "text": action.text,
            "direction": OPPOSITE[action.direction] if action.direction and scroll == "content" else action.direction,
            "scroll_distance": distances and distances[0 if action.direction in ("left", "right") else 1],
            "keys": sorted(action.keys) if action.keys else None,
            "app": action.app,
            "status": action.status,
        }
        steps.append({key: value for key, value in fields.items() if value is not None})
    return json.dumps(steps if len(steps) > 1 else steps[0], ensure_ascii=False)


def _marks(
    response: str, gold: Any, media: Sequence[Any] = (), meta: Mapping[str, Any] = _NO_META, **options: Any
) -> list[Mark]:
    frames = CoordinateFrames.of(options)
    marks: list[Mark] = []
    for number, target in enumerate(read_gold(gold, box_format=frames.gold_format), start=1):
        boxes: list[Sequence[float]] = [*target.boxes, *target.end_boxes]
        points = [point for point in (target.action.point, target.action.end_point) if point]
        of_gold = frames.into_parts("gold", media, meta)
        marks += [Mark("gold", of_gold(place), f"{number} {target.action.type}") for place in boxes or points]
    try:
        steps = read_actions(final_text(response))
    except ValueError:  # the answer has no action
        steps = []
    for number, step in enumerate(steps, start=1):
        if isinstance(step, Action):
            of_answer = frames.into_parts("answer", media, meta)
            ends = [place for place in (step.point, step.end_point) if place]
            marks += [Mark("answer", of_answer(place), f"{number} {step.type}") for place in ends]
    return marks


def _middle(boxes: Sequence[Box]) -> Point | None:
    return ((boxes[0][0] + boxes[0][2]) / 2, (boxes[0][1] + boxes[0][3]) / 2) if boxes else None


_Frame = Annotated[
    Frame,
    Field(
        description="The unit of the answer's coordinates, never guessed: `absolute`, pixels of the original image; "
        "`absolute_resized`, pixels of the image that the model saw, resized with its processor's `factor`, "
        "`min_pixels` and `max_pixels`; `relative_1000`, thousandths of width and height; `relative_1`, fractions of "
        "them."
    ),
]
_GoldFrame = Annotated[Frame, Field(description="The unit of the gold's coordinates, of `radius` and of distances.")]
_GoldFormat = Annotated[BoxFormat, Field(description="Gold boxes are two corners, or a corner with width and height.")]
_SizeFrom = Annotated[
    str | list[str] | None,
    Field(
        description="The columns with the image size: one with [width, height], or two. By default the size is read "
        "from the first image, if a conversion needs it."
    ),
]
_Radius = Annotated[
    float, Field(ge=0, allow_inf_nan=False, description="In the gold's unit; with 0, the point must equal the gold's.")
]
_Scroll = Annotated[
    Convention,
    Field(
        description="The answer's convention. With `finger`, scrolling up moves the finger up and shows what is below, "
        "as in MiMo-VL; with `content`, it shows what is above, as in AndroidControl and UI-TARS. A swipe between two "
        "points is a movement of the finger; a wheel turned by positive `pixels` shows what is above."
    ),
]
_GoldScroll = Annotated[Convention | None, Field(description="The gold's convention, if it differs.")]
_Within = Annotated[
    Annotated[float, Field(ge=0, allow_inf_nan=False)] | None,
    Field(description="The allowed difference of scroll distances. By default distances are ignored."),
]
_TextMetric = Annotated[
    Literal["exact", "f1", "anls"],
    Field(description="`f1` (words) and `anls` (characters) give their value, or 0 below `text_threshold`."),
]
_AnyClick = Annotated[bool, Field(description="Treat all kinds of click as equal.")]
_InputPoint = Annotated[bool, Field(description="Also check where text is entered, if the gold has a place.")]
_TypeCredit = Annotated[
    float, Field(ge=0, lt=1, description="The value of a step of the right type with wrong arguments.")
]


@reward(
    "gui_action",
    examples=[
        Example('<think>There.</think>{"action": "click", "start_point": [140, 220]}', _BUTTON, 1.0),
        Example('{"action": "click", "start_point": [140, 260]}', _BUTTON, 0.0),
        Example("click(start_box='(180,240)')", _BUTTON, 1.0),
        Example("actions:\nCLICK <point>[[181,240]]</point>", _BUTTON, 0.0),
        Example('{"action": "longpress", "start_point": [140, 220]}', _BUTTON, 0.0),
        Example('{"action_type": "click", "x": 503, "y": 300}', "CLICK <point>[[500,304]]</point>", 1.0, {"radius": 5}),
        Example('{"action": "scroll", "direction": "up"}', {"action": "scroll", "direction": "up"}, 1.0),
        Example('{"action": "scroll", "direction": "up down"}', {"action": "scroll", "direction": "up"}, 0.0),
        Example(
            "SCROLL [DOWN]",
            {"action": "scroll", "direction": "up"},
            1.0,
            {"scroll": "content", "gold_scroll": "finger"},
        ),
        Example(r"type(content='Red shoes\n')", _SEARCH, 1.0),
        Example('{"action": "input", "text": "red shoes and blue shoes"}', _SEARCH, 0.0),
        Example('{"action": "input", "text": "red shoe"}', _SEARCH, 8 / 9, {"text_metric": "anls"}),
        Example('{"action": "input", "text": ""}', {"action": "input", "text": ""}, None),
        Example('{"action": "drag", "start_point": [12, 10], "end_point": [90, 13]}', _MOVE, 1.0),
        Example("drag(start_box='(10,10)', end_box='(80,10)')", _MOVE, 0.0),
        Example("OPEN_APP [Pocket Book]", {"action_type": "open_app", "app_name": "PocketBook"}, 1.0),
        Example('{"action": "open", "app": "Chrome"}', {"action_type": "open_app", "app_name": "PocketBook"}, 0.0),
        Example("hotkey(key='c control')", _COPY, 1.0),
        Example('{"action": "press", "keys": ["ctrl", "c", "v", "x"]}', _COPY, 0.0),
        Example("press_back()", {"action_type": "navigate_back"}, 1.0),
        Example(
            '{"action": "finished", "status": "success"}', {"action_type": "status", "goal_status": "successful"}, 1.0
        ),
        Example("IMPOSSIBLE", {"action": "finished", "status": "success"}, 0.0),
        Example('{"action": "longpress", "start_point": [5, 5]}', {"action": "longpress", "bbox": [0, 0, 9, 9]}, 1.0),
        Example('{"action": "longpress"}', {"action": "longpress", "bbox": [0, 0, 9, 9]}, 0.0),
        Example('{"action": "hover"}', {"action": "hover"}, 1.0),
        Example('{"action": "wait"}', {"action": "hover"}, 0.0),
        Example('{"action": "select", "text": "02:30 PM"}', {"operation": "SELECT", "value": "02:30 pm"}, 1.0),
        Example('{"action": "select", "text": "02:30 AM"}', {"operation": "SELECT", "value": "02:30 pm"}, 0.0),
        Example(
            '<tool_call>{"name": "mobile_use", "arguments": {"action": "wait", "time": 2}}</tool_call>', "WAIT", 1.0
        ),
        Example("<think>wait()", "WAIT", 0.0),
        Example('{"action": "appswitch", "app": "maps"}', {"action": "appswitch", "app": "Maps"}, 1.0),
        Example('{"action": "appswitch", "app": "Mail"}', {"action": "appswitch", "app": "Maps"}, 0.0),
        Example('{"action": "wait"} or {"action": "hover"}', {"action": "wait"}, 0.0),
        Example('[{"action": "hover"}, {"action": "wait"}]', {"action": "hover"}, 0.5),
        Example('[{"action": "hover"}, {"action": "wait"}]', [{"action": "hover"}, {"action": "wait"}], 1.0),
        Example('{"action": "click", "start_point": [0, 0]}', _BUTTON, 0.2, {"type_credit": 0.2}),
        Example('{"action": "click", "start_point": [0, 0]}', {"action": "click"}, None),
    ],
    answer=_written,
    marks=_marks,
)
def gui_action(
    response: str,
    gold: Any,
    media: Sequence[Any] = (),
    meta: Mapping[str, Any] = _NO_META,
    *,
    frame: _Frame = "absolute",
    gold_frame: _GoldFrame = "absolute",
    gold_format: _GoldFormat = "xyxy",
    size_from: _SizeFrom = None,
    factor: Annotated[int, Field(gt=0)] = FACTOR,
    min_pixels: Annotated[int, Field(gt=0)] = MIN_PIXELS,
    max_pixels: Annotated[int, Field(gt=0)] = MAX_PIXELS,
    radius: _Radius = 0.0,
    scroll: _Scroll = "finger",
    gold_scroll: _GoldScroll = None,
    distance_within: _Within = None,
    text_metric: _TextMetric = "exact",
    text_threshold: Annotated[float, Field(gt=0, le=1)] = 0.5,
    ignore_case: bool = True,
    any_click: _AnyClick = False,
    check_input_point: _InputPoint = False,
    type_credit: _TypeCredit = 0.0,
) -> Verdict:
    """The share of the gold's steps that the answer takes, in order: 1 when all are right and there are no others.

    Step i of the answer is compared with step i of the gold, and the sum of values is divided by the length of the
    longer list, so that extra actions lower the value. There are twelve types of action; a wrong type scores 0.
    What must agree besides the type:

    - click, longpress, hover: the point, in the gold box, edges included, or within `radius` of the gold point. A
      hover's gold may lack a place. Double, triple, right and middle clicks are different kinds of click.
    - drag: both ends, each as for a click. scroll: the direction.
    - input, select: the text, after Unicode and white space are normalised. An empty text is never right.
    - press: the set of keys, in any order and under any of their names (ctrl, control; the back button is a key).
      open, appswitch: the name of the application; case, spaces and punctuation do not matter.
    - wait, finished: nothing else, except a status (success, failure) that the gold has.

    The answer follows the thinking, in one of these formats, which may differ from the gold's:
    MiMo-VL `{"action": "click", "start_point": [x, y]}`, alone, fenced or in a list;
    UI-TARS `Action: click(start_box='(x,y)')`, or `pyautogui.click(x, y)`, `do(action="Tap", element=[x, y])`;
    OS-Atlas `CLICK <point>[[x,y]]</point>`; AndroidControl `{"action_type": "click", "x": …, "y": …}`;
    tool calls of Qwen2.5-VL `{"name": "computer_use", "arguments": {"action": "left_click", "coordinate": [x, y]}}`.
    A box in the place of a point (`start_box`, `<box>`, or `bbox`, `box_2d`, … without a point) stands for its middle.
    A click or drag without a place, right after the pointer was moved, happens at the pointer.
    Actions one below the other are a sequence; where other words separate actions, the last one counts. Alternatives
    ("or") are wrong, and so is a line with anything after its action. `finished()` and COMPLETE mean success,
    IMPOSSIBLE and FAIL mean failure. Only the last 50,000 characters are read; more than 200 actions score 0.

    The gold is an object, a list of objects, or text in any of these formats. An object may have the target as
    `bbox`, one box or a list of boxes any of which is right; a `radius` of its own; and, as in Mind2Web, `operation`
    and `value`.
    """
    frames = CoordinateFrames(frame, gold_frame, gold_format, size_from, Resize(factor, min_pixels, max_pixels))
    rules = Rules(radius, text_metric, text_threshold, ignore_case, any_click, check_input_point, distance_within)
    try:
        targets = read_gold(gold, box_format=gold_format, scroll=gold_scroll or scroll)
        if frame != gold_frame and any(rules.compares_places(target.action.type) for target in targets):
            x, y = frames.into_gold(media, meta)((1.0, 1.0))
            rules = replace(rules, scale=(x, y))
    except ValueError as error:
        return Verdict(None, "bad_gold", str(error))
    try:
        steps = read_actions(final_text(response), scroll)
    except ValueError as error:
        return Verdict(0.0, "no_answer", str(error))
    return _compared(steps, targets, rules, type_credit)


def _compared(steps: Sequence[Step], targets: Sequence[Target], rules: Rules, type_credit: float) -> Verdict:
    total, reasons = 0.0, []
    for index, (step, target) in enumerate(zip(steps, targets, strict=False)):
        value, reason = compare(step, target, rules)
        if isinstance(step, Action) and step.type == target.action.type:
            value = max(value, type_credit)
        total += value
        if reason:
            reasons.append(f"{index + 1}: {reason}" if len(targets) > 1 else reason)
    if len(steps) != len(targets):
        reasons.append(f"{len(steps)} actions instead of {len(targets)}")
    return Verdict(total / max(len(steps), len(targets)), "ok", "; ".join(reasons[:5]) or targets[0].action.type)
