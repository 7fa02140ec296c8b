"""Reads a recipe, everything a run is in one YAML file, and reports all that is wrong with it at once, line by line."""

from __future__ import annotations

import copy
import functools
import importlib.resources
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from morl.errors import Problem, RecipeError, UsageError
from morl.recipe import yaml_lines as marked
from morl.recipe.schema.document import Document
from morl.recipe.schema.section import Spec
from morl.recipe.train_recipe import Recipe
from morl.recipe.validation import validate
from morl.recipe.yaml_lines import COMMAND_LINE, NO_LINE, Flaw, YamlDocument
from morl.registry import did_you_mean

D = TypeVar("D", bound=Document)

RecipeSource = str | Path | Mapping[str, Any]
"""A YAML file, the name of a recipe that comes with morl, or a recipe's keys and values in a dictionary."""


def load_recipe(source: RecipeSource, overrides: Sequence[str] = ()) -> Recipe:
    """Read the recipe of a training run; as `load_document`."""
    return load_document(Recipe, source, overrides)


def load_document(kind: type[D], source: RecipeSource, overrides: Sequence[str] = ()) -> D:
    """Read a recipe.

    Args:
        kind: what it is the recipe of.
        source: a file, a name, or a dictionary.
        overrides: `key.path=value` each, the value being YAML or a template; a list item is
            called by its index, and `null` takes a key back to its default, or an objective out.

    Raises: RecipeError with everything that is wrong.
    """
    recipe, problems = inspect_document(kind, source, overrides)
    if recipe is None or problems:
        raise RecipeError(problems)
    return recipe


def inspect_document(
    kind: type[D], source: RecipeSource, overrides: Sequence[str] = ()
) -> tuple[D | None, tuple[Problem, ...]]:
    """Read a recipe as `load_document` does, and go on after errors.

    Wrong keys are left out, then what cannot do without them: the term, the objective. A
    required key outside the objectives gets a stand-in. Returns what is left, and all problems
    by line; the recipe is None when no objective is left.
    """
    try:
        document, flaws = _read(source)
    except UsageError as error:
        return None, (Problem(_name(source), "", str(error)),)
    name = _name(source)
    root = document.root
    if not flaws and root is None:
        needed = [name for name, field in kind.model_fields.items() if field.is_required()]
        listed = f"{', '.join(needed[:-1])} and {needed[-1]}"
        flaws = [Flaw(1, (), f"the file is empty; a recipe has at least {listed}")]
    elif not isinstance(root, dict) and not flaws:
        flaws = [Flaw(1, (), "a recipe is a mapping (key: value)")]
    elif (command := _command(root)) not in ("", _command(kind.model_fields)):
        return None, (Problem(name, "", f"this is {_KINDS[command].format(name)}"),)
    recipe = None
    if isinstance(root, dict):
        flaws += _override(document, overrides)
        recipe, found = validate(kind, document, {flaw.path for flaw in flaws if flaw.lost})
        flaws += found
    unique = dict.fromkeys(sorted(flaws, key=lambda flaw: (flaw.line == COMMAND_LINE, flaw.line)))
    return recipe, tuple(Problem(_where(name, flaw.line), flaw.dotted, flaw.message) for flaw in unique)


def _read(source: RecipeSource) -> tuple[YamlDocument, list[Flaw]]:
    """A recipe with the lines of its keys, of which a dictionary has none. Raises: UsageError when it is not there."""
    if isinstance(source, Mapping):
        return YamlDocument(copy.deepcopy(dict(source))), []
    return marked.parse(read_text(str(source)))


def _name(source: RecipeSource) -> str:
    return "recipe" if isinstance(source, Mapping) else str(source)


def _where(name: str, line: int) -> str:
    if line == COMMAND_LINE:
        return "command line"
    return f"{name}:{line}" if line != NO_LINE else name


def place_of(source: RecipeSource, overrides: Sequence[str], key: Sequence[str]) -> str:
    """Where a recipe says a key: `recipe.yaml:12`, or `command line`; the file alone where it does not.

    Of data it is the line of their `path`, if they have one.
    """
    document, _ = _read(source)
    _override(document, overrides)
    name = _name(source)
    return _where(name, document.line_of((*key, "path"))) if (key[0],) in document.lines else name


