r"""The response has the structure that was asked for: thinking, answer tags, boxes, a block of JSON."""

from __future__ import annotations

import json
import re
from typing import Annotated, Literal

from pydantic import Field

from morl.rewards.parsing.answer import boxes
from morl.rewards.parsing.text_metrics import says_something
from morl.rewards.reward import Example, Verdict, reward

_ANSWER = {"answer_tags": True}


@reward(
    "format",
    examples=[
        Example("<think>Hm.</think>Paris", None, 1.0),
        Example("Paris", None, 0.0),
        Example("Well, <think>hm.</think>Paris", None, 0.0),
        Example("<think>Hm.</think>", None, 0.0),
        Example("<think>Hm.", None, 0.0),
        Example("<think>Hm.</think><think>Hm.</think>Paris", None, 0.0),
        Example("Hm.</think>Paris", None, 1.0, {"opened": True}),
        Example("Paris", None, 1.0, {"thinking": "optional"}),
        Example("<think>Hm.</think>Paris", None, 0.0, {"thinking": "forbidden"}),
        Example("<think>Hm.</think> <answer>Paris</answer>", None, 1.0, _ANSWER),
        Example("<think>Hm.</think> <answer>Paris</answer> or Rome", None, 0.0, _ANSWER),
        Example(r"<think>\boxed{3}</think>It is \boxed{4}.", None, 1.0, {"boxed": 1}),
        Example(r"<think>Hm.</think>It is \boxed{3} or \boxed{4}.", None, 0.0, {"boxed": 1}),
        Example(r"<think>Hm.</think>It is 4.", None, 0.5, {"boxed": 1, "partial": True}),
        Example('<think>Hm.</think>```json\n{"a": 1}\n```', None, 1.0, {"fenced_json": True}),
    ],
)
def format(  # noqa: A001  # the name that recipes call it by
    response: str,
    *,
    thinking: Literal["required", "optional", "forbidden"] = "required",
    opened: bool = False,
    answer_tags: bool = False,
    boxed: Annotated[int, Field(ge=0)] | None = None,
    fenced_json: bool = False,
    partial: bool = False,
) -> Verdict:
    r"""1 when the response has the structure that the options ask for, else 0. What it says is not looked at.

    `thinking: required`   exactly one `<think>…</think>`, first, with something in it, and an answer after it.
    `thinking: optional`   the same, or no such tags at all, or thinking that is empty.
    `thinking: forbidden`  no such tags; where the prompt opened the thinking, it must be closed at once.
    `opened`               the prompt ends with `<think>`, as some chat templates have it, and the response begins
                           inside the thinking. A run's rewards read such a response with the tag before it; responses
                           from elsewhere may lack it.
    `answer_tags`          the answer is one `<answer>…</answer>`, with something in it and nothing around it.
    `boxed`                exactly so many `\boxed{}` in the answer, none of them empty or unclosed.
    `fenced_json`          exactly one fenced block in the answer; it is marked as JSON, or not marked, and is JSON.

    All of them must hold; with `partial` the value is the share that does. An empty answer is 0 in any case.
    The tags must be in the response's text: where a tokenizer takes them for special tokens, they are not.
    """
    text = response.strip()
    if opened and not text.startswith("<think>"):
        text = "<think>" + response.rstrip()
    opening, closing = text.count("<think>"), text.count("</think>")
    answer = text.rpartition("</think>")[2] if closing else "" if opening else text
    inner = answer.strip()
    tagged = re.fullmatch(r"<answer>(.*)</answer>", inner, re.DOTALL)
    if not says_something(re.sub(r"</?answer>", "", inner)):
        return Verdict(0.0, "no_answer", "no answer after the thinking")
    found = [("thinking", _thinks_well(text, thinking, opening, closing, opened=opened))]
    if answer_tags:
        once = inner.count("<answer>") == inner.count("</answer>") == 1
        found.append(("answer tags", once and tagged is not None and says_something(tagged[1])))
    if boxed is not None:
        found.append(("boxes", _has_boxes(inner, boxed)))
    if fenced_json:
        found.append(("JSON", _has_json(inner)))
    wrong = [name for name, holds in found if not holds]
    value = 1.0 - len(wrong) / len(found) if partial else float(not wrong)
    return Verdict(value, "ok", f"wrong: {', '.join(wrong)}" if wrong else "as asked")


def _thinks_well(text: str, thinking: str, opening: int, closing: int, *, opened: bool) -> bool:
    if opening == closing == 0:
        return thinking != "required"
    if not (opening == closing == 1 and text.startswith("<think>") and text.find("</think>") > 0):
        return False
    inside = says_something(text[len("<think>") : text.find("</think>")])
    if thinking == "forbidden":
        return opened and not inside
    return inside or thinking == "optional"


_BOX = re.compile(r"\\(?:boxed|fbox)\b")


def _has_boxes(answer: str, wanted: int) -> bool:
    found = boxes(answer, braceless=False)
    return len(_BOX.findall(answer)) == len(found) == wanted and all(says_something(box.text) for box in found)


_FENCED = re.compile(r"(?:^|\n)[ \t]*```([\w+-]*)[ \t]*\n(.*)\n[ \t]*```[ \t]*(?:\n|$)", re.DOTALL)


def _has_json(answer: str) -> bool:
    block = _FENCED.search(answer) if answer.count("```") == 2 else None
    if block is None or block[1].lower() not in ("", "json"):
        return False
    try:
        json.loads(block[2], parse_constant=_refuse)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
