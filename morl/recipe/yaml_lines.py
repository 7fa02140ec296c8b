"""YAML whose every key and item remembers the line it came from.

A document is plain scalars in `MarkedMap` and `MarkedList`, which are a `dict` and a
`list` with marks. A mark is a line number, or `COMMAND_LINE` for a value that an override set.
"""

from __future__ import annotations

import copy
import datetime
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

COMMAND_LINE = 0

Path = tuple[str | int, ...]
"""Keys and list indices from the root; an index is the one of the file, whatever was removed since."""


class MarkedMap(dict[str, Any]):
    """A mapping; `marks` holds the line of each key, `mark` the line that opens it."""

    def __init__(self, mark: int) -> None:
        super().__init__()
        self.mark = mark
        self.marks: dict[str, int] = {}


class MarkedList(list[Any]):
    """A list; `marks` holds each item's line, `indices` its position in the file."""

    def __init__(self, mark: int) -> None:
        super().__init__()
        self.mark = mark
        self.marks: list[int] = []
        self.indices: list[int] = []


@dataclass(frozen=True, slots=True)
class Flaw:
    """Something wrong at a place of a document."""

    mark: int
    path: Path
    message: str
    lost: bool = False
    """Whether nothing is known of the value there."""

    @property
    def dotted(self) -> str:
        """The path as one writes it in an override: `objectives.math.rewards.0.weight`."""
        return ".".join(str(part) for part in self.path)


def parse(text: str) -> tuple[Any, list[Flaw]]:
    """The document, and what is wrong with its syntax; the document is None when nothing can be read.

    Keys are the text that is written; a date stays text; anchors, aliases and merge keys work.
    """
    yaml = YAML(typ="safe", pure=True)
    try:
        root = yaml.compose(text)
    except MarkedYAMLError as error:
        place = error.problem_mark or error.context_mark
        message = " ".join(str(part) for part in (error.problem, error.context) if part)
        return None, [Flaw(place.line + 1 if place else 1, (), f"not valid YAML: {message}")]
    except YAMLError as error:
        return None, [Flaw(1, (), f"not valid YAML: {str(error).splitlines()[0]}")]
    if root is None:
        return None, []
    flaws: list[Flaw] = []
    document = _Builder(yaml, flaws).build(root, root.start_mark.line + 1, (), ())
    return document, flaws


def parse_value(text: str) -> Any:
    """The YAML value of an override. Raises: ValueError with the reason."""
    document, flaws = parse(text)
    if flaws:
        raise ValueError(flaws[0].message)
    _mark_all(document)
    return document


def _mark_all(node: Any) -> None:
    if isinstance(node, MarkedMap):
        node.mark = COMMAND_LINE
        node.marks = dict.fromkeys(node, COMMAND_LINE)
    elif isinstance(node, MarkedList):
        node.mark = COMMAND_LINE
        node.marks = [COMMAND_LINE] * len(node)
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _mark_all(child)


class _Builder:
    """Turns the nodes of the YAML library into marked values."""

    def __init__(self, yaml: YAML, flaws: list[Flaw]) -> None:
        self._yaml = yaml
        self._flaws = flaws

    def build(self, node: Node, mark: int, path: Path, above: tuple[Node, ...]) -> Any:
        if node in above:
            self._flaws.append(Flaw(mark, path, "an alias may not name what contains it", lost=True))
            return None
        above = (*above, node)
        if isinstance(node, MappingNode):
            return self._mapping(node, mark, path, above)
        if isinstance(node, SequenceNode):
            return self._sequence(node, mark, path, above)
        return self._scalar(node, mark, path)

    def _mapping(self, node: MappingNode, mark: int, path: Path, above: tuple[Node, ...]) -> MarkedMap:
        made = MarkedMap(mark)
        own: set[str] = set()
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode):
                remedy = 'a template must be quoted: "{{ … }}"' if isinstance(key_node, MappingNode) else "use text"
                self._flaws.append(Flaw(line, path, f"a key cannot be a mapping or a list; {remedy}", lost=True))
                continue
            key = key_node.value
            value = self.build(value_node, line, (*path, key), above)
            if key_node.tag == "tag:yaml.org,2002:merge":
                for base in value if isinstance(value, list) else [value]:
                    for name in base if isinstance(base, dict) else ():
                        if name not in made:
                            made[name], made.marks[name] = base[name], base.marks[name]
                continue
            if key in own:
                message = f"written twice; the first is on line {made.marks[key]}"
                self._flaws.append(Flaw(line, (*path, key), message))
            own.add(key)
            made[key], made.marks[key] = value, line
        return made

    def _sequence(self, node: SequenceNode, mark: int, path: Path, above: tuple[Node, ...]) -> MarkedList:
        made = MarkedList(mark)
        for index, item in enumerate(node.value):
            line = item.start_mark.line + 1
            made.append(self.build(item, line, (*path, index), above))
            made.marks.append(line)
            made.indices.append(index)
        return made

    def _scalar(self, node: Node, mark: int, path: Path) -> Any:
        try:
            value = self._yaml.constructor.construct_object(node, deep=True)
        except (YAMLError, ValueError) as error:
            self._flaws.append(Flaw(mark, path, f"not valid YAML: {str(error).splitlines()[0]}", lost=True))
            return None
        return node.value if isinstance(value, datetime.date) else value


