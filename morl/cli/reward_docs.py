"""`morl rewards`: all rewards with options and origin, or the documentation of one."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import annotated_types
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from morl.errors import UsageError
from morl.registry import REWARDS, options_model, wanted_arguments
from morl.rewards import Example
from morl.traits import is_async, needs_gold, traits_of

MAX_SHOWN = 1000
"""Characters of an example's response or gold that are printed."""


def describe_rewards(name: str | None = None) -> str:
    """All rewards with options and origin; or the documentation of one.

    Raises: UsageError when no reward has this name.
    """
    return _explained(name) if name else "\n\n".join(_listed(entry) for entry in REWARDS.entries())


def _listed(name: str) -> str:
    entry = REWARDS.entry(name)
    try:
        function = entry.load()
        summary = (inspect.getdoc(function) or "").partition("\n")[0]
        options = ", ".join(option(field, info) for field, info in options_model(function).model_fields.items())
    except UsageError as error:
        summary, options = str(error), "unknown"
    return f"{name}\n  {summary}\n  options: {options or 'none'}\n  from:    {entry.origin}"


def _explained(name: str) -> str:
    entry = REWARDS.entry(name)
    function = entry.load()
    traits = traits_of(function)
    arguments = [argument for argument in wanted_arguments(function) if argument != "resource"]
    facts = [
        f"from:  {entry.origin}",
        f"asks:  {', '.join(arguments) or 'nothing'}{'; each prompt needs a gold' if needs_gold(function) else ''}",
        f"runs:  {_execution(function)}, for {traits.deadline_s:g} s at most unless the term has a 'deadline_s'",
    ]
    parts = [name, inspect.getdoc(function) or "It has no documentation.", "\n".join(facts)]
    fields = options_model(function).model_fields
    lines = [line for field, info in fields.items() for line in _option_lines(field, info)]
    parts.append("\n".join(["Options:", *lines]) if fields else "It has no options.")
    if traits.examples:
        parts.append("\n".join(["Examples:", *map(_example, traits.examples)]))
    parts.append("\n".join(["In a recipe:", *_recipe_lines(name, function, traits.examples)]))
    return "\n\n".join(parts)


def _execution(function: Callable[..., Any]) -> str:
    """Where and how a reward runs, in words."""
    traits = traits_of(function)
    place = "on the event loop" if is_async(function) or traits.runs == "inline" else "in a worker process"
    resource = ", with a resource that is kept for the run" if traits.resource is not None else ""
    return f"{place}{', many responses together' if traits.batch else ''}{resource}"


def _example(example: Example) -> str:
    value = "no score" if example.value is None else f"{example.value:g}"
    further = "".join(f", {key}: {value!r}" for key, value in {**example.options, **example.meta}.items())
    return f"  {value:>8}  response: {_shown(example.response)}, gold: {_shown(example.gold)}{further}"


def _shown(value: Any) -> str:
    """A value as Python writes it, cut in its middle when it is long: some examples are."""
    text = repr(value)
    if len(text) <= MAX_SHOWN:
        return text
    half = MAX_SHOWN // 2
    return f"{text[:half]} … {text[-half:]} ({len(text):,} characters)"


def _recipe_lines(name: str, function: Callable[..., Any], examples: Sequence[Example]) -> Iterator[str]:
    """The recipe lines that use the reward, with its required options."""
    options: dict[str, Any] = {"use": name}
    for field, info in options_model(function).model_fields.items():
        if info.is_required():
            options[field] = next((e.options[field] for e in examples if field in e.options), "…")
    if needs_gold(function):
        yield '  gold: "{{ answer }}"'
    yield f"  rewards: [{flow(options)}]"


def flow(value: Any) -> str:
    """A value on one line of YAML."""
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{flow(key)}: {flow(item)}' for key, item in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(flow, value))}]"
    is_plain = isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w-]*|…", value) is not None
    is_word = is_plain and value.lower() not in ("true", "false", "null", "yes", "no", "on", "off", "y", "n")
    return str(value) if is_word else json.dumps(value, ensure_ascii=False, default=str)


def _option_lines(name: str, info: FieldInfo) -> Iterator[str]:
    rules = ", ".join(filter(None, ["required" if info.is_required() else "", bounds(info)]))
    yield f"  {option(name, info)}{f' ({rules})' if rules else ''}"
    if description := _description(info):
        yield from textwrap.wrap(description, 110, initial_indent=" " * 6, subsequent_indent=" " * 6)


def option(name: str, info: FieldInfo) -> str:
    """An option as one line: `least: float = 0.0`."""
    text = f"{name}: {type_name(info.annotation)}"
    default = json.dumps(info.default, ensure_ascii=False, default=repr)
    return text if info.is_required() or info.default is PydanticUndefined else f"{text} = {default}"


def type_name(annotation: Any) -> str:
    """A readable type name: literals by their values, without bounds."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Literal:
        return " | ".join(str(argument) for argument in arguments)
    if origin in (typing.Union, types.UnionType):
        return " | ".join(type_name(argument) for argument in arguments)
    if origin is typing.Annotated:
        return type_name(arguments[0])
    if origin is not None and arguments:
        return f"{getattr(origin, '__name__', origin)}[{', '.join(type_name(argument) for argument in arguments)}]"
    return "null" if annotation is type(None) else str(getattr(annotation, "__name__", annotation))


def _metadata(info: FieldInfo) -> Iterator[Any]:
    """The annotated metadata of an option, including that of the branches of a union."""
    yield from info.metadata
    waiting = [info.annotation]
    while waiting:
        annotation = waiting.pop()
        for item in getattr(annotation, "__metadata__", ()):
            yield from ([item, *item.metadata] if isinstance(item, FieldInfo) else [item])
        if typing.get_origin(annotation) in (typing.Annotated, typing.Union, types.UnionType):
            waiting += typing.get_args(annotation)


def bounds(info: FieldInfo) -> str:
    """The bounds of a number or a length, in words: `0 or more, less than 1`."""
    words: list[str] = []
    for item in _metadata(info):
        match item:
            case annotated_types.Ge(ge=bound):
                words.append(f"{bound} or more")
            case annotated_types.Gt(gt=bound):
                words.append(f"more than {bound}")
            case annotated_types.Le(le=bound):
                words.append(f"{bound} or less")
            case annotated_types.Lt(lt=bound):
                words.append(f"less than {bound}")
            case annotated_types.MultipleOf(multiple_of=factor):
                words.append(f"a multiple of {factor}")
            case annotated_types.MinLen(min_length=length):
                words.append(f"at least {length} of them" if length > 1 else "not empty")
            case annotated_types.MaxLen(max_length=length):
                words.append(f"at most {length} of them")
    return ", ".join(words)


def _description(info: FieldInfo) -> str:
    nested = (item.description for item in _metadata(info) if isinstance(item, FieldInfo) and item.description)
    return info.description or next(nested, "") or ""
