"""YAML with the line of every key and item."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

COMMAND_LINE = 0
"""Line number of a value that an override set."""
NO_LINE = -1
"""Line number of a value that does not come from a file."""

Path = tuple[str | int, ...]
"""Keys and list indices from the root."""

_MAX_DEPTH = 100
"""Deeper documents are refused, well before Python's recursion limit."""


@dataclass(frozen=True, slots=True)
class Flaw:
    """A problem at one path of a document."""

    line: int
    path: Path
    message: str
    lost: bool = False
    """Whether the value could not be read."""

    @property
    def dotted(self) -> str:
        """The path as written in an override: `objectives.math.rewards.0.weight`."""
        return ".".join(str(part) for part in self.path)


@dataclass(slots=True)
class YamlDocument:
    """A document as plain dictionaries and lists, with line numbers."""

    root: Any = None
    """None when nothing could be read."""
    lines: dict[Path, int] = field(default_factory=dict)
    """Line of each key and item. Everything below an override has the line of the override."""

    def line_of(self, path: Path) -> int:
        """The line of the deepest part of a path that exists."""
        return next(
            (self.lines[path[:n]] for n in range(len(path), -1, -1) if path[:n] in self.lines),
            1 if self.lines else NO_LINE,
        )

    def set_value(self, keys: Sequence[str], value: Any) -> None:
        """Set the value at a dotted path, creating the mappings on the way.

        Raises: ValueError when the path leads through a scalar or past the end of a list.
        """
        parent, path = self._parent(keys)
        parent[path[-1]] = value
        self.forget(path)
        self.lines[path] = COMMAND_LINE

    def remove_value(self, keys: Sequence[str]) -> None:
        """Remove the value at a dotted path, if it is there. Raises: ValueError as `set_value` does."""
        parent, path = self._parent(keys)
        if not isinstance(parent, dict) or path[-1] in parent:
            del parent[path[-1]]
            self.forget(path)

    def _parent(self, keys: Sequence[str]) -> tuple[Any, Path]:
        """The mapping or list that holds the last key, and the path to that key."""
        node: Any = self.root
        path: Path = ()
        for depth, key in enumerate(keys):
            if path:
                if isinstance(node, dict) and path[-1] not in node:
                    node[path[-1]] = {}
                    self.lines[path] = COMMAND_LINE
                node = node[path[-1]]
            holder = ".".join(keys[:depth])
            if isinstance(node, list):
                if not key.isdecimal() or int(key) >= len(node):
                    raise ValueError(f"'{holder}' is a list of {len(node)}: number its items 0, 1, …")
                path = (*path, int(key))
            elif isinstance(node, dict):
                path = (*path, key)
            else:
                raise ValueError(f"'{holder}' is not a mapping, so it has no '{key}'")
        return node, path

    def forget(self, path: Path) -> None:
        """Forget the lines of a value and of everything in it."""
        self.lines = {known: line for known, line in self.lines.items() if known[: len(path)] != path}


def parse(text: str) -> tuple[YamlDocument, list[Flaw]]:
    """Parse YAML; returns the document and the flaws of its syntax.

    Keys and dates are kept as the text that is written; anchors, aliases and merge keys work.
    """
    reader = _Reader()
    try:
        reader.read(text)
    except MarkedYAMLError as error:
        place = error.problem_mark or error.context_mark
        message = " ".join(str(part) for part in (error.problem, error.context) if part)
        return YamlDocument(), [Flaw(place.line + 1 if place else 1, (), f"not valid YAML: {message}")]
    except YAMLError as error:
        return YamlDocument(), [Flaw(1, (), f"not valid YAML: {str(error).splitlines()[0]}")]
    return reader.document, reader.flaws


def parse_value(text: str) -> Any:
    """Parse the YAML value of an override. Raises: ValueError with the reason."""
    document, flaws = parse(text)
    if flaws:
        raise ValueError(flaws[0].message)
    return document.root


class _Reader:
    """Builds a document from the nodes of the YAML library, and continues after a flaw.

    The library's round-trip loader knows lines too. But it stops at the first flaw, turns keys into numbers, puts
    merged keys last, and shares one object among all aliases, so that an override of one would change the others.
    """

    def __init__(self) -> None:
        self._yaml = YAML(typ="safe", pure=True)
        self._yaml.max_depth = _MAX_DEPTH
        self.document = YamlDocument()
        self.flaws: list[Flaw] = []

    def read(self, text: str) -> None:
        root = self._yaml.compose(text)
        if root is not None:
            self.document.root = self._value(root, root.start_mark.line + 1, (), ())

    def _value(self, node: Node, line: int, path: Path, above: tuple[Node, ...]) -> Any:
        self.document.lines[path] = line
        if node in above:
            self.flaws.append(Flaw(line, path, "an alias cannot refer to a value that contains it", lost=True))
            return None
        above = (*above, node)
        if isinstance(node, MappingNode):
            return self._mapping(node, path, above)
        if isinstance(node, SequenceNode):
            return [
                self._value(item, item.start_mark.line + 1, (*path, index), above)
                for index, item in enumerate(node.value)
            ]
        try:
            value = self._yaml.constructor.construct_object(node, deep=True)
        except (YAMLError, ValueError, LookupError) as error:
            self.flaws.append(Flaw(line, path, f"not valid YAML: {str(error).splitlines()[0]}", lost=True))
            return None
        return node.value if isinstance(value, datetime.date) else value

    def _mapping(self, node: MappingNode, path: Path, above: tuple[Node, ...]) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        written: set[str] = set()
        for key_node, value_node, merged in self._items(node, path, above):
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode):
                remedy = 'a template must be quoted: "{{ … }}"' if isinstance(key_node, MappingNode) else "use text"
                self.flaws.append(Flaw(line, path, f"a key cannot be a mapping or a list; {remedy}", lost=True))
                continue
            key = key_node.value
            if key in mapping:
                if merged:
                    continue
                if key in written:
                    message = f"written twice; the first is on line {self.document.lines[*path, key]}"
                    self.flaws.append(Flaw(line, (*path, key), message))
                self.document.forget((*path, key))
            if not merged:
                written.add(key)
            mapping[key] = self._value(value_node, line, (*path, key), above)
        return mapping

    def _items(self, node: MappingNode, path: Path, above: tuple[Node, ...]) -> Iterator[tuple[Node, Node, bool]]:
        """Keys and values of a mapping, each with whether a merge key brought it in."""
        for key, value in node.value:
            if key.tag != "tag:yaml.org,2002:merge":
                yield key, value, False
                continue
            for base in value.value if isinstance(value, SequenceNode) else [value]:
                if base in above:
                    message = "an alias cannot refer to a value that contains it"
                    self.flaws.append(Flaw(key.start_mark.line + 1, (*path, key.value), message, lost=True))
                elif isinstance(base, MappingNode):
                    for inner_key, inner_value, _ in self._items(base, path, (*above, base)):
                        yield inner_key, inner_value, True


__all__ = ["COMMAND_LINE", "Flaw", "Path", "YamlDocument", "parse", "parse_value"]
