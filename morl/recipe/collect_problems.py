"""Turns a YAML document into a typed recipe and finds all problems in one run, by cutting out what is wrong.

Pydantic lists all wrong keys at once, but checks the rules between keys only when every key is right, and returns
nothing for a wrong recipe. `morl check` needs both: all problems, and the usable rest, whose data it checks.
"""

from __future__ import annotations

import difflib
from typing import Any, TypeVar

from pydantic import ValidationError

from morl.recipe.rules import MISSING, Loc, NoRewards, sentence
from morl.recipe.schema.document import Document
from morl.recipe.yaml_lines import Flaw, Path, YamlDocument

D = TypeVar("D", bound=Document)

_SECTIONS: dict[str | int, dict[str | int, Any]] = {
    "run": {"name": "unnamed", "steps": 1},
    "model": {"path": "unnamed"},
    "rollout": {"prompts_per_step": 1, "samples_per_prompt": 2, "max_new_tokens": 1},
}
_OF_EVAL_SETS: dict[str | int, Any] = {"prompt": "unknown", "gold": "unknown", "rewards": NoRewards}
_OF_OBJECTIVES = {"share": 1.0, **_OF_EVAL_SETS}


def _stand_in(path: Path) -> Any:
    """The stand-in for a required key that is missing or wrong; None when the key needs none."""
    match path:
        case (section,):
            return _SECTIONS.get(section)
        case ("objectives", _, key):
            return _OF_OBJECTIVES.get(key)
        case ("eval", "sets", _, key):
            return _OF_EVAL_SETS.get(key)
        case (section, key):
            return _SECTIONS.get(section, {}).get(key)
    return None


class _Items(dict[int, Any]):
    """A list keyed by the indices in the file, which stay valid when an item is cut out."""


def _indexed(node: Any) -> Any:
    if isinstance(node, list):
        return _Items(enumerate(map(_indexed, node)))
    return {key: _indexed(value) for key, value in node.items()} if isinstance(node, dict) else node


def _plain(node: Any) -> Any:
    if isinstance(node, _Items):
        return [_plain(value) for value in node.values()]
    return {key: _plain(value) for key, value in node.items()} if isinstance(node, dict) else node


def validate(kind: type[D], document: YamlDocument, removed: set[Path]) -> tuple[D | None, list[Flaw]]:
    """Validate, cut out what is wrong, and repeat: rules between keys are checked only when the keys are right.

    Args:
        kind: the schema.
        document: the document as read.
        removed: paths of values that could not be read; extended here. Problems that only follow from them are not
            reported.

    Returns: the recipe, None when nothing is left of it; and the flaws.
    """
    root, lost = _indexed(document.root), set(removed)
    flaws: list[Flaw] = []
    slips: set[Path] = set()
    while True:
        try:
            return kind.model_validate(_plain(root)), flaws
        except ValidationError as error:
            items = error.errors()
        places = [_place(root, item["loc"]) for item in items]
        new_flaws = [
            Flaw(document.line_of(there), (*there, *rest), sentence(item, ()))
            for item, (there, rest) in zip(items, places, strict=True)
        ]
        slips |= {flaw.path for flaw in new_flaws if flaw.message.startswith("unknown key")}
        flaws += [
            flaw
            for item, flaw in zip(items, new_flaws, strict=True)
            if not _follows(flaw.path, item.get("ctx", {}), removed)
            and flaw.path[:1] not in removed - lost
            and not (flaw.message == MISSING and _is_slip(flaw.path, slips))
        ]
        cuts = [_cut(root, there, rest, removed) for there, rest in places]
        if not any(cuts):
            return None, flaws


def _place(root: Any, loc: Loc) -> tuple[Path, Path]:
    """Split an error's location into the part that exists in the file and the rest.

    Parts that pydantic adds are dropped: keys of a mapping, branches of a union, `use` of a bare name.
    """
    node = root
    there: Path = ()
    rest: Path = ()
    for part in loc:
        key: Any = dict[Any, int](enumerate(node)).get(part) if isinstance(node, _Items) else part
        if not rest and isinstance(node, dict) and key in node:
            node, there = node[key], (*there, key)
        elif part not in ("[key]", "literal['all-linear']", "list[constrained-str]"):
            rest = (*rest, part)
    return there, () if rest == ("use",) and isinstance(node, str) else rest


def _cut(root: Any, there: Path, rest: Path, removed: set[Path]) -> bool:
    """Remove the wrong value, or replace it by a stand-in; False when nothing changed."""
    stand_in = _stand_in((*there, *rest))
    path = there if stand_in is None else (*there, *rest)
    if not path:
        return False
    removed.add(path)
    parent = root
    for key in path[:-1]:
        parent = parent.get(key)
        if not isinstance(parent, dict):  # its parent was cut already
            return False
    if stand_in is None:
        was_there = path[-1] in parent
        parent.pop(path[-1], None)
        return was_there
    changes: bool = parent.get(path[-1]) != stand_in
    parent[path[-1]] = _indexed(stand_in)
    return changes


def _follows(path: Path, context: dict[str, Any], removed: set[Path]) -> bool:
    """Whether a problem only follows from a removed value, so that it is not reported."""
    base = path[: len(path) - context.get("depth", 0)]
    causes = [path, *((*base, *depends) for depends in context.get("depends", ()))]
    return any(gone[: len(cause)] == cause for gone in removed for cause in causes)


def _is_slip(path: Path, unknown: set[Path]) -> bool:
    """Whether one of the unknown keys looks like the missing key, misspelt."""
    siblings = [str(other[-1]) for other in unknown if other[:-1] == path[:-1]]
    return bool(difflib.get_close_matches(str(path[-1]), siblings, n=1, cutoff=0.6))
