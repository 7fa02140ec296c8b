"""The base classes and types of recipe sections: closed keys, plain types, choices of registered functions."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from morl.error_messages import did_you_mean
from morl.errors import UsageError
from morl.recipe.rules import Rule, check_prompt, check_template, matches, not_a_truth_value, refuse, sentence
from morl.registry import ADVANTAGES, LOSSES, Registry, check_options, option_errors, options_model

Int = Annotated[int, BeforeValidator(not_a_truth_value)]
Float = Annotated[float, BeforeValidator(not_a_truth_value)]
Text = Annotated[str, Field(min_length=1)]
Name = Annotated[str, matches(r"[A-Za-z0-9][A-Za-z0-9_-]*", "a name has letters, digits, '_' and '-' only")]
PromptForm = Annotated[str | list[Any] | dict[str, str], BeforeValidator(check_prompt)]
GoldTemplate = Annotated[Any, AfterValidator(check_template)]


class Spec(BaseModel):
    """A section of a recipe: immutable, unknown keys refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and cls.model_config.get("extra") == "forbid":
            unknown = [key for key in value if key not in cls.model_fields]
            refuse(cls.__name__, [Rule((k,), f"unknown key{did_you_mean(str(k), cls.model_fields)}") for k in unknown])
        return value


class ChoiceSpec(Spec):
    """A section that names a registered function; further keys are options of that function."""

    model_config = ConfigDict(extra="allow")

    registry: ClassVar[Registry]
    """Where the function is looked up."""
    key: ClassVar[str] = "use"

    @property
    def options(self) -> dict[str, Any]:
        """The options of the function as written, without defaults."""
        return dict(self.model_extra or {})

    @model_validator(mode="before")
    @classmethod
    def _offer_own_keys(cls, value: Any) -> Any:
        """Report misspelt keys of the section itself; without a name there is no function whose options to check."""
        if isinstance(value, Mapping) and cls.key not in value:
            fields = list(cls.model_fields)
            slips = [k for k in value if k not in fields and difflib.get_close_matches(str(k), fields, n=1, cutoff=0.6)]
            refuse(cls.__name__, [Rule((k,), f"unknown key{did_you_mean(str(k), fields)}") for k in slips])
        return value

    @model_validator(mode="after")
    def _check_choice(self) -> Self:
        refuse(type(self).__name__, choice_rules(self.registry, self.key, getattr(self, self.key), self.options, self))
        return self


def choice_rules(registry: Registry, key: str, name: str, options: Mapping[str, Any], spec: Spec) -> list[Rule]:
    """The broken rules of a chosen function and its options."""
    try:
        registry.entry(name)
        # Importing an algorithm imports torch: only when there are options to check.
        if not options and registry in (ADVANTAGES, LOSSES):
            return []
        function = registry.load(name)
    except UsageError as error:
        return [Rule((key,), str(error))]
    if hidden := sorted(set(options_model(function).model_fields) & set(type(spec).model_fields)):
        message = (
            f"{registry.kind} '{name}' has an option '{hidden[0]}', which means something else here: "
            "its author must rename it"
        )
        return [Rule((key,), message)]
    try:
        check_options(function, options)
    except ValidationError as error:
        items = option_errors(function, error)
    else:
        return []
    offered = [*options_model(function).model_fields, *type(spec).model_fields]
    return [Rule(tuple(item["loc"]), sentence(item, offered)) for item in items]
