"""Objectives with their reward terms, and evaluation sets."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from morl.error_messages import did_you_mean
from morl.errors import UsageError
from morl.recipe.rules import MISSING, Loc, NoRewards, Rule, refuse
from morl.recipe.schedules import Shape, as_number, movable, schedule_rules, value_at, with_ends
from morl.recipe.schema.data_section import DataSpec
from morl.recipe.schema.section import ChoiceSpec, Float, GoldTemplate, Int, Name, PromptForm, Spec, Text, choice_rules
from morl.registry import REWARDS
from morl.traits import needs_gold, traits_of


class GateSpec(Spec):
    """A condition on another term of the same objective."""

    model_config = ConfigDict(json_schema_extra={"required": ["term"]})  # a schedule may set at_least

    term: Text
    """Name of the other term."""
    at_least: Float
    """This term counts only for samples where the other term's value is at least this."""


class ScheduleSpec(Spec):
    """A value that moves with the training step, `{0: 1.0, 100: 0.2}`: two or more points, steps ascending."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Float]

    shape: Shape = "linear"
    """Between two points, `linear` interpolates and `steps` keeps the earlier value."""

    @model_validator(mode="before")
    @classmethod
    def _check_steps(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        value = {str(key): item for key, item in value.items()}
        steps = [key for key in value if key != "shape"]
        invalid = [key for key in steps if not re.fullmatch("0|[1-9][0-9]{0,8}", key)]
        rules = [Rule((key,), "should be a step (0, 1, 2, …) or 'shape'") for key in invalid]
        for before, key in itertools.pairwise(steps if not invalid else ()):
            if int(key) <= int(before):
                rules.append(Rule((key,), f"steps should ascend, and {key} comes after {before}"))
        if len(steps) < 2:
            rules.append(Rule((), "a schedule needs two points or more: {step: value, step: value}"))
        refuse("ScheduleSpec", rules)
        return value

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Keys are steps."""
        full = handler.resolve_ref_schema(handler(schema))
        full |= {"patternProperties": {"^[0-9]+$": {"type": "number"}}, "additionalProperties": False}
        return full

    @property
    def points(self) -> list[tuple[int, float]]:
        """`(step, value)` pairs, steps ascending."""
        return [(int(step), value) for step, value in (self.model_extra or {}).items()]


