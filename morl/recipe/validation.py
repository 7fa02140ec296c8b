"""From marked YAML to a typed document: what is wrong is cut out, so that one look finds everything."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from morl.recipe import yaml_lines as marked
from morl.recipe.rules import MISSING, Loc, NoRewards, sentence
from morl.recipe.schema.document import Document
from morl.recipe.yaml_lines import COMMAND_LINE, Flaw, MarkedMap

D = TypeVar("D", bound=Document)


_STAND_INS: dict[Loc, Any] = {
    ("run",): {"name": "unnamed", "steps": 1},
    ("run", "name"): "unnamed",
    ("run", "steps"): 1,
    ("model",): {"path": "unnamed"},
    ("model", "path"): "unnamed",
    ("objectives", "*", "share"): 1.0,
    ("objectives", "*", "prompt"): "unknown",
    ("objectives", "*", "gold"): "unknown",
    ("objectives", "*", "rewards"): NoRewards,
    ("eval", "sets", "*", "prompt"): "unknown",
    ("eval", "sets", "*", "gold"): "unknown",
    ("eval", "sets", "*", "rewards"): NoRewards,
    ("rollout",): {"prompts_per_step": 1, "samples_per_prompt": 2, "max_new_tokens": 1},
    ("rollout", "prompts_per_step"): 1,
    ("rollout", "samples_per_prompt"): 2,
    ("rollout", "max_new_tokens"): 1,
}
"""What `inspect_document` goes on with when a required key is missing or wrong."""


def _stand_in(loc: Loc) -> Any:
    """What to put at a location, or None when it is to be removed."""
    pattern = ("objectives", "*", *loc[2:]) if loc[0] == "objectives" else ("eval", "sets", "*", *loc[3:])
    return _STAND_INS.get(loc, _STAND_INS.get(pattern))


def validate(kind: type[D], root: MarkedMap, removed: set[Loc]) -> tuple[D | None, list[Flaw]]:
    """Validate, cut out what is wrong, and again: rules that span keys show only when the keys are right.

    Args:
        kind: of document.
        root: what was read; what is wrong in it is cut out, or replaced.
        removed: the paths that are cut out already, added to here: what only follows from them is not told.

    Returns: the document, None when nothing is left of it; and what is wrong.
    """
    flaws: list[Flaw] = []
    slips: set[Loc] = set()
    while True:
        try:
            return kind.model_validate(marked.plain(root)), flaws
        except ValidationError as error:
            items = error.errors()
        cuts = [_written(root, item["loc"]) for item in items]
        found = [Flaw(*marked.locate(root, loc), sentence(item, ())) for item, loc in zip(items, cuts, strict=True)]
        slips |= {flaw.path for flaw in found if flaw.message.startswith("unknown key")}
        flaws += [
            flaw
            for flaw, item, loc in zip(found, items, cuts, strict=True)
            if not _follows(item, loc, flaw.path, removed)
            and not (flaw.message == MISSING and _is_slip(flaw.path, slips))
        ]
        if not _cut(root, cuts, removed):
            return None, flaws


def _written(root: MarkedMap, loc: Loc) -> Loc:
    """The location without what validation adds: keys of a mapping, branches of a union, `use` of a bare name."""
    added = ("[key]", "literal['all-linear']", "list[constrained-str]")
    loc = tuple(part for part in loc if part not in added)
    steps = list(marked.trail(root, loc))
    if loc[-1:] == ("use",) and len(steps) == len(loc) - 1 and isinstance(steps[-1][0][steps[-1][1]], str):  # type: ignore[index]
        return loc[:-1]
    return loc


def _follows(item: ErrorDetails, loc: Loc, path: Loc, removed: set[Loc]) -> bool:
    """Whether a problem only follows from what was removed, so that it need not be told."""
    context = item.get("ctx", {})
    base = loc[: len(loc) - context.get("depth", 0)]
    causes = [path, *((*base, *depends) for depends in context.get("depends", ()))]
    return any(gone[: len(cause)] == cause for gone in removed for cause in causes)


def _is_slip(path: Loc, unknown: set[Loc]) -> bool:
    """Whether a missing key seems to be there, misspelt."""
    siblings = [str(other[-1]) for other in unknown if other[:-1] == path[:-1]]
    return bool(difflib.get_close_matches(str(path[-1]), siblings, n=1, cutoff=0.6))


def _cut(root: MarkedMap, cuts: Sequence[Loc], removed: set[Loc]) -> bool:
    """Remove the locations, or put stand-ins there; False when nothing could be done."""
    stand_ins = [loc for loc in cuts if _stand_in(loc) is not None]
    gone = marked.prune(root, [loc for loc in cuts if loc not in stand_ins])
    removed |= gone | set(stand_ins)
    done = bool(gone)
    for loc in stand_ins:
        parent: Any = root
        for key in loc[:-1]:
            parent = parent.get(str(key)) if isinstance(parent, MarkedMap) else None
        if isinstance(parent, MarkedMap) and parent.get(str(loc[-1])) != _stand_in(loc):
            marked.set_value(root, [str(part) for part in loc], _marked_copy(_stand_in(loc)))
            done = True
    return done


def _marked_copy(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    copy = MarkedMap(COMMAND_LINE)
    for key, item in value.items():
        copy[key], copy.marks[key] = item, COMMAND_LINE
    return copy
