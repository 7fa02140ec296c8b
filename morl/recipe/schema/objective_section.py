"""What is trained for, and what is measured."""

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

from morl.errors import UsageError
from morl.recipe.rules import MISSING, Loc, NoRewards, Rule, refuse
from morl.recipe.schedules import Shape, as_number, movable, schedule_rules, value_at, with_ends
from morl.recipe.schema.data_section import DataSpec
from morl.recipe.schema.section import ChoiceSpec, Float, GoldTemplate, Int, Name, PromptForm, Spec, Text, choice_rules
from morl.registry import REWARDS, did_you_mean
from morl.traits import needs_gold, traits_of


class GateSpec(Spec):
    """A condition on another term of the same objective."""

    model_config = ConfigDict(json_schema_extra={"required": ["term"]})  # a schedule may give the other

    term: Text
    """Name of the term whose value decides."""
    at_least: Float
    """The term counts only for samples where the other term's value reaches this."""


class ScheduleSpec(Spec):
    """A number by training step, `{0: 1.0, 100: 0.2}`: two points or more, by ascending step."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Float]

    shape: Shape = "linear"
    """Between two points: `linear` goes straight from one to the other, `steps` stays at the earlier one."""

    @model_validator(mode="before")
    @classmethod
    def _check_steps(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        value = {str(key): item for key, item in value.items()}
        steps = [key for key in value if key != "shape"]
        wrong = [key for key in steps if not re.fullmatch("0|[1-9][0-9]{0,8}", key)]
        rules = [Rule((key,), "should be a step (0, 1, 2, …) or 'shape'") for key in wrong]
        for before, key in itertools.pairwise(steps if not wrong else ()):
            if int(key) <= int(before):
                rules.append(Rule((key,), f"steps should ascend, and {key} comes after {before}"))
        if len(steps) < 2:
            rules.append(Rule((), "a schedule goes from one point to another: {step: value, step: value}"))
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
        """`(step, value)`, by ascending step."""
        return [(int(step), value) for step, value in (self.model_extra or {}).items()]


class TermSpec(ChoiceSpec):
    """One reward of an objective; further keys are the reward's own options."""

    registry = REWARDS

    use: Text
    """Name of the reward; `morl rewards` lists them."""
    name: Name = ""
    """Name of the term in metrics and gates; the reward's name when it is not given."""
    weight: Annotated[Float, Field(gt=0)] = 1.0
    """Share of the term in the weighted mean, or its exponent in the product."""
    scale: tuple[Float, Float] | None = None
    """`[low, high]`: the values that become 0 and 1, cut off outside; `[10, 0]` turns less into better."""
    gate: GateSpec | None = None
    """Counts as 0 unless a term of this objective reaches a threshold."""
    on_error: Literal["mask", "zero", "fail"] = "mask"
    """When the reward fails: leave the sample out, count it as 0, or stop the run."""
    deadline_s: Annotated[Float, Field(gt=0)] = 10.0
    """Seconds after which the reward is stopped; the reward's own when it is not given, 10 for most."""
    schedule: dict[str, ScheduleSpec] = Field(default={})
    """What moves with the training step: `weight`, `gate` (its at_least), or an option that is a number. Outside of
    training (evaluation, check, score, serve) the last value holds; it need not be written a second time."""

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
            return value  # which the choice of the reward will raise
        return {**value, "deadline_s": traits_of(function).deadline_s}

    @model_validator(mode="before")
    @classmethod
    def _fill_in_ends_of_schedules(cls, value: Any) -> Any:
        given = value.get("schedule") if isinstance(value, Mapping) else None
        if not isinstance(given, Mapping) or not isinstance(value.get("use"), str):
            return value
        schedules: dict[str, ScheduleSpec] = {}
        for key, item in given.items():
            with contextlib.suppress(ValidationError):  # which the field itself will raise
                schedules[str(key)] = ScheduleSpec.model_validate(item)
        try:
            function = REWARDS.load(value["use"])
        except UsageError:
            return value  # which the choice of the reward will raise
        refuse("TermSpec", schedule_rules(value, function, {key: (s.points, s.shape) for key, s in schedules.items()}))
        return with_ends(value, function, {key: schedule.points[-1][1] for key, schedule in schedules.items()})

    @model_validator(mode="after")
    def _check_choice(self) -> Self:
        rules = choice_rules(self.registry, self.key, self.use, self.options, self)
        for rule in rules:
            if rule.message == MISSING:  # a schedule that was wrong might have filled it in
                rule.depends = (("schedule",),)
        refuse("TermSpec", rules)
        return self

    @model_validator(mode="after")
    def _check_scale(self) -> Self:
        if self.scale is not None and self.scale[0] == self.scale[1]:
            message = f"low and high are both {self.scale[0]:g}: nothing lies between them"
            refuse("TermSpec", [Rule(("scale",), message)])
        if self.scale is not None and math.isinf(self.scale[1] - self.scale[0]):
            refuse("TermSpec", [Rule(("scale",), "low and high are further apart than numbers go")])
        return self

    def at(self, step: int) -> TermSpec:
        """The term in a training step, counted from 1: what is scheduled has the value of that step."""
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
    """Names must be unique, and gates must name one of them."""
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


