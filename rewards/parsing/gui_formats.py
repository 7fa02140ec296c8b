r"""GUI actions in the text of an answer, in the formats of models and data sets.

These are: JSON objects with an `action`, `action_type` or `operation`, lists of them, tool calls
(`{"name": "computer_use", "arguments": {"action": …}}`), printed Python dictionaries, and on their own line calls
(`click(start_box='(1,2)')`) and verbs (`CLICK <point>[[1,2]]</point>`).
Nothing that is read is ever executed, and reading takes linear time.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from morl.rewards.parsing.answer import offered_together
from morl.rewards.parsing.gui_calls import QUOTED, StepsInText, call_at, unescaped, verb_at
from morl.rewards.parsing.gui_names import action_type
from morl.rewards.parsing.gui_steps import Convention, Step, Unread, pointed, to_action

MAX_TAIL = 50_000
"""Only the last characters of an answer are read, this many."""
MAX_ACTIONS = 200
"""The most actions of an answer."""


def steps_from(value: Any, scroll: Convention = "finger") -> list[Step]:
    """The steps in a decoded JSON value; empty when it describes no actions."""
    if isinstance(value, Unread):
        return [value]
    if isinstance(value, Mapping):
        if isinstance(value.get("actions"), list):
            return steps_from(value["actions"], scroll)
        named = named_action(value)
        return [] if named is None else [to_action(*named, scroll)]
    if not isinstance(value, list | tuple):
        return []
    items = [(named_action(item) if isinstance(item, Mapping) else None, item) for item in value]
    if not any(named or isinstance(item, Unread) for named, item in items):
        return []
    return [
        to_action(*named, scroll) if named else item if isinstance(item, Unread) else Unread("no action")
        for named, item in items
    ]


_ARGUMENTS = ("arguments", "args", "parameters", "params", "action_args")


def named_action(value: Mapping[str, Any], depth: int = 0) -> tuple[str, Mapping[str, Any]] | None:
    """The name of the action that an object describes, and the object with its arguments."""
    value = {key.lower(): item for key, item in value.items() if isinstance(key, str)}
    if "arguments" in value and isinstance(value.get("name"), str):
        arguments = value["arguments"]
        if isinstance(arguments, str):
            arguments = decoded(arguments)
        if not isinstance(arguments, Mapping):
            return value["name"], {}
        return (named_action(arguments, 1) if depth == 0 else None) or (value["name"], arguments)
    for key in ("action", "action_type", "action_name", "operation", "op", "type"):
        name = value.get(key)
        inner = next((value[key] for key in _ARGUMENTS if isinstance(value.get(key), Mapping)), None)
        if isinstance(name, str) and inner is not None:
            value = {**value, **inner}
        # Many objects that are not actions have a type.
        if isinstance(name, str) and (key != "type" or action_type(name)[0]):
            return name, value
        if isinstance(name, Mapping) and depth == 0:
            return named_action({**{k: v for k, v in value.items() if k != key}, **name}, 1)
    return None


def read_actions(text: str, scroll: Convention = "finger") -> list[Step]:
    """The steps that a text commits to, in order.

    Steps separated only by marks, line ends, "and" or "then" are one sequence. After other words, later steps
    replace the earlier ones.

    Raises: ValueError when there is no step, there are too many, or alternatives are offered ("or").
    """
    text = text[-MAX_TAIL:].strip()
    steps: list[Step] = []
    last = 0
    for part in _scan(text, scroll):
        gap = text[last : part.start]
        if not steps or _one_sequence(gap):
            steps = steps + part.steps
        elif part.steps != steps and _alternatives(gap):
            raise ValueError("alternatives are offered")
        else:
            steps = part.steps
        last = part.end
        if len(steps) > MAX_ACTIONS:
            raise ValueError(f"more than {MAX_ACTIONS} actions")
    if not steps:
        raise ValueError("no action")
    return pointed(steps)


# Tags, headers, and lines of a script without effect.
_BETWEEN = re.compile(
    r"<[^<>]{0,30}>|\b(?:action|step)(?:[ \t]*+[0-9]{1,3}\b|[*_]{0,2}[ \t]*+[:：])"
    r"|^[ \t]*+(?:#[^\n]*+|(?:time|pyautogui)\.sleep\([^()\n]*+\))",
    re.IGNORECASE | re.MULTILINE,
)
_WORD = re.compile(r"[^\W\d_]+")
_JOINING = frozenset("and then next finally first second third json python plaintext".split())  # noqa: SIM905
_HEDGING = frozenset("or either alternatively maybe perhaps".split())  # noqa: SIM905
_LAST_HEADER = re.compile(r"\n[ \t>*#_-]*+(?:final )?actions?[*_]{0,2}[ \t]*+:[*_`\s]*+$", re.IGNORECASE)


def _one_sequence(gap: str) -> bool:
    if gap.isspace():
        return True
    gap = _BETWEEN.sub(" ", gap) if len(gap) <= 200 else "|"
    return not ("/" in gap or "|" in gap) and _JOINING.issuperset(_WORD.findall(gap.lower()))


def _alternatives(gap: str) -> bool:
    header = _LAST_HEADER.search(gap[-50:])
    if header is None:
        return offered_together(gap)
    # A new "Action:" line replaces the one before it, despite the words between them.
    words = _WORD.findall(gap[: len(gap) - len(header.group())].lower()) if len(gap) <= 200 else []
    return bool(words) and _HEDGING.issuperset(words)


_TAGS = r"(?:</?[|\w]{2,80}>\s*+)*+"
_LEAD = r"^[ \t>*`•-]*+(?:[0-9]{1,3}[.)][ \t]*+)?+(?:(?i:step)[ \t]*+[0-9]{0,3}[ \t]*+:[ \t]*+)?+"
_HEADER = r"\b(?i:actions?|operations?)[*_]{0,2}[ \t]*+[0-9]{0,3}+[ \t]*+[:：][*_]{0,2}\s*+[>*`-]*+[ \t]*+"
_BEGIN = re.compile(
    rf"(?P<json>[{{\[])|(?:{_LEAD}{_TAGS}|{_HEADER}{_TAGS}|;[ \t]*+)"
    r"(?:(?P<call>(?:[A-Za-z]\w{0,40}\.)?[A-Za-z]\w{0,40})(?=\()"
    r"|(?P<verb>[A-Z][A-Z_]{2,40}\b(?![(:]|\.[ \t]*+[^\s])|[A-Za-z_]{3,40}(?=[ \t]*+<point>)))"
    rf"|{_HEADER}(?P<word>[a-z][a-z_]{{2,40}})(?=[ \t`*.]*+$)",
    re.MULTILINE,
)
MAX_TRIES = 1000
"""The most failed attempts to read an action; the text after them is not read."""


def _scan(text: str, scroll: Convention) -> Iterator[StepsInText]:
    position, tries = 0, 0
    while tries < MAX_TRIES and (match := _BEGIN.search(text, position)):
        part = None
        if match["json"]:
            try:
                part = _json_at(text, match.start(), scroll)
            except RecursionError:
                tries += 100
        elif match["call"]:
            part = call_at(text, match, scroll)
        else:
            part = verb_at(text, match, scroll)
        tries += 0 if part else 10 if match["call"] else 1
        position = part.end if part else match.end()
        if part and part.steps:
            yield part


def _object(pairs: list[tuple[str, Any]]) -> Any:
    mapping = dict(pairs)
    return mapping if len(mapping) == len(pairs) else Unread("a duplicate key")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, strict=False)


def decoded(text: str) -> Any:
    """The value of a text that is JSON, else None."""
    try:
        return _DECODER.decode(text)
    except (ValueError, RecursionError):
        return None


_SIMPLE = rf"(?:{QUOTED}|[-+0-9.eE]{{1,40}}+|True|False|None|true|false|null)"
_LIST = rf"[\[(](?:\s*+{_SIMPLE}\s*+,?+){{0,20}}+\s*+[\])]"
_PYTHON = re.compile(
    rf"\{{(?:\s*+['\"]\w{{1,40}}['\"]\s*+:\s*+(?:{_SIMPLE}|{_LIST}|\[\s*+{_LIST}\s*+\])\s*+,?+){{1,20}}+\s*+\}}",
    re.DOTALL,
)
_PYTHON_TOKEN = re.compile(rf"(?P<quoted>{QUOTED})|,\s*+(?=[\])}}])|[()]|True|False|None", re.DOTALL)
_AS_JSON = {"(": "[", ")": "]", "True": "true", "False": "false", "None": "null", ",": ""}


def _json_at(text: str, start: int, scroll: Convention) -> StepsInText | None:
    """The steps of the JSON value or printed Python dictionary that starts there; None without one.

    A trailing comma in either is accepted.
    """
    try:
        value, end = _DECODER.raw_decode(text, start)
    except ValueError:
        match = _PYTHON.match(text, start)
        value = decoded(_PYTHON_TOKEN.sub(_json_token, match.group())) if match else None
        if match is None or value is None:
            return None
        end = match.end()
    return StepsInText(start, end, steps_from(value, scroll))


def _json_token(match: re.Match[str]) -> str:
    if match["quoted"]:
        return json.dumps(unescaped(match["quoted"][1:-1]))
    return _AS_JSON[match.group().strip()]
