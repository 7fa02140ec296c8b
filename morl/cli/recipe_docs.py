"""The keys of a training recipe, for people and for editors.

`python -m morl.cli.recipe_docs > docs/recipe.md` writes the page,
`python -m morl.cli.recipe_docs --schema > recipes/morl.schema.json` the JSON schema.
"""

from __future__ import annotations

import inspect
import json
import sys
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from morl.cli.reward_docs import bounds, flow, option, type_name
from morl.recipe import Recipe, Spec, UseSpec
from morl.registry import SOURCES, options_model

_HEAD = """\
# The keys of a training recipe

What `morl train` reads; README.md shows how they go together, and `recipes/morl.schema.json` has the same for editors.
`NAME` stands for a name of yours, `N` for an item of a list. Written by `python -m morl.cli.recipe_docs` from the
schema: change it there.
"""

_TEMPLATES = r"""
## Templates

`prompt` and `gold` are Jinja templates in a sandbox; in YAML they are quoted. Each field of the row is a variable,
and the row itself is `row`, for names that are no identifiers: `{{ row["Final answer"] }}`. A field that is missing or
null is an error of its row. All of Jinja's
[filters](https://jinja.palletsprojects.com/en/stable/templates/#list-of-builtin-filters) are there, and `boxed`: what
stands in the last `\boxed{}` of a text."""

_PATHS = """
## Paths

They are relative to the working folder; those of images and videos in rows, to their data file. A path
`package:MODULE/FILE` lies in an installed Python package, as `package:morl.recipes/sums.jsonl` does: data of the
sources jsonl, json, csv and parquet, models and `media.downloads` may be named so."""


def reference() -> str:
    """The page: a table a section, then the data sources, templates and paths."""
    parts = [_HEAD, *_sections(Recipe, "", set()), *_sources(), _TEMPLATES, _PATHS]
    return "\n".join(parts) + "\n"


def _sections(kind: type[Spec], path: str, seen: set[type[Spec]]) -> Iterator[str]:
    """A section, and those below it that were not told before."""
    seen.add(kind)
    if path:
        yield f"\n## `{path}`\n\n{_line(inspect.getdoc(kind))}\n"
    below = {key: _spec_below(info.annotation) for key, info in kind.model_fields.items()}
    rows = [_row(key, info, below[key]) for key, info in kind.model_fields.items() if path or below[key] is None]
    if rows:
        yield _table(("key", "type", "default", "meaning"), rows)
    for key, found in below.items():
        if found is not None and found[1] not in seen and not issubclass(found[1], UseSpec):
            yield from _sections(found[1], f"{path}.{key}{found[0]}".lstrip("."), seen)


def _spec_below(annotation: Any) -> tuple[str, type[Spec]] | None:
    """The section that a key holds, or a mapping or list of them, and how one of these is called below the key."""
    if inspect.isclass(annotation) and issubclass(annotation, Spec):
        return "", annotation
    origin = typing.get_origin(annotation)
    suffix = ".NAME" if origin is dict else ".N" if origin is list else ""
    for argument in typing.get_args(annotation):
        if found := _spec_below(argument):
            return suffix + found[0], found[1]
    return None


def _row(key: str, info: FieldInfo, below: tuple[str, type[Spec]] | None) -> Sequence[str]:
    is_section = below is not None and not issubclass(below[1], UseSpec)
    kinds = {"": "section", ".NAME": "sections by name", ".N": "list of sections"}
    kind = "a name, or `{use: NAME, …}`" if below else f"`{type_name(info.annotation)}`"
    kind = kinds[below[0]] if below and is_section else kind
    limits = bounds(info)
    meaning = info.description or (inspect.getdoc(below[1]) if below else "")
    return f"`{key}`", f"{kind}{f', {limits}' if limits else ''}", _default(info), _line(meaning)


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, UseSpec):
        return f"`{value.use}`"
    return "–" if value in (None, "", {}, PydanticUndefined) or isinstance(value, Spec) else f"`{flow(value)}`"


def _sources() -> Iterator[str]:
    yield "\n## Data sources\n\nThe options of each are further keys of `data`.\n"
    rows = []
    for name, entry in SOURCES.entries().items():
        if entry.target.startswith("morl."):
            function = entry.load()
            options = [f"`{option(key, info)}`" for key, info in options_model(function).model_fields.items()]
            rows.append((f"`{name}`", ", ".join(options), _line(inspect.getdoc(function))))
    yield _table(("source", "options", "rows"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([cell.replace("|", r"\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _line(text: str | None) -> str:
    return " ".join((text or "").split())


def json_schema() -> dict[str, Any]:
    """The JSON schema of a recipe, for editors. Options of registered functions are open in it."""
    schema = Recipe.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "morl recipe"}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n" if "--schema" in sys.argv else reference())
