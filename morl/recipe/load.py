"""Reads a recipe, the one YAML file that defines a run, and reports all its problems at once, with their lines."""

from __future__ import annotations

import functools
import importlib.resources
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from morl.error_messages import did_you_mean
from morl.errors import Problem, RecipeError, UsageError
from morl.recipe import yaml_lines
from morl.recipe.collect_problems import validate
from morl.recipe.schema.document import Document
from morl.recipe.schema.section import Spec
from morl.recipe.train_recipe import Recipe
from morl.recipe.yaml_lines import COMMAND_LINE, NO_LINE, Flaw, YamlDocument

D = TypeVar("D", bound=Document)

RecipeSource = str | Path | Mapping[str, Any]
"""A YAML file, the name of a built-in recipe, or a dictionary with the keys and values of a recipe."""


def load_recipe(source: RecipeSource, overrides: Sequence[str] = ()) -> Recipe:
    """Read the recipe of a training run, as `load_document` does."""
    return load_document(Recipe, source, overrides)


def load_document(kind: type[D], source: RecipeSource, overrides: Sequence[str] = ()) -> D:
    """Read a recipe.

    Args:
        kind: the schema.
        source: a file, a name, or a dictionary.
        overrides: `key.path=value` each; the value is YAML or a template. List items are
            addressed by index. `null` resets a key to its default, or removes an objective.

    Raises: RecipeError with all problems.
    """
    recipe, problems = inspect_document(kind, source, overrides)
    if recipe is None or problems:
        raise RecipeError(problems)
    return recipe


def inspect_document(
    kind: type[D], source: RecipeSource, overrides: Sequence[str] = ()
) -> tuple[D | None, tuple[Problem, ...]]:
    """Read a recipe as `load_document` does, but continue after errors.

    Wrong keys are left out, and then the term or objective that requires them. A required key
    outside the objectives gets a stand-in.

    Returns: what is left of the recipe, None when no objective is left; and all problems by line.
    """
    try:
        document, flaws = _read(source)
    except UsageError as error:
        return None, (Problem(_name(source), "", str(error)),)
    name = _name(source)
    root = document.root
    if not flaws and root is None:
        required = [name for name, field in kind.model_fields.items() if field.is_required()]
        listed = f"{', '.join(required[:-1])} and {required[-1]}"
        flaws = [Flaw(1, (), f"the file is empty; a recipe has at least {listed}")]
    elif not isinstance(root, dict) and not flaws:
        flaws = [Flaw(1, (), "a recipe is a mapping (key: value)")]
    elif (command := _command(root)) not in ("", _command(kind.model_fields)):
        return None, (Problem(name, "", f"this is {_KINDS[command].format(name)}"),)
    recipe = None
    if isinstance(root, dict):
        flaws += _override(document, overrides)
        recipe, broken_rules = validate(kind, document, {flaw.path for flaw in flaws if flaw.lost})
        flaws += broken_rules
    unique = dict.fromkeys(sorted(flaws, key=lambda flaw: (flaw.line == COMMAND_LINE, flaw.line)))
    return recipe, tuple(Problem(_location(name, flaw.line), flaw.dotted, flaw.message) for flaw in unique)


def _read(source: RecipeSource) -> tuple[YamlDocument, list[Flaw]]:
    """A recipe with the lines of its keys; a dictionary has no lines. Raises: UsageError when it cannot be read."""
    if isinstance(source, Mapping):
        return YamlDocument(_plain(source)), []
    return yaml_lines.parse(read_text(str(source)))


