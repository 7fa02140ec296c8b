"""Names of GUI actions, keys and outcomes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

ActionType = Literal[
    "click", "scroll", "input", "drag", "open", "press",
    "finished", "longpress", "hover", "select", "wait", "appswitch",
]  # fmt: skip
Direction = Literal["up", "down", "left", "right"]

OPPOSITE: dict[str, Direction] = {"up": "down", "down": "up", "left": "right", "right": "left"}

# Names in lower case without separators, with the type and the arguments that each implies.
_NAMES: dict[str, tuple[ActionType, dict[str, Any]]] = {
    **dict.fromkeys(("click", "leftclick", "leftsingle", "singleclick", "tap", "touch"), ("click", {})),
    **dict.fromkeys(("doubleclick", "leftdouble", "doubletap", "leftdoubleclick"), ("click", {"clicks": 2})),
    "tripleclick": ("click", {"clicks": 3}),
    **dict.fromkeys(("rightclick", "rightsingle"), ("click", {"button": "right"})),
    "middleclick": ("click", {"button": "middle"}),
    **dict.fromkeys(("longpress", "longclick", "longtap", "touchandhold"), ("longpress", {})),
    **dict.fromkeys(("hover", "mousemove", "moveto", "move"), ("hover", {})),
    **dict.fromkeys(("scroll", "swipe"), ("scroll", {})),
    "hscroll": ("scroll", {"wheel": "across"}),
    **{f"{verb}{way}": ("scroll", {"direction": way}) for verb in ("scroll", "swipe") for way in OPPOSITE},
    **dict.fromkeys(
        ("input", "type", "inputtext", "typetext", "write", "typewrite", "entertext", "settext", "fill"), ("input", {})
    ),
    **dict.fromkeys(("select", "selectoption"), ("select", {})),
    **dict.fromkeys(("drag", "leftdrag", "leftclickdrag", "draganddrop", "dragto"), ("drag", {})),
    **dict.fromkeys(("open", "openapp", "launch", "launchapp"), ("open", {})),
    **dict.fromkeys(("press", "key", "hotkey", "presskey", "keypress", "systembutton"), ("press", {})),
    **dict.fromkeys(("back", "navigateback", "goback"), ("press", {"keys": "back"})),
    **dict.fromkeys(("home", "navigatehome", "gohome"), ("press", {"keys": "home"})),
    **dict.fromkeys(("enter", "keyboardenter"), ("press", {"keys": "enter"})),
    **dict.fromkeys(("finished", "finish", "terminate", "status", "stop"), ("finished", {})),
    **dict.fromkeys(
        ("complete", "completed", "done", "taskcomplete", "statustaskcomplete"), ("finished", {"status": "success"})
    ),
    **dict.fromkeys(("impossible", "infeasible", "fail", "statustaskimpossible"), ("finished", {"status": "failure"})),
    "wait": ("wait", {}),
    **dict.fromkeys(("appswitch", "switchapp"), ("appswitch", {})),
}
STATUSES = {
    **dict.fromkeys(("success", "successful", "succeeded", "complete", "completed", "done", "finished"), "success"),
    **dict.fromkeys(("failure", "fail", "failed", "unsuccessful", "impossible", "infeasible"), "failure"),
}
_KEYS = {
    "control": "ctrl", "controlleft": "ctrl", "ctrlleft": "ctrl", "controlright": "ctrl", "ctrlright": "ctrl",
    "cmd": "meta", "command": "meta", "win": "meta", "windows": "meta", "super": "meta", "option": "alt",
    "altleft": "alt", "altright": "alt", "shiftleft": "shift", "shiftright": "shift",
    "esc": "escape", "return": "enter", "del": "delete", "ins": "insert", "bksp": "backspace",
    "arrowup": "up", "arrowdown": "down", "arrowleft": "left", "arrowright": "right",
    "uparrow": "up", "downarrow": "down", "leftarrow": "left", "rightarrow": "right",
    "pgdn": "pagedown", "pgdown": "pagedown", "pgup": "pageup", "spacebar": "space", "prtsc": "printscreen",
    "goback": "back", "gohome": "home", "recents": "recent", "appswitch": "recent", "overview": "recent",
}  # fmt: skip
_KNOWN_KEYS = frozenset((
    "ctrl", "meta", "alt", "shift", "escape", "enter", "delete", "insert", "backspace", "up", "down", "left", "right",
    "pagedown", "pageup", "space", "tab", "home", "end", "back", "menu", "recent", "power", "printscreen", "capslock",
    "volumeup", "volumedown", *(f"f{number}" for number in range(1, 25)),
))  # fmt: skip
_MODIFIERS = frozenset(("ctrl", "meta", "alt", "shift"))
_SEPARATORS = str.maketrans("", "", "_- ")


def plain_name(name: str) -> str:
    """A name in lower case without separators; empty when it is too long for a name."""
    return name.translate(_SEPARATORS).strip().lower() if len(name) < 50 else ""


def action_type(name: str) -> tuple[ActionType | None, Mapping[str, Any]]:
    """The type of an action's name and the arguments that it implies: `PRESS_HOME` is a press of the key home."""
    plain = plain_name(name)
    if plain in _NAMES:
        return _NAMES[plain]
    if plain.startswith("press") and _key(plain[5:]) in _KNOWN_KEYS:
        return "press", {"keys": plain[5:]}
    return None, {}


def key_set(value: Any) -> frozenset[str]:
    """The keys of a name, of a combination such as `ctrl+c`, `ctrl c` or `CTRL_A`, or of a list of these.

    Raises: ValueError when it names no key.
    """
    keys: set[str] = set()
    for item in value if isinstance(value, list | tuple) else [value]:
        if not isinstance(item, str) or len(item) > 200:
            raise ValueError("keys are given by name")
        if item == " " or _key(item.strip()) in _KNOWN_KEYS:
            keys.add("space" if item == " " else _key(item.strip()))
            continue
        item = re.sub(r"[\[\]'\",]", " ", item) if item.lstrip().startswith("[") else item
        parts = re.sub(r"(?<=[^\s+])\s*+\+", " ", item).split()
        if len(parts) == 1 and _key(re.split(r"[-_]", parts[0])[0]) in _MODIFIERS:
            parts = re.findall(r"[^-_]+|(?<=[-_])[-_]", parts[0])
        keys.update(_key(part) for part in parts)
    if not keys:
        raise ValueError("no key is named")
    return frozenset(keys)


def _key(name: str) -> str:
    name = name.casefold()
    if name[-1:].isalnum():
        name = name.translate(_SEPARATORS).removeprefix("keycode")
    return _KEYS.get(name, name)
