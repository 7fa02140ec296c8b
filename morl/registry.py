"""Named functions that a recipe can use: rewards, sources, engines, advantages and losses.

Built-ins have no privileges: they register through the same entry points as third-party
packages. Discovery reads package metadata and imports nothing; a function is imported
when a recipe names it. Its keyword-only parameters are its options, so its signature
is the schema that the recipe is checked against.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
import itertools
import sys
import types
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from morl.error_messages import did_you_mean
from morl.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Entry:
    """One registered name."""

    kind: str
    name: str
    origin: str
    """`distribution version (module:attribute)`."""
    target: str
    """`module:attribute`: the function, importable in any process."""

    def load(self) -> Callable[..., Any]:
        """Import the function.

        Raises: UsageError when the module or the attribute is missing.
        """
        module_name, _, attribute = self.target.partition(":")
        try:
            target: Any = importlib.import_module(module_name)
            for part in attribute.split("."):
                target = getattr(target, part)
        except (ImportError, AttributeError) as error:
            raise UsageError(f"{self.kind} '{self.name}' from {self.origin} cannot be imported: {error}") from error
        if not callable(target):
            raise UsageError(f"{self.kind} '{self.name}' from {self.origin} is not callable")
        function: Callable[..., Any] = target
        return function


class Registry:
    """The functions of one kind, by name.

    Example: `rewards = Registry("reward", "morl.rewards")`, then `@rewards.register("math")`.
    """

    def __init__(self, kind: str, group: str, elsewhere: Mapping[str, str] = types.MappingProxyType({})) -> None:
        """`elsewhere` maps names that other libraries use to names here; an unknown name gets the hint."""
        self.kind = kind
        self.group = group
        self._elsewhere = elsewhere
        self._decorated: dict[str, Entry] = {}

    @functools.cached_property
    def _discovered(self) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        for point in importlib.metadata.entry_points(group=self.group):
            dist = point.dist
            package = f"{dist.name} {dist.version}" if dist else "unknown package"
            entry = Entry(self.kind, point.name, f"{package} ({point.value})", point.value)
            self._refuse_duplicate(entry, entries)
            entries[point.name] = entry
        return entries

    def _refuse_duplicate(self, entry: Entry, known: Mapping[str, Entry]) -> None:
        other = known.get(entry.name)
        # An entry point may name a function at the place where a package re-exports it.
        if other is not None and other.target != entry.target and _object(other) is not _object(entry):
            raise UsageError(
                f"two {self.kind}s are called '{entry.name}': {other.origin} and {entry.origin}; "
                "rename one, uninstall its package, or take its file out of `plugins`"
            )

    def register(self, name: str) -> Callable[[F], F]:
        """Decorator: make a function usable in recipes under `name`.

        The function must live at the top level of an importable module.
        Raises: UsageError when another function has the name.
        """

        def decorate(function: F) -> F:
            target = f"{function.__module__}:{function.__qualname__}"
            entry = Entry(self.kind, name, target, target)
            self._refuse_duplicate(entry, self._decorated)
            self._refuse_duplicate(entry, self._discovered)
            self._decorated[name] = entry
            return function

        return decorate

    def entries(self) -> dict[str, Entry]:
        """Every known name, sorted. Imports nothing."""
        return dict(sorted({**self._decorated, **self._discovered}.items()))

    def entry(self, name: str) -> Entry:
        """The entry called `name`. Raises: UsageError with the nearest known name."""
        known = self.entries()
        if name not in known:
            local_name = self._elsewhere.get(name)
            remedy = f"; here it is called '{local_name}'" if local_name else did_you_mean(name, known)
            raise UsageError(f"unknown {self.kind} '{name}'{remedy}")
        return known[name]

    def load(self, name: str) -> Callable[..., Any]:
        """The function called `name`, imported."""
        return self.entry(name).load()


@functools.cache
def options_model(function: Callable[..., Any]) -> type[BaseModel]:
    """A strict pydantic model of a function's keyword-only parameters.

    `Annotated[T, Field(...)]` on a parameter sets its bounds and description.
    """
    hints = get_type_hints(inspect.unwrap(function), include_extras=True)
    fields: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY:
            default = ... if parameter.default is inspect.Parameter.empty else parameter.default
            fields[parameter.name] = (hints.get(parameter.name, Any), Field(default=default))
    name = f"{getattr(function, '__name__', 'function')}_options"
    config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
    with warnings.catch_warnings():
        # An option may have the name of a pydantic method, such as `schema`.
        warnings.filterwarnings("ignore", message="Field name .* shadows an attribute")
        return create_model(name, __config__=config, **fields)


def check_options(function: Callable[..., Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The options with their defaults, validated against the function's signature.

    Raises: pydantic.ValidationError; `explain` turns its items into text.
    """
    model = options_model(function)(**options)
    return {name: getattr(model, name) for name in type(model).model_fields}


