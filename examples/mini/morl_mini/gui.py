"""Questions about interfaces: where something is, and what to do."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from morl_mini import screens
from morl_mini.answers import Labelled, centre, labelled, listed, place
from morl_mini.answers import point as pointed
from morl_mini.screens import Element, Layout, Screen
from morl_mini.tasks import Draft

_LAYOUTS: dict[int, tuple[Layout, ...]] = {
    1: ("buttons", "list"),
    2: ("buttons", "form", "list", "home"),
    3: ("buttons", "form", "list", "home", "menu"),
}
_ACTIONS: dict[int, tuple[str, ...]] = {
    1: ("click", "click", "input"),
    2: ("click", "click", "click", "longpress", "longpress", "input", "scroll", "open", "press"),
    3: ("click", "click", "longpress", "drag", "wait", "fill", "scroll"),
}
"""Weighted towards actions that depend on the image, not only on the words."""
TEXTS = ("ann", "ben", "eva", "tom", "zoe", "max", "kim", "rome", "oslo", "paris", "bern", "lima")


def _draft(shown: Screen, question: str, gold: Any, answer: str, thought: str, target: Element | None) -> Draft:
    extra = {} if target is None else {"target": list(target.box)}
    return Draft(shown, question, gold, answer, thought, lambda rng: screens.paint(shown, rng), extra)


def elements(rng: Random, level: int) -> Draft:
    """Every element with its box: the `caption` of interfaces, teaches reading and locating words."""
    shown = screens.screen(rng, rng.choice(_LAYOUTS[level]), level)
    gold = _boxes(shown.elements)
    return _draft(shown, "list everything.", gold, listed(gold), _places(shown.elements), None)


def element(rng: Random, level: int) -> Draft:
    """The boxes of some elements, in the order of their names: several `point` tasks in one."""
    shown = screens.screen(rng, rng.choice(_LAYOUTS[level]), level)
    targets = rng.sample(shown.elements, rng.randint(1, min(4, len(shown.elements))))
    gold = _boxes(targets)
    named = ", ".join(f"the {item['label']}" for item in gold)
    return _draft(shown, f"box {named}.", gold, listed(gold), _places(targets), None)


def point(rng: Random, level: int) -> Draft:
    """The position of an element, named by its text."""
    return _pointed(screens.screen(rng, rng.choice(_LAYOUTS[level]), level), rng)


def point_colour(rng: Random, level: int) -> Draft:
    """The position of an element, named by its colour: needs no reading. The thought is the element's box."""
    shown = screens.screen(rng, "palette", level)
    draft = _pointed(shown, rng)
    target = [element for element in shown.elements if list(element.box) == draft.gold]
    return replace(draft, thought=listed(_boxes(target)))


def _pointed(shown: Screen, rng: Random) -> Draft:
    target = rng.choice(shown.elements)
    answer = pointed(*centre(target.box))
    question = f"point to the {target.name} {target.role}."
    return _draft(shown, question, list(target.box), answer, f"it is at {place(target.box)}", target)


def _boxes(elements: Sequence[Element]) -> list[Labelled]:
    return [labelled(f"{element.name} {element.role}", element.box) for element in elements]


def _places(elements: Sequence[Element]) -> str:
    return ", ".join(f"{element.name} {element.role} at {place(element.box)}" for element in elements)


Step = Mapping[str, Any]


def _at(element: Element, action: str) -> tuple[Step, Step]:
    """Gold and answer of an action on an element."""
    return {"action": action, "bbox": list(element.box)}, {"action": action, "start_point": list(centre(element.box))}


def _both(step: Step) -> tuple[Step, Step]:
    return step, step


def gui_action(rng: Random, level: int) -> Draft:
    """An action on a screen, with arguments, in MiMo-VL's format."""
    kind = rng.choice(_ACTIONS[level])
    layout: Layout = {
        "click": rng.choice(_LAYOUTS[level]), "scroll": "list", "longpress": "list", "drag": "list", "open": "home",
        "input": "form", "fill": "form", "press": "form", "wait": "busy",
    }[kind]  # fmt: skip
    shown = screens.screen(rng, layout, level)
    target = rng.choice(shown.elements)
    text = rng.choice(TEXTS)
    match kind:
        case "click":
            question, steps = f"click the {target.name} {target.role}.", [_at(target, "click")]
        case "input":
            target = rng.choice(shown.of("field"))
            question, steps = f"type {text} in {target.name}.", [_both({"action": "input", "text": text})]
        case "fill":
            target = rng.choice(shown.of("field"))
            button = rng.choice(shown.of("button"))
            question = f"type {text} in {target.name} and click the {button.name} button."
            steps = [_both({"action": "input", "text": text}), _at(button, "click")]
        case "scroll":
            up = rng.random() < 0.5  # the finger's direction: up shows what is below
            question = f"show what is {'below' if up else 'above'}."
            steps = [_both({"action": "scroll", "direction": "up" if up else "down"})]
        case "open":
            question, steps = f"open {target.name}.", [_both({"action": "open", "app": target.name})]
        case "press":
            key = rng.choice(("enter", "esc", "tab", "delete"))
            question, steps = f"press {key}.", [_both({"action": "press", "keys": [key]})]
        case "longpress":
            question, steps = f"hold the {target.name} row.", [_at(target, "longpress")]
        case "drag":
            target, other = rng.sample(shown.elements, 2)
            question = f"drag {target.name} to {other.name}."
            gold = {"action": "drag", "bbox": list(target.box), "end_bbox": list(other.box)}
            ends = {"start_point": list(centre(target.box)), "end_point": list(centre(other.box))}
            steps = [(gold, {"action": "drag", **ends})]
        case _:
            # The click is not possible yet, which only the image shows.
            question, steps = f"click the {target.name} button.", [_both({"action": "wait"})]
    golds, written = zip(*steps, strict=True)
    return _draft(shown, question, _one(golds), json.dumps(_one(written)), kind, target)


def act_colour(rng: Random, level: int) -> Draft:
    """Like `gui_action`, on elements named by their colour."""
    kind = rng.choice(("click", "click", "longpress", "drag")[: level + 2])
    shown = screens.screen(rng, "palette", level)
    target, other = rng.sample(shown.elements, 2)
    (gold, step), thought = _at(target, kind), _boxes([target])
    question = f"{'hold' if kind == 'longpress' else kind} the {target.name} button."
    if kind == "drag":
        question = f"drag {target.name} to {other.name}."
        gold = {**gold, "end_bbox": list(other.box)}
        step = {**step, "end_point": list(centre(other.box))}
        thought = _boxes([target, other])
    return _draft(shown, question, gold, json.dumps(step), listed(thought), target)


def _one(steps: Sequence[Step]) -> Any:
    return steps[0] if len(steps) == 1 else list(steps)
