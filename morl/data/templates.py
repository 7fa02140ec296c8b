"""Templates from rows to prompts: sandboxed Jinja, in which a missing field is an error."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from jinja2 import meta, nodes
from jinja2.sandbox import SandboxedEnvironment

from morl.error_messages import did_you_mean
from morl.errors import BadMediaError, DataError, MissingExtraError
from morl.media import KINDS, UNLIMITED, Limits, without_media
from morl.rewards import boxes
from morl.types import Prompt

Row = Mapping[str, Any]
Render = Callable[[Row], Any]
"""Turns the fields of a row into a value."""


class _NullError(ValueError):
    """A template printed a null field."""


def _refuse_null(value: Any) -> Any:
    if value is None:
        raise _NullError
    return value


@functools.cache
def _environment() -> SandboxedEnvironment:
    environment = SandboxedEnvironment(
        undefined=jinja2.StrictUndefined, finalize=_refuse_null, keep_trailing_newline=True, autoescape=False
    )
    environment.filters["boxed"] = _boxed
    return environment


def _boxed(text: str) -> str:
    r"""The filter `boxed`: the contents of the last `\boxed{}` of a text."""
    boxed = boxes(text)
    if not boxed:
        raise DataError(r"the filter 'boxed' finds no \boxed{} in the text")
    return boxed[-1].text


@functools.cache
def _compile(template: str) -> Render:
    """A template that is a single expression renders to its value, any other to text."""
    environment = _environment()
    body = environment.parse(template).body
    if len(body) == 1 and isinstance(body[0], nodes.Output) and len(body[0].nodes) == 1:
        inside = re.fullmatch(r"\s*\{\{[-+]?(.*?)[-+]?\}\}\s*", template, re.DOTALL)
        if inside and not isinstance(body[0].nodes[0], nodes.TemplateData):
            expression = environment.compile_expression(inside[1], undefined_to_none=False)
            return lambda fields: expression(fields)
    return environment.from_string(template).render


def _value(template: Any) -> Render:
    """Render a template, or a list or mapping with the templates in it."""
    if isinstance(template, str):
        render = _compile(template)

        def evaluate(fields: Row) -> Any:
            value = render(fields)
            if isinstance(value, jinja2.Undefined):
                str(value)  # raises, naming the missing field
            return _refuse_null(value)

        return evaluate
    if isinstance(template, Mapping):
        parts = {key: _value(item) for key, item in template.items()}
        return lambda fields: {key: part(fields) for key, part in parts.items()}
    if isinstance(template, list):
        items = [_value(item) for item in template]
        return lambda fields: [item(fields) for item in items]
    return lambda _: template


def _text(template: str) -> Render:
    return _environment().from_string(template).render


class PromptTemplate:
    """A recipe's `prompt` and `gold`, compiled to render rows.

    Args:
        prompt: text (one user message), a list of text, `{"image": …}` and `{"video": …}`,
            a list of messages `{"role", "content"}` whose content is either, or
            `{"messages": "{{ field }}"}` for a field that holds a conversation.
        gold: a template; a list or mapping that may hold templates; or a constant. A template
            that is a single expression, `"{{ box }}"`, gives the field's value; any other, text.
        folder: base of relative paths of images and videos; the working folder by default.
        limits: size limits for the model's input.
        downloads: the folder that keeps files named by URL; URLs are refused without one.

    Every field of the row is a variable; the row itself is `row`, for fields whose names
    are not identifiers: `{{ row["Final answer"] }}`.
    """

    def __init__(
        self,
        prompt: str | Sequence[Any] | Mapping[str, str],
        gold: Any = None,
        folder: Path | None = None,
        limits: Limits = UNLIMITED,
        downloads: Path | None = None,
    ) -> None:
        self._folder = folder
        self._downloads = downloads
        self._limits = limits
        self._conversation = _value(prompt["messages"]) if isinstance(prompt, Mapping) else None
        turns: Sequence[Any] = [] if isinstance(prompt, Mapping) else _turns(prompt)
        self._turns = [(str(turn["role"]), _parts(turn["content"])) for turn in turns]
        self._gold = None if gold is None else _value(gold)
        self._names = frozenset(_names(prompt) | _names(gold))

    def media_count(self, kind: str) -> int:
        """Number of media of a kind, `image` or `video`, in each prompt."""
        return sum(name == kind for _, parts in self._turns for name, _ in parts)

    def render(self, row: Row, id: str, objective: str, where: str = "") -> Prompt:  # noqa: A002
        """Render a row as a prompt.

        Args:
            row: the fields.
            id: id of the prompt.
            objective: name of the objective.
            where: the row as `file:line`, for errors.

        Raises: DataError when a field is missing or null, the prompt is empty, or a template fails; BadMediaError
            when an image or video is missing, or its header shows that it is unusable.
        """
        fields = {"row": row, **row}
        media: list[Any] = []
        try:
            if self._conversation is not None:
                messages = conversation(self._conversation(fields))
            else:
                messages = tuple({"role": role, "content": self._content(p, fields, media)} for role, p in self._turns)
            gold = None if self._gold is None else self._gold(fields)
        except MissingExtraError:
            raise
        except BadMediaError as error:
            raise BadMediaError(f"{where or id}: {error}") from error
        except Exception as error:
            raise DataError(f"{where or id}: {_reason(error, row, self._names)}") from error
        if not media and not any(message["content"].strip() for message in messages if message["role"] != "system"):
            raise DataError(f"{where or id}: the prompt is empty")
        return Prompt(id, objective, messages, tuple(media), gold, without_media(row))

    def _content(self, parts: Sequence[tuple[str, Render]], fields: Row, media: list[Any]) -> Any:
        """Text, or a list of typed parts where there is an image or video. Appends to `media`."""
        if all(kind == "text" for kind, _ in parts):
            return "".join(render(fields) for _, render in parts)
        typed = []
        for kind, render in parts:
            value = render(fields)
            if kind == "text":
                typed.append({"type": "text", "text": value})
            else:
                typed.append({"type": kind})
                media.append(KINDS[kind].of(value, self._folder, self._limits, self._downloads))
        return typed


def _turns(prompt: str | Sequence[Any]) -> Sequence[Any]:
    is_chat = not isinstance(prompt, str) and all(isinstance(part, Mapping) and "role" in part for part in prompt)
    return prompt if is_chat else [{"role": "user", "content": prompt}]


_ROLES = {"human": "user", "prompter": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}


def conversation(turns: Any) -> tuple[dict[str, str], ...]:
    """A data set's conversation as messages that end with the user's.

    Reads `role` or `from`, and `content`, `text` or `value`; maps the usual role names to `user` and `assistant`.
    Raises: DataError when it is not a conversation.
    """
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        raise DataError(f"'messages' needs a list of {{role, content}}, not {type(turns).__name__}")
    messages = []
    for index, turn in enumerate(turns):
        fields = turn if isinstance(turn, Mapping) else {}
        role = fields.get("role", fields.get("from"))
        content = next((fields[key] for key in ("content", "text", "value") if key in fields), None)
        if not isinstance(role, str) or not isinstance(content, str):
            raise DataError(f"message {index} needs a role and a content, both text")
        messages.append({"role": _ROLES.get(role.lower(), role.lower()), "content": content})
    if messages[-1]["role"] != "user":
        raise DataError(f"the last message is the {messages[-1]['role']}'s; the prompt must end with the user's")
    return tuple(messages)


def _names(template: Any) -> set[str]:
    """Names of the fields read by the templates in a value."""
    if isinstance(template, str):
        return meta.find_undeclared_variables(_environment().parse(template))
    items = template.values() if isinstance(template, Mapping) else template if isinstance(template, list) else ()
    return {name for item in items for name in _names(item)}


def _parts(content: Any) -> list[tuple[str, Render]]:
    """Content as pairs of type (text, image, video) and renderer."""
    pairs: list[tuple[str, Render]] = []
    for part in [content] if isinstance(content, str) else content:
        if isinstance(part, str):
            pairs.append(("text", _text(part)))
        else:
            pairs += [(kind, _value(template)) for kind, template in part.items()]
    return pairs


def _reason(error: Exception, row: Row, names: Collection[str]) -> str:
    """Why a template that reads the fields `names` failed, with the remedy."""
    if isinstance(error, DataError):
        return str(error)
    if isinstance(error, _NullError):
        null = sorted(name for name in names if name in row and row[name] is None)
        which = f"the field '{null[0]}'" if null else "a value that the template reads"
        return f"{which} is null; give it a value, or write {{{{ {null[0] if null else 'field'} or '' }}}}"
    text = str(error)
    if isinstance(error, jinja2.UndefinedError):
        if match := re.fullmatch(r"'(.*)' is undefined", text):
            return f"the row has no field '{match[1]}'{did_you_mean(match[1], map(str, row))}"
        if match := re.fullmatch(r"'.* object' has no attribute '(.*)'", text):
            return f"the template reads '{match[1]}' of a value that has none"
    return f"the template fails: {text}"


__all__ = ["PromptTemplate"]
