"""Actions as calls or verbs on their own line: `click(start_box='(1,2)')`, `CLICK <point>[[1,2]]</point>`."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from morl.rewards.parsing.gui_names import ActionType, action_type, plain_name
from morl.rewards.parsing.gui_steps import Action, Convention, Step, Unread, to_action
from morl.rewards.parsing.stated_values import finite


class StepsInText(NamedTuple):
    """Steps and their position in the text."""

    start: int
    end: int
    steps: list[Step]


QUOTED = r"'(?:[^'\\]|\\.){0,3000}+'|\"(?:[^\"\\]|\\.){0,3000}+\""
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|.)", re.DOTALL)
_ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}


def unescaped(text: str) -> str:
    """The value of a quoted text without its quotes."""

    def replaced(match: re.Match[str]) -> str:
        code = match[1]
        return chr(int(code[1:], 16)) if len(code) > 1 else _ESCAPED.get(code, code)

    return _ESCAPE.sub(replaced, text) if "\\" in text else text


# Quotes inside a text are often not escaped: the text ends only before the next argument or the end of the call.
_ENDS = r"(?!\s*+(?:,\s*+[A-Za-z_]\w{0,30}\s*+=|\)[ \t]*+(?:[;#`*.<\n]|$)))"
_ARGUMENT = re.compile(
    rf"\s*+(?P<key>[A-Za-z_]\w{{0,30}})\s*+=\s*+(?:"
    rf"'(?P<single>(?:[^'\\]|\\.|'{_ENDS}){{0,3000}}+)'|\"(?P<double>(?:[^\"\\]|\\.|\"{_ENDS}){{0,3000}}+)\""
    r"|(?P<bare><[|\w]{3,15}>[^<>]{0,200}</?[|\w]{3,15}>|\[\[[^\[\]]{0,200}\]\]|\[[^\[\]]{0,200}\]|\([^()]{0,200}\)|[^\s,()\[\]'\"]{1,200}+)"
    r")\s*+(?P<more>,?+)",
    re.DOTALL,
)
_PAIR = r"[-+0-9.eE]{1,40}+\s*+,\s*+[-+0-9.eE]{1,40}+"
_POSITION = re.compile(rf"\s*+(?:({_PAIR})|\(\s*+({_PAIR})\s*+\)|\[\s*+({_PAIR})\s*+\])\s*+(?=[,)]),?+")
_LIST_OPENS, _LIST_ENDS = re.compile(r"\s*+\["), re.compile(r"\s*+\]\s*+(?=[,)]),?+")
_VALUE = re.compile(
    r"\s*+(?:'(?P<single>(?:[^'\\]|\\.){0,3000}+)'|\"(?P<double>(?:[^\"\\]|\\.){0,3000}+)\"|(?P<bare>[-+]?[0-9.]{1,20}+))"
    r"\s*+(?=[,)\]]),?+",
    re.DOTALL,
)
_CALL_ENDS = re.compile(r"\s*+\)[`*.]*+[ \t]*+(?:#[^\n]*+)?+(?=[;<\n]|$)")
_CALL_IN_COMMENT = re.compile(r"\w\(")
_LINE_ENDS = re.compile(r"[ \t`*.]*+(?=[;<\n]|$)")


def _literal(match: re.Match[str]) -> str:
    quoted = match["single"] if match["single"] is not None else match["double"]
    return match["bare"] if quoted is None else unescaped(quoted)


def _positional(text: str, position: int, kind: ActionType | None) -> tuple[dict[str, Any], int]:
    """A call's positional arguments and their end: one or two places, a text, a number, or keys."""
    if kind not in _ARGUMENT_OF and kind != "wait":
        places: list[str] = []
        while len(places) < (2 if kind == "drag" else 1) and (place := _POSITION.match(text, position)):
            places.append(place[place.lastindex or 0])
            position = place.end()
        if len(places) == 1:
            return dict(zip("xy", places[0].split(","), strict=True)), position
        return dict(zip(("start_point", "end_point"), places, strict=False)), position
    start = _POSITION.match(text, position) if kind == "scroll" else None
    if start and (end := _POSITION.match(text, start.end())):
        return {"start_point": start[start.lastindex or 0], "end_point": end[end.lastindex or 0]}, end.end()
    literals: list[str] = []
    opens = _LIST_OPENS.match(text, position) if kind == "press" else None
    position = opens.end() if opens else position
    while (kind == "press" or not literals) and (value := _VALUE.match(text, position)):
        literals.append(_literal(value))
        position = value.end()
    closes = _LIST_ENDS.match(text, position) if opens else None
    position = closes.end() if closes else position
    if not literals or kind == "wait" or kind is None:
        return {}, position
    if kind == "scroll" and finite(literals[0]) is not None:
        return {"pixels": literals[0]}, position
    return {_ARGUMENT_OF[kind]: literals if kind == "press" else literals[0]}, position


