"""Rules for recipe values beyond their types, and the wording of broken rules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import AfterValidator, ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from morl.error_messages import did_you_mean, explain

Loc = tuple[str | int, ...]
"""Path of keys and indices below a model."""

MISSING = "required, and missing"


class NoRewards:
    """Stand-in for the rewards of an objective whose rewards are all unusable.

    `inspect_document` sets it, so that the data of the objective can still be checked.
    """


class Rule:
    """A broken rule: its path below the model, its message, and the paths that the message depends on."""

    def __init__(self, loc: Loc, message: str, depends: Sequence[Loc] = ()) -> None:
        self.loc = loc
        self.message = message
        self.depends = tuple(depends)


def refuse(title: str, rules: Sequence[Rule]) -> None:
    """Raises: ValidationError with one item per rule, if there are any."""
    if rules:
        items = [
            InitErrorDetails(
                type=PydanticCustomError(
                    "rule", "{text}", {"text": rule.message, "depth": len(rule.loc), "depends": rule.depends}
                ),
                loc=rule.loc,
                input=None,
            )
            for rule in rules
        ]
        raise ValidationError.from_exception_data(title, items)


def rule_error(message: str) -> PydanticCustomError:
    """The error for a validator of a single value to raise."""
    return PydanticCustomError("rule", "{text}", {"text": message, "depth": 0, "depends": ()})


def not_a_truth_value(value: Any) -> Any:
    """Refuse true and false in place of a number."""
    if isinstance(value, bool):
        raise rule_error(f"should be a number, not {str(value).lower()}")
    return value


def matches(pattern: str, rule: str) -> AfterValidator:
    """A validator that refuses text unless the whole of it matches a pattern; `rule` is the error message."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise rule_error(f"{rule}, not {value!r}")
        return value

    return AfterValidator(check)


def check_template(value: Any) -> Any:
    """Refuse strings that are not valid templates, in lists and mappings too; other values are constants."""
    for item in value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ():
        check_template(item)
    if isinstance(value, str):
        from morl.recipe.template_syntax import flaw_of

        if flaw := flaw_of(value):
            raise rule_error(flaw)
    return value


_PARTS = ("image", "video")
_ROLES = ("system", "user", "assistant", "tool")


def _content(value: Any, loc: Loc) -> list[Rule]:
    """The broken rules of one part of a message's content: text, an image or a video."""
    if isinstance(value, str):
        try:
            check_template(value)
        except PydanticCustomError as error:
            return [Rule(loc, error.message())]
        return [] if value.strip() else [Rule(loc, "empty: write what the model is asked")]
    if isinstance(value, Mapping):
        rules = [
            Rule((*loc, key), f"unknown key{did_you_mean(str(key), _PARTS)}") for key in value if key not in _PARTS
        ]
        if not rules and len(value) != 1:
            rules = [Rule(loc, "a part is text, {image: …} or {video: …}")]
        return rules or [rule for key, item in value.items() for rule in _text(item, (*loc, key))]
    return [Rule(loc, f"should be text, {{image: …}} or {{video: …}}, not {value!r}")]


def _text(value: Any, loc: Loc) -> list[Rule]:
    return _content(value, loc) if isinstance(value, str) else [Rule(loc, f"should be a template, not {value!r}")]


def _parts(value: Any, loc: Loc) -> list[Rule]:
    if not isinstance(value, list):
        return _content(value, loc)
    if not value:
        return [Rule(loc, "empty: write what the model is asked")]
    return [rule for index, part in enumerate(value) for rule in _content(part, (*loc, index))]


def _messages(value: list[Any]) -> list[Rule]:
    rules = []
    for index, message in enumerate(value):
        if not isinstance(message, Mapping):
            rules.append(Rule((index,), "a prompt is either all parts or all {role: …, content: …} messages"))
            continue
        for key in message:
            if key not in ("role", "content"):
                rules.append(Rule((index, key), f"unknown key{did_you_mean(key, ('role', 'content'))}"))
        for key in ("role", "content"):
            if key not in message:
                rules.append(Rule((index, key), MISSING))
        if "role" in message and message["role"] not in _ROLES:
            rules.append(Rule((index, "role"), f"should be one of {', '.join(_ROLES)}, not {message['role']!r}"))
        elif message.get("role") == "assistant" and index == len(value) - 1:
            rules.append(Rule((index, "role"), "the last message is the one to answer: it cannot be the assistant's"))
        if "content" in message:
            rules += _parts(message["content"], (index, "content"))
    return rules


def check_prompt(value: Any) -> Any:
    """Refuse anything but a template, a list of parts, a list of messages, or `{messages: a template}`."""
    if isinstance(value, Mapping):
        if set(value) != {"messages"}:
            rules = [Rule((), "should be text, a list of parts or of messages, or {messages: a field that holds them}")]
        elif not isinstance(value["messages"], str):
            rules = [Rule(("messages",), 'should be a template for a field that holds messages: "{{ field }}"')]
        else:
            rules = _text(value["messages"], ("messages",))
        refuse("prompt", rules)
        return value
    is_chat = isinstance(value, list) and any(isinstance(m, Mapping) and ("role" in m or "content" in m) for m in value)
    refuse("prompt", _messages(value) if is_chat else _parts(value, ()))
    return value


def sentence(item: ErrorDetails, known: Iterable[str]) -> str:
    """The text of a validation error: the rule and the remedy."""
    if item["type"] == "rule":
        return item["msg"]
    shown = "empty" if item["input"] is None else f"not {item['input']!r}"[:80]
    if item["type"] in ("model_type", "dict_type", "model_attributes_type"):
        return f"should be a mapping (key: value), {shown}"
    if item["type"] in ("list_type", "tuple_type"):
        return f"should be a list, {shown}"
    if item["type"] == "too_short":
        return f"needs at least {item['ctx']['min_length']} item, and has none"
    return explain(item, known).removeprefix("input ")