def plain(node: Any) -> Any:
    """A copy in plain dictionaries and lists."""
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items()}
    if isinstance(node, list):
        return [plain(value) for value in node]
    return copy.copy(node)


def set_value(root: MarkedMap, keys: Sequence[str], value: Any) -> None:
    """Set the value at a dotted path, making the mappings on the way.

    Raises: ValueError when the path leads through a scalar or past the end of a list.
    """
    parent, key = _parent(root, keys)
    if isinstance(parent, MarkedList):
        parent[int(key)], parent.marks[int(key)] = value, COMMAND_LINE
    else:
        parent[str(key)], parent.marks[str(key)] = value, COMMAND_LINE


def remove_value(root: MarkedMap, keys: Sequence[str]) -> None:
    """Remove the value at a dotted path, if it is there. Raises: ValueError as `set_value` does."""
    parent, key = _parent(root, keys)
    if isinstance(parent, MarkedList) or key in parent:
        _delete(parent, key)


def _parent(root: MarkedMap, keys: Sequence[str]) -> tuple[MarkedMap | MarkedList, str | int]:
    node: Any = root
    for depth, key in enumerate(keys):
        step: str | int = key
        if isinstance(node, MarkedList):
            if not key.isdecimal() or int(key) >= len(node):
                raise ValueError(f"'{'.'.join(keys[:depth])}' is a list of {len(node)}: call its items 0, 1, …")
            step = int(key)
        elif not isinstance(node, MarkedMap):
            raise ValueError(f"'{'.'.join(keys[:depth])}' is not a mapping, so it has no '{key}'")
        if depth == len(keys) - 1:
            return node, step
        if isinstance(node, MarkedMap) and key not in node:
            node[key], node.marks[key] = MarkedMap(COMMAND_LINE), COMMAND_LINE
        node = node[step]
    raise ValueError("the key is empty")


def trail(root: Any, loc: Sequence[str | int]) -> Iterator[tuple[MarkedMap | MarkedList, str | int]]:
    """The containers and keys along `loc` (indices as they are now), as far as they exist."""
    node = root
    for key in loc:
        found = (isinstance(node, MarkedMap) and key in node) or (
            isinstance(node, MarkedList) and isinstance(key, int) and key < len(node)
        )
        if not found:
            return
        yield node, key
        node = node[key]


def locate(root: Any, loc: Sequence[str | int]) -> tuple[int, Path]:
    """The mark of the deepest existing part of `loc`, and its path in the file's own indices."""
    mark: int = getattr(root, "mark", 1)
    path: list[str | int] = []
    for node, key in trail(root, loc):
        mark = node.marks[key]  # type: ignore[index]
        path.append(node.indices[key] if isinstance(node, MarkedList) else key)  # type: ignore[index]
    return mark, (*path, *loc[len(path) :])


def prune(root: Any, locs: Iterable[Sequence[str | int]]) -> set[Path]:
    """Remove the deepest existing part of each location; returns the paths that are gone.

    A location of which nothing exists is left alone: the root stays.
    """
    doomed: dict[tuple[int, str | int], tuple[MarkedMap | MarkedList, str | int]] = {}
    gone: set[Path] = set()
    for loc in locs:
        steps = list(trail(root, loc))
        if steps:
            parent, key = steps[-1]
            doomed[id(parent), key] = parent, key
            gone.add(locate(root, loc[: len(steps)])[1])
    # Items of a list go from the back, so that the indices before them hold.
    for parent, key in sorted(doomed.values(), key=lambda it: it[1] if isinstance(it[1], int) else -1, reverse=True):
        _delete(parent, key)
    return gone


def _delete(parent: MarkedMap | MarkedList, key: str | int) -> None:
    del parent[key]  # type: ignore[arg-type]
    del parent.marks[key]  # type: ignore[arg-type]
    if isinstance(parent, MarkedList):
        del parent.indices[int(key)]


__all__ = [
    "COMMAND_LINE",
    "Flaw",
    "MarkedList",
    "MarkedMap",
    "Path",
    "locate",
    "parse",
    "parse_value",
    "plain",
    "prune",
    "remove_value",
    "set_value",
]