def gold_rules(gold: Any, rewards: Sequence[TermSpec], here: Loc) -> list[Rule]:
    """A reward that takes a gold answer, and has no default for it, must be given one."""
    rules = []
    for index, term in enumerate(rewards if gold is None else ()):
        if needs_gold(REWARDS.load(term.use)):
            message = f"'{term.use}' compares with a gold answer, and there is none: add 'gold'"
            rules.append(Rule((*here, "rewards", index, "use"), message, [(*here, "gold")]))
    return rules


class ObjectiveSpec(Spec):
    """Prompts of one kind, and the rewards that score their answers."""

    share: Annotated[Float, Field(gt=0)]
    """Its part of the prompts, relative to the other objectives' shares."""
    data: DataSpec
    """Where its rows come from."""
    prompt: PromptForm
    """Jinja template over a row's fields: text; a list of text, {image: …} and {video: …}; a list of messages; or
    `{messages: "{{ field }}"}` for a field that holds them."""
    gold: GoldTemplate = None
    """Reference answer: a template (`"{{ field }}"` alone keeps the type), a constant, a list or mapping of these."""
    rewards: RewardTerms
    """The rewards that are mixed into one score."""
    combine: Literal["sum", "product"] = "sum"
    """Weighted mean of the terms, or their product with the weights as exponents."""
    pass_at: Annotated[Float, Field(gt=0, le=1)] = 1.0
    """A sample passes when its score reaches this; for pass rates only."""

    @model_validator(mode="after")
    def _check_terms(self) -> Self:
        refuse("ObjectiveSpec", _term_rules(self.rewards))
        return self


class EvalSetSpec(Spec):
    """Rows to measure on; what is not given is the objective's."""

    objective: Text | None = None
    """The objective whose prompt, gold and rewards it takes; the one of its own name when it is not given."""
    data: DataSpec
    """Where its rows come from."""
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
    """Answers to each prompt, for pass@k."""
    temperature: Annotated[Float, Field(ge=0)] = 0.0
    """0 is greedy."""
    top_p: Annotated[Float, Field(gt=0, le=1)] = 1.0
    """Sample from the likeliest tokens that together reach this probability."""
    max_new_tokens: Annotated[Int, Field(ge=1)] | None = None
    """Longest answer, in tokens; the rollout's when it is not given."""

    @model_validator(mode="after")
    def _check_set(self) -> Self:
        rules = _term_rules(self.rewards or [])
        if self.samples > 1 and self.temperature == 0:
            message = f"{self.samples} greedy answers are all the same: set a temperature above 0"
            rules.append(Rule(("samples",), message, [("temperature",)]))
        refuse("EvalSetSpec", rules)
        return self


class EvalSpec(Spec):
    """Measurements before, during and after training."""

    every: Annotated[Int, Field(ge=0)] = 0
    """Steps between measurements; 0 measures before and after training only."""
    sets: dict[Name, EvalSetSpec] = Field(default={})
    """What is measured, by name."""