class TermSpec(ChoiceSpec):
    """One reward of an objective; further keys are options of the reward."""

    registry = REWARDS

    use: Text
    """Name of the reward; `morl rewards` lists them."""
    name: Name = ""
    """Name of the term in metrics and gates. Default: the reward's name."""
    weight: Annotated[Float, Field(gt=0)] = 1.0
    """Weight of the term in the weighted mean, or its exponent in the product."""
    scale: tuple[Float, Float] | None = None
    """`[low, high]`: maps low to 0 and high to 1, and clips values outside. `[10, 0]` makes smaller values better."""
    gate: GateSpec | None = None
    """The term counts as 0 unless another term of this objective reaches a threshold."""
    on_error: Literal["mask", "zero", "fail"] = "mask"
    """When the reward fails: `mask` leaves the sample out, `zero` counts it as 0, `fail` stops the run."""
    deadline_s: Annotated[Float, Field(gt=0)] = 10.0
    """Seconds after which a call of the reward is stopped. Default: the deadline that the reward declares, usually
    10."""
    schedule: dict[str, ScheduleSpec] = Field(default={})
    """Values that move with the training step, by key: `weight`, `gate` (its `at_least`), or a numeric option of the
    reward. Outside training (eval, check, score, serve) the last value applies; it need not be repeated in the term."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_name(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and isinstance(value.get("use"), str) and value.get("name") is None:
            return {**value, "name": re.sub(r"[^A-Za-z0-9_-]+", "_", value["use"])}
        return value

    @model_validator(mode="before")
    @classmethod
    def _fill_in_deadline(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or not isinstance(value.get("use"), str) or "deadline_s" in value:
            return value
        try:
            function = REWARDS.load(value["use"])
        except UsageError:
            return value  # reported by _check_choice
        return {**value, "deadline_s": traits_of(function).deadline_s}

    @model_validator(mode="before")
    @classmethod
    def _fill_in_ends_of_schedules(cls, value: Any) -> Any:
        written = value.get("schedule") if isinstance(value, Mapping) else None
        if not isinstance(written, Mapping) or not isinstance(value.get("use"), str):
            return value
        schedules: dict[str, ScheduleSpec] = {}
        for key, item in written.items():
            with contextlib.suppress(ValidationError):  # reported by the field itself
                schedules[str(key)] = ScheduleSpec.model_validate(item)
        try:
            function = REWARDS.load(value["use"])
        except UsageError:
            return value  # reported by _check_choice
        refuse("TermSpec", schedule_rules(value, function, {key: (s.points, s.shape) for key, s in schedules.items()}))
        return with_ends(value, function, {key: schedule.points[-1][1] for key, schedule in schedules.items()})

    @model_validator(mode="after")
    def _check_choice(self) -> Self:
        rules = choice_rules(self.registry, self.key, self.use, self.options, self)
        for rule in rules:
            if rule.message == MISSING:  # a broken schedule might have set it
                rule.depends = (("schedule",),)
        refuse("TermSpec", rules)
        return self

    @model_validator(mode="after")
    def _check_scale(self) -> Self:
        if self.scale is not None and self.scale[0] == self.scale[1]:
            message = f"low and high are both {self.scale[0]:g}: make them differ"
            refuse("TermSpec", [Rule(("scale",), message)])
        if self.scale is not None and math.isinf(self.scale[1] - self.scale[0]):
            refuse("TermSpec", [Rule(("scale",), "high - low overflows a float: move them closer together")])
        return self

    def at(self, step: int) -> TermSpec:
        """The term with its schedules evaluated at a training step, counted from 1."""
        update: dict[str, Any] = {}
        if self.schedule:
            numbers = movable(REWARDS.load(self.use), gated=self.gate is not None)
            for key, schedule in self.schedule.items():
                update[key] = as_number(numbers[key], value_at(schedule.points, step, schedule.shape))
        if self.gate is not None and "gate" in update:
            update["gate"] = self.gate.model_copy(update={"at_least": update["gate"]})
        return self.model_copy(update=update)


def _or_no_rewards(value: Any, handler: ValidatorFunctionWrapHandler) -> Any:
    return [] if value is NoRewards else handler(value)


RewardTerms = Annotated[list[TermSpec], Field(min_length=1), WrapValidator(_or_no_rewards)]


def _term_rules(rewards: Sequence[TermSpec]) -> list[Rule]:
    """Term names must be unique, and gates must name a term."""
    names = [term.name for term in rewards]
    rules = []
    for index, term in enumerate(rewards):
        if term.name in names[:index]:
            key = "use" if term.name == term.use else "name"
            message = f"two terms are called '{term.name}': give this one another 'name'"
            rules.append(Rule(("rewards", index, key), message))
        if term.gate is not None and term.gate.term not in names:
            message = f"no term is called '{term.gate.term}'{did_you_mean(term.gate.term, names)}"
            rules.append(Rule(("rewards", index, "gate", "term"), message, [("rewards",)]))
    return rules


def gold_rules(gold: Any, rewards: Sequence[TermSpec], owner: Loc) -> list[Rule]:
    """A reward whose `gold` argument has no default needs a gold answer."""
    rules = []
    for index, term in enumerate(rewards if gold is None else ()):
        if needs_gold(REWARDS.load(term.use)):
            message = f"'{term.use}' compares with a gold answer, and there is none: add 'gold'"
            rules.append(Rule((*owner, "rewards", index, "use"), message, [(*owner, "gold")]))
    return rules


class ObjectiveSpec(Spec):
    """Prompts of one kind, and the rewards that score the responses."""

    share: Annotated[Float, Field(gt=0)]
    """Share of the prompts of a step, relative to the shares of the other objectives."""
    data: DataSpec
    """The rows."""
    prompt: PromptForm
    """Jinja template over the fields of a row: text; a list of text, `{image: …}` and `{video: …}`; a list of
    messages; or `{messages: "{{ field }}"}` for a field that holds messages."""
    gold: GoldTemplate = None
    """Gold answer: a template (`"{{ field }}"` alone keeps the field's type), a constant, or a list or mapping of
    these."""
    rewards: RewardTerms
    """Reward terms, combined into one score."""
    combine: Literal["sum", "product"] = "sum"
    """`sum` is the weighted mean of the terms; `product` multiplies them, with the weights as exponents."""
    pass_at: Annotated[Float, Field(gt=0, le=1)] = 1.0
    """A sample passes when its score is at least this. Used for pass rates only."""

    @model_validator(mode="after")
    def _check_terms(self) -> Self:
        refuse("ObjectiveSpec", _term_rules(self.rewards))
        return self


class EvalSetSpec(Spec):
    """Rows to evaluate on. Keys that are left out are taken from an objective."""

    objective: Text | None = None
    """The objective that supplies them. Default: the one with the name of the set."""
    data: DataSpec
    """The rows."""
    prompt: PromptForm | None = None
    """As in an objective."""
    gold: GoldTemplate = None
    """As in an objective."""
    rewards: RewardTerms | None = None
    """As in an objective."""
    combine: Literal["sum", "product"] | None = None
    """As in an objective."""
    pass_at: Annotated[Float, Field(gt=0, le=1)] | None = None
    """As in an objective."""
    samples: Annotated[Int, Field(ge=1)] = 1
    """Responses to each prompt, for pass@k."""
    temperature: Annotated[Float, Field(ge=0)] = 0.0
    """Sampling temperature; 0 is greedy."""
    top_p: Annotated[Float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling: sample from the most likely tokens whose total probability reaches this."""
    max_new_tokens: Annotated[Int, Field(ge=1)] | None = None
    """Most tokens of a response. Default: `rollout.max_new_tokens`."""

    @model_validator(mode="after")
    def _check_set(self) -> Self:
        rules = _term_rules(self.rewards or [])
        if self.samples > 1 and self.temperature == 0:
            message = f"{self.samples} greedy responses are all the same: set a temperature above 0"
            rules.append(Rule(("samples",), message, [("temperature",)]))
        refuse("EvalSetSpec", rules)
        return self


class EvalSpec(Spec):
    """Evaluation before, during and after training."""

    every: Annotated[Int, Field(ge=0)] = 0
    """Steps between evaluations; 0 evaluates before and after training only."""
    sets: dict[Name, EvalSetSpec] = Field(default={})
    """Evaluation sets by name."""
