r"""The response has the required structure: thinking, answer tags, boxes, a JSON block."""

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
def format(  # noqa: A001  # its name in recipes
    response: str,
    *,
    thinking: Literal["required", "optional", "forbidden"] = "required",
    opened: bool = False,
    answer_tags: bool = False,
    boxed: Annotated[int, Field(ge=0)] | None = None,
    fenced_json: bool = False,
    partial: bool = False,
) -> Verdict:
    r"""1 when the response has the structure that the options ask for, else 0. Content is not checked.

    `thinking: required`   exactly one non-empty `<think>…</think>` at the start, and an answer after it.
    `thinking: optional`   the same, or no such tags at all, or empty thinking.
    `thinking: forbidden`  no such tags; if the prompt opened the thinking, it must be closed at once.
    `opened`               the prompt ends with `<think>`, as in some chat templates, so that the response begins
                           inside the thinking. In a run, rewards read such a response with the tag before it;
                           responses from a file may lack it.
    `answer_tags`          the answer is one non-empty `<answer>…</answer>` with nothing around it.
    `boxed`                the exact number of `\boxed{}` in the answer; none may be empty or unclosed.
    `fenced_json`          the answer has exactly one fenced block, marked as JSON or not marked, and it is valid JSON.

    All of them must hold; with `partial` the value is the share that does. An empty answer always scores 0.
    The tags must be in the response's text: they are not if the tokenizer treats them as special tokens.
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
    checks = [("thinking", _thinks_well(text, thinking, opening, closing, opened=opened))]
    if answer_tags:
        once = inner.count("<answer>") == inner.count("</answer>") == 1
        checks.append(("answer tags", once and tagged is not None and says_something(tagged[1])))
    if boxed is not None:
        checks.append(("boxes", _has_boxes(inner, boxed)))
    if fenced_json:
        checks.append(("JSON", _has_json(inner)))
    failed = [name for name, holds in checks if not holds]
    value = 1.0 - len(failed) / len(checks) if partial else float(not failed)
    return Verdict(value, "ok", f"wrong: {', '.join(failed)}" if failed else "as asked")


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
    contents = boxes(answer, braceless=False)
    return len(_BOX.findall(answer)) == len(contents) == wanted and all(says_something(box.text) for box in contents)


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
    raise ValueError(f"{name} is not JSON")