def option_errors(function: Callable[..., Any], error: ValidationError) -> list[Any]:
    """The items of an error of `check_options`, located as in the recipe.

    For an option of several possible types, the items of the type that fits best, without the type's name.
    """
    fields = options_model(function).model_fields
    result: list[Any] = []
    for name, group in itertools.groupby(error.errors(), key=lambda item: item["loc"][:1]):
        items: list[Any] = list(group)
        field = fields.get(str(name[0])) if name else None
        if field is not None and _has_branches(field.annotation) and all(len(item["loc"]) > 1 for item in items):
            deepest = max(len(item["loc"]) for item in items)
            items = [{**item, "loc": (*name, *item["loc"][2:])} for item in items if len(item["loc"]) == deepest]
            items = [item for item in items if not _is_of_another_type(item)] or items
        result += items
    return result


def _has_branches(annotation: Any) -> bool:
    if get_origin(annotation) not in (Union, types.UnionType):
        return False
    return len([branch for branch in get_args(annotation) if branch is not type(None)]) > 1


def _is_of_another_type(item: Any) -> bool:
    return str(item["type"]).endswith(("_type", "_parsing")) or item["type"] == "literal_error"


def call_by_name(function: Callable[..., Any], available: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """Call `function` with the `available` values that its positional parameters name.

    Raises: UsageError when it names a value that is not available.
    """
    arguments: dict[str, Any] = {}
    for name in wanted_arguments(function):
        if name not in available:
            raise UsageError(f"{_label(function)} asks for '{name}'; available: {', '.join(sorted(available))}")
        arguments[name] = available[name]
    return function(**arguments, **options)


@functools.cache
def wanted_arguments(function: Callable[..., Any]) -> tuple[str, ...]:
    """Names of the positional parameters: the values that the function wants by name."""
    parameters = inspect.signature(function).parameters.values()
    return tuple(p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _object(entry: Entry) -> Any:
    """The target of an entry if its module is already imported; else the entry itself."""
    module_name, _, attribute = entry.target.partition(":")
    target: Any = sys.modules.get(module_name)
    for part in attribute.split("."):
        target = getattr(target, part, None)
    return entry if target is None else target


def _label(function: Callable[..., Any]) -> str:
    module = sys.modules.get(function.__module__)
    return f"{getattr(module, '__name__', function.__module__)}:{function.__qualname__}"


REWARDS = Registry("reward", "morl.rewards")
SOURCES = Registry("data source", "morl.sources")
ENGINES = Registry("engine", "morl.engines")
"""An engine is constructed as `Engine(model, *, dtype, version=0, **options)`."""
ADVANTAGES = Registry("advantage", "morl.advantages", elsewhere={"grpo": "group_std"})
LOSSES = Registry("loss", "morl.losses")
REWARD_MODELS = Registry("reward model server", "morl.reward_models")
"""Servers of learned rewards; see `morl.rewards.models.reward_model.ScoreServer`."""


__all__ = [
    "ADVANTAGES",
    "ENGINES",
    "LOSSES",
    "REWARDS",
    "REWARD_MODELS",
    "SOURCES",
    "Entry",
    "Registry",
    "ValidationError",
    "call_by_name",
    "check_options",
    "option_errors",
    "options_model",
    "wanted_arguments",
]
