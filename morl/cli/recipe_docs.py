"""The reference of a training recipe's keys, for people and for editors.

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

The keys that `morl train` reads. README.md shows them in use; `recipes/morl.schema.json` is the same schema for
editors. `NAME` stands for a name you choose, `N` for the index of a list item. This page is written by
`python -m morl.cli.recipe_docs` from the docstrings in `morl/recipe/`: edit those.
"""

_TEMPLATES = r"""
## Templates

`prompt` and `gold` are sandboxed Jinja templates; quote them in YAML. Each field of the row is a variable. The row
itself is `row`, for fields whose names are not identifiers: `{{ row["Final answer"] }}`. A field that is missing or
null is an error of its row. All of Jinja's
[filters](https://jinja.palletsprojects.com/en/stable/templates/#list-of-builtin-filters) are available, and `boxed`,
the content of the last `\boxed{}` of a text."""

_PATHS = """
## Paths

Paths are relative to the working folder; paths of images and videos in rows are relative to the data file. A path
`package:MODULE/FILE`, such as `package:morl.recipes/sums.jsonl`, is in an installed Python package. It works for data
of the sources jsonl, json, csv and parquet, for models, and for `media.downloads`."""


def reference() -> str:
    """The page: a table per section, then data sources, templates and paths."""
    parts = [_HEAD, *_sections(Recipe, "", set()), *_sources(), _TEMPLATES, _PATHS]
    return "\n".join(parts) + "\n"


def _sections(kind: type[Spec], path: str, seen: set[type[Spec]]) -> Iterator[str]:
    """A section, and the sections below it that were not written before."""
    seen.add(kind)
    if path:
        yield f"\n## `{path}`\n\n{_line(inspect.getdoc(kind))}\n"
    below = {key: _spec_below(info.annotation) for key, info in kind.model_fields.items()}
    rows = [_row(key, info, below[key]) for key, info in kind.model_fields.items() if path or below[key] is None]
    if rows:
        yield _table(("key", "type", "default", "meaning"), rows)
    for key, section in below.items():
        if section is not None and section[1] not in seen and not issubclass(section[1], UseSpec):
            yield from _sections(section[1], f"{path}.{key}{section[0]}".lstrip("."), seen)


def _spec_below(annotation: Any) -> tuple[str, type[Spec]] | None:
    """The section that a key holds, alone or in a mapping or list, preceded by its path below the key."""
    if inspect.isclass(annotation) and issubclass(annotation, Spec):
        return "", annotation
    origin = typing.get_origin(annotation)
    suffix = ".NAME" if origin is dict else ".N" if origin is list else ""
    for argument in typing.get_args(annotation):
        if section := _spec_below(argument):
            return suffix + section[0], section[1]
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
    yield "\n## Data sources\n\nThe options of a source are further keys of `data`.\n"
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
    """The JSON schema of a recipe, for editors. It leaves the options of registered functions open."""
    schema = Recipe.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "morl recipe"}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(json_schema(), indent=2) + "\n" if "--schema" in sys.argv else reference())