def _plain(value: Any) -> Any:
    """A copy of a recipe's keys and values, with paths as text."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _name(source: RecipeSource) -> str:
    return "recipe" if isinstance(source, Mapping) else str(source)


def _location(name: str, line: int) -> str:
    if line == COMMAND_LINE:
        return "command line"
    return f"{name}:{line}" if line != NO_LINE else name


def place_of(source: RecipeSource, overrides: Sequence[str], key: Sequence[str]) -> str:
    """Where a recipe sets a key: `recipe.yaml:12` or `command line`; the file alone when it does not set it.

    For a data section, the line of its `path`, if it has one.
    """
    document, _ = _read(source)
    _override(document, overrides)
    name = _name(source)
    return _location(name, document.line_of((*key, "path"))) if (key[0],) in document.lines else name


def go_offline(recipe: Recipe | Any) -> None:
    """If the recipe is offline, keep the Hugging Face libraries off the network, in this process and its children."""
    if recipe.run.offline:
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        # They read the variables at import, and a notebook may have imported them already.
        for module in {"huggingface_hub.constants", "datasets.config"} & set(sys.modules):
            vars(sys.modules[module])["HF_HUB_OFFLINE"] = True


def builtin_recipes(folder: str = "") -> tuple[str, ...]:
    """Names of the built-in recipes in a folder of `morl.recipes`: `evals` holds evaluation sets."""
    place = importlib.resources.files("morl.recipes").joinpath(*Path(folder).parts)
    names = [file.name.removesuffix(".yaml") for file in place.iterdir() if file.name.endswith(".yaml")]
    return tuple(sorted((Path(folder) / name).as_posix() for name in names))


_KINDS = {
    "train": "a recipe of `morl train`: run `morl train {}`",
    "sft": "a recipe of `morl sft`: run `morl sft {}`",
    "rm": "a recipe of `morl rm`: run `morl rm {}`",
    "eval": "an evaluation set: run `morl eval {} --model PATH`",
}
"""Description of each kind of recipe, by the command that takes it."""


def _command(keys: Any) -> str:
    """The command that takes a recipe with these keys; empty when the keys do not decide it."""
    owner = {"objectives": "train", "stages": "sft", "preference": "rm", "rewards": "eval"}
    return next((command for key, command in owner.items() if isinstance(keys, Mapping) and key in keys), "")


def command_of(source: RecipeSource) -> str:
    """The command that takes a recipe: train, sft, rm or eval; empty when its keys do not decide it."""
    try:
        return _command(_read(source)[0].root)
    except UsageError:
        return ""


def is_eval_set(source: RecipeSource) -> bool:
    """Whether a recipe is an evaluation set rather than a run. Raises: UsageError when it cannot be read."""
    return _command(_read(source)[0].root) == "eval"


def read_text(path: str) -> str:
    """The text of a recipe, from a file or the name of a built-in recipe. Raises: UsageError."""
    source: Any = Path(path)
    if not source.is_file():
        name = path.removesuffix(".yaml").removeprefix("recipes/").removeprefix("./")
        known = [recipe for folder in ("", *_FOLDERS) for recipe in builtin_recipes(folder)]
        if source.is_dir() and name not in known:
            raise UsageError("is a folder, not a recipe")
        if name not in known:
            raise UsageError(f"no such file, and no built-in recipe{did_you_mean(name, known)}")
        source = importlib.resources.files("morl.recipes").joinpath(*f"{name}.yaml".split("/"))
    try:
        text: str = source.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    return text


_FOLDERS = ("evals", "mini")
"""Folders of further built-in recipes, beside those at the top."""


def _override(document: YamlDocument, overrides: Sequence[str]) -> list[Flaw]:
    """Apply `key.path=value` items; returns their flaws."""
    flaws = []
    for item in overrides:
        dotted, equals, text = item.partition("=")
        keys = dotted.strip().split(".")
        if not equals or not all(keys):
            flaws.append(Flaw(COMMAND_LINE, (), f"{item!r} is not of the form key.path=value"))
            continue
        try:
            value = _override_value(text)
            if value is None and _has_default(keys):
                document.remove_value(keys)
            else:
                document.set_value(keys, value)
        except ValueError as error:
            flaws.append(Flaw(COMMAND_LINE, tuple(keys), str(error), lost=True))
    return flaws


def _override_value(text: str) -> Any:
    """The value of an override: YAML, or a template, which needs no quotes here."""
    try:
        return yaml_lines.parse_value(text)
    except ValueError:
        if "{{" in text or "{%" in text:
            return text
        raise


@functools.cache
def _schema_keys() -> frozenset[str]:
    """The keys of all sections."""

    def sections(cls: type[Spec]) -> Iterable[type[Spec]]:
        for sub in cls.__subclasses__():
            yield sub
            yield from sections(sub)

    return frozenset(key for section in sections(Spec) for key in section.model_fields)


def _has_default(keys: Sequence[str]) -> bool:
    """Whether `null` removes the key; for an option of a function it is an ordinary value."""
    is_named = (len(keys) == 2 and keys[0] == "objectives") or (len(keys) == 3 and keys[:2] == ["eval", "sets"])
    return is_named or keys[-1] in _schema_keys()