def go_offline(recipe: Recipe | Any) -> None:
    """Keep the Hugging Face libraries off the network, here and in every process started from here."""
    if recipe.run.offline:
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
        # They read that when they are imported, which a notebook has done before.
        for module in {"huggingface_hub.constants", "datasets.config"} & set(sys.modules):
            vars(sys.modules[module])["HF_HUB_OFFLINE"] = True


def builtin_recipes(folder: str = "") -> tuple[str, ...]:
    """Names of the recipes that come with morl, in a folder of theirs: `evals` holds evaluation sets."""
    place = importlib.resources.files("morl.recipes").joinpath(*Path(folder).parts)
    names = [file.name.removesuffix(".yaml") for file in place.iterdir() if file.name.endswith(".yaml")]
    return tuple(sorted((Path(folder) / name).as_posix() for name in names))


_KINDS = {
    "train": "a recipe of `morl train`: run `morl train {}`",
    "sft": "a recipe of `morl sft`: run `morl sft {}`",
    "rm": "a recipe of `morl rm`: run `morl rm {}`",
    "eval": "an evaluation set: run `morl eval {} --model PATH`",
}
"""What a recipe is, by the command that takes it."""


def _command(keys: Any) -> str:
    """The command that takes a recipe with these keys; empty when they do not tell."""
    owner = {"objectives": "train", "stages": "sft", "preference": "rm", "rewards": "eval"}
    return next((command for key, command in owner.items() if isinstance(keys, Mapping) and key in keys), "")


def command_of(source: RecipeSource) -> str:
    """The command that takes a recipe: train, sft, rm or eval; empty when the file does not tell."""
    try:
        return _command(_read(source)[0].root)
    except UsageError:
        return ""


def is_eval_set(source: RecipeSource) -> bool:
    """Whether a recipe file describes one evaluation set, and not a run. Raises: UsageError when it cannot be read."""
    return _command(_read(source)[0].root) == "eval"


def read_text(path: str) -> str:
    """The text of a recipe: a file, or the name of one that comes with morl. Raises: UsageError."""
    source: Any = Path(path)
    if not source.is_file():
        name = path.removesuffix(".yaml").removeprefix("recipes/").removeprefix("./")
        known = [recipe for folder in ("", *_FOLDERS) for recipe in builtin_recipes(folder)]
        if source.is_dir() and name not in known:
            raise UsageError("is a folder, not a recipe")
        if name not in known:
            raise UsageError(f"no such file, and no recipe of morl's own{did_you_mean(name, known)}")
        source = importlib.resources.files("morl.recipes").joinpath(*f"{name}.yaml".split("/"))
    try:
        text: str = source.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"not UTF-8 text (byte {error.start}); save it as UTF-8") from error
    return text


_FOLDERS = ("evals", "mini")
"""Folders of recipes of other kinds than `morl train` takes."""


def _override(document: YamlDocument, overrides: Sequence[str]) -> list[Flaw]:
    """Apply `key.path=value` items; returns what is wrong with them."""
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
    """The value of an override: YAML, or a template, which need not be quoted here."""
    try:
        return marked.parse_value(text)
    except ValueError:
        if "{{" in text or "{%" in text:
            return text
        raise


@functools.cache
def _schema_keys() -> frozenset[str]:
    """Every key that some section has."""

    def sections(cls: type[Spec]) -> Iterable[type[Spec]]:
        for sub in cls.__subclasses__():
            yield sub
            yield from sections(sub)

    return frozenset(key for section in sections(Spec) for key in section.model_fields)


def _has_default(keys: Sequence[str]) -> bool:
    """Whether `null` takes the key away; for an option of a function it is a value like others."""
    is_named = (len(keys) == 2 and keys[0] == "objectives") or (len(keys) == 3 and keys[:2] == ["eval", "sets"])
    return is_named or keys[-1] in _schema_keys()