def call_at(text: str, match: re.Match[str], scroll: Convention) -> StepsInText | None:
    """The call on this line; unread unless its arguments are literals and at most a comment follows it."""
    name, repeated = match["call"].rpartition(".")[2], False
    kind = action_type(name)[0]
    fields, position = _positional(text, match.end() + 1, kind)
    while argument := _ARGUMENT.match(text, position):
        repeated |= argument["key"] in fields
        fields[argument["key"]] = _literal(argument)
        position = argument.end()
        if not argument["more"]:
            break
    end = _CALL_ENDS.match(text, position)
    if end is not None and _CALL_IN_COMMENT.search(end.group()):
        end = None
    if end is None:
        if kind is None and (name == "sleep" or not match["call"].startswith("pyautogui.")):
            return None
        stop = text.find("\n", position)
        unread = Unread(f"{name}: unreadable arguments, or words after them")
        return StepsInText(match.start("call"), len(text) if stop < 0 else stop, [unread])
    if name == "do" and isinstance(fields.get("action"), str):  # AutoGLM's do(action="Tap", element=[1, 2])
        name = fields.pop("action")
        fields |= {"point": fields.pop("element")} if "element" in fields else {}
    if plain_name(name) in ("finish", "finished"):
        fields.setdefault("status", "success")
    step = Unread("a repeated argument") if repeated else to_action(name, fields, scroll)
    return StepsInText(match.start("call"), end.end(), [step])


_BRACKETED = re.compile(r"[ \t]*+\[(.{0,3000}?)\](?=[ \t`*.]*+(?:[<\n]|$))", re.DOTALL)
_PLAINLY = re.compile(r"[ \t]++(?:\"([^\"\n]{1,3000}+)\"|(?i:(up|down|left|right)\b))(?=[ \t`*.]*+(?:[<\n]|$))")
_REST = re.compile(r"[^\n;]*+")
_TWO_PLACES = re.compile(
    r"(<\w{3,10}>[^<>]{0,100}</\w{3,10}>)[ \t,]*+(?:(?i:to)[ \t]++)?+(<\w{3,10}>[^<>]{0,100}</\w{3,10}>)"
)
_ARGUMENT_OF: dict[ActionType, str] = {
    "input": "text", "select": "text", "open": "app", "appswitch": "app", "scroll": "direction", "press": "keys",
}  # fmt: skip


def verb_at(text: str, match: re.Match[str], scroll: Convention) -> StepsInText | None:
    """The verb on this line with its argument; None if it is an ordinary word."""
    verb = match.lastgroup or 0
    name, position, start = match[verb], match.end(), match.start(verb)
    bare = to_action(name, {}, scroll)
    kind, implied = action_type(name)
    if kind in ("click", "longpress", "hover", "drag"):
        rest = _REST.match(text, position)
        place = rest.group().strip(" \t`*.") if rest else ""
        if (not place and kind != "hover") or place[:1].isalpha():
            return None
        ends = _TWO_PLACES.fullmatch(place) if kind == "drag" else None
        fields = {"start_point": ends[1], "end_point": ends[2]} if ends else {"start_point": place} if place else {}
        return StepsInText(start, rest.end() if rest else position, [to_action(name, fields, scroll)])
    if kind in _ARGUMENT_OF and not implied:
        quoted = _BRACKETED.match(text, position) or _PLAINLY.match(text, position)
        if quoted is not None:
            argument = quoted[quoted.lastindex or 0]
            return StepsInText(start, quoted.end(), [to_action(name, {_ARGUMENT_OF[kind]: argument}, scroll)])
        return None
    end = _LINE_ENDS.match(text, position)
    return StepsInText(start, end.end(), [bare]) if end is not None and isinstance(bare, Action) else None
