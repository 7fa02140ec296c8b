"""The schema of a recipe: one model a section.

A docstring under a field is its documentation, in editors too. Rewards, data sources,
engines, advantages and losses bring options of their own, which are checked against the
signature of the function that a recipe names.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import inspect
import io
import itertools
import math
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
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
from ruamel.yaml import YAML
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import SafeRepresenter

from morl.errors import UsageError
from morl.media import Limits
from morl.registry import Registry, check_options, did_you_mean, options_model
from morl.rules import (
    MISSING,
    Loc,
    NoRewards,
    Rule,
    check_prompt,
    check_template,
    folder_name,
    not_a_truth_value,
    plain_name,
    ray_address,
    refuse,
    sentence,
)
from morl.schedules import Shape, as_number, movable, schedule_rules, value_at, with_ends

Int = Annotated[int, BeforeValidator(not_a_truth_value)]
Float = Annotated[float, BeforeValidator(not_a_truth_value)]
Text = Annotated[str, Field(min_length=1)]
Name = Annotated[str, AfterValidator(plain_name)]
PromptForm = Annotated[str | list[Any] | dict[str, str], BeforeValidator(check_prompt)]
GoldTemplate = Annotated[Any, AfterValidator(check_template)]


_REGISTRIES = {
    "reward": ("morl.rewards", "REWARDS"),
    "data source": ("morl.data.sources", "SOURCES"),
    "engine": ("morl.rollout", "ENGINES"),
    "advantage": ("morl.algorithms", "ADVANTAGES"),
    "loss": ("morl.algorithms", "LOSSES"),
}


def registry(kind: str) -> Registry:
    """The registry of a kind: reward, data source, engine, advantage or loss."""
    module, attribute = _REGISTRIES[kind]
    found: Registry = getattr(importlib.import_module(module), attribute)
    return found


class Spec(BaseModel):
    """A section of a recipe: immutable, and closed to keys that it does not know."""

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
    """A section that names a registered function, and may give options of that function."""

    model_config = ConfigDict(extra="allow")

    kind: ClassVar[str]
    key: ClassVar[str] = "use"

    @property
    def options(self) -> dict[str, Any]:
        """The function's own options as they are written; defaults are not filled in."""
        return dict(self.model_extra or {})

    @model_validator(mode="before")
    @classmethod
    def _offer_own_keys(cls, value: Any) -> Any:
        """Without a name there is no function to ask: only a slip of our own key can be told."""
        if isinstance(value, Mapping) and cls.key not in value:
            fields = list(cls.model_fields)
            slips = [k for k in value if k not in fields and difflib.get_close_matches(str(k), fields, n=1, cutoff=0.6)]
            refuse(cls.__name__, [Rule((k,), f"unknown key{did_you_mean(str(k), fields)}") for k in slips])
        return value

    @model_validator(mode="after")
    def _check_choice(self) -> Self:
        refuse(type(self).__name__, _choice_rules(self.kind, self.key, getattr(self, self.key), self.options, self))
        return self


def _choice_rules(kind: str, key: str, name: str, options: Mapping[str, Any], spec: Spec) -> list[Rule]:
    """What is wrong with the choice of a function and its options."""
    try:
        known = registry(kind)
        known.entry(name)
        # Importing an algorithm imports torch: only when there are options to check.
        if not options and kind in ("advantage", "loss"):
            return []
        function = known.load(name)
    except UsageError as error:
        return [Rule((key,), str(error))]
    if hidden := sorted(set(options_model(function).model_fields) & set(type(spec).model_fields)):
        message = (
            f"{kind} '{name}' has an option '{hidden[0]}', which means something else here: its author must rename it"
        )
        return [Rule((key,), message)]
    try:
        check_options(function, options)
    except ValidationError as error:
        items = error.errors()
    else:
        return []
    offered = [*options_model(function).model_fields, *type(spec).model_fields]
    return [Rule(tuple(item["loc"]), sentence(item, offered)) for item in items]


class RunFolderSpec(Spec):
    """What the run is called and what it leaves on disk."""

    name: Annotated[str, AfterValidator(folder_name)]
    """Name of the run; it writes to the folder `<dir>/<name>`."""
    seed: Annotated[Int, Field(ge=0, lt=2**31)] = 0
    """Everything random follows from it."""
    checkpoint_every: Annotated[Int, Field(ge=0)] = 20
    """Steps between checkpoints; 0 saves at the end only."""
    keep_checkpoints: Annotated[Int, Field(ge=1)] = 2
    """How many of the newest checkpoints stay on disk."""
    dir: Text = "runs"
    """Folder of all runs."""
    offline: bool = True
    """Forbid the Hugging Face libraries to use the network."""


class RunSpec(RunFolderSpec):
    """What the run is called and how long it is."""

    steps: Annotated[Int, Field(ge=1)]
    """Optimiser steps; each learns from one batch of rollouts."""


class ModelSpec(Spec):
    """The policy before training."""

    path: Text
    """Folder of a Hugging Face checkpoint with its tokenizer, or a name on the hub."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number type of the weights, in learner and engines."""


class MediaSpec(Spec):
    """How large pictures and videos are when the model sees them; what is not given, the checkpoint's processor has."""

    min_pixels: Annotated[Int, Field(ge=1)] | None = None
    """Of a picture or of each frame of a video; smaller ones are enlarged."""
    max_pixels: Annotated[Int, Field(ge=1)] | None = None
    """Of a picture or of each frame of a video; larger ones are made smaller."""
    max_tokens: Annotated[Int, Field(ge=1)] | None = None
    """Of a picture or of a whole video; larger ones are made smaller."""
    fps: Annotated[Float, Field(gt=0)] = 2.0
    """Frames of a second of video that are shown; frames that come without their own rate were taken at this one."""
    max_frames: Annotated[Int, Field(ge=1)] = 256
    """Most frames of a video; of a longer one fewer a second are shown."""

    @model_validator(mode="after")
    def _check_pixels(self) -> Self:
        if self.min_pixels is not None and self.max_pixels is not None and self.min_pixels > self.max_pixels:
            message = f"{self.min_pixels} is more than max_pixels={self.max_pixels}"
            refuse("MediaSpec", [Rule(("min_pixels",), message, [("max_pixels",)])])
        return self

    @property
    def limits(self) -> Limits:
        """The same, for the pictures of a row."""
        return Limits(**self.model_dump())


class DataSpec(ChoiceSpec):
    """Rows from a data source; further keys are the source's own options."""

    kind = "data source"
    key = "source"

    source: Text
    """Name of the data source: jsonl, csv, parquet, huggingface, reasoning_gym, or a plugin's."""
    skip: Annotated[Int, Field(ge=0)] = 0
    """Rows to leave out at the beginning."""
    take: Annotated[Int, Field(ge=1)] | None = None
    """Rows to use at most after those; all when it is not given."""
    media: MediaSpec = MediaSpec()
    """How large the rows' pictures and videos are when the model sees them."""
    bad_media: Literal["fail", "skip"] = "fail"
    """What a picture or video that is missing, broken or of no use does: stop the run, or have its row left out and
    counted. To skip rows, each is decoded when it is drawn, and once more when it is used."""


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

    kind = "reward"

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
    schedule: dict[str, ScheduleSpec] = {}
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
            function = registry("reward").load(value["use"])
        except UsageError:
            return value  # which the choice of the reward will raise
        from morl.rewards.decorator import traits_of

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
            function = registry("reward").load(value["use"])
        except UsageError:
            return value  # which the choice of the reward will raise
        refuse("TermSpec", schedule_rules(value, function, {key: (s.points, s.shape) for key, s in schedules.items()}))
        return with_ends(value, function, {key: schedule.points[-1][1] for key, schedule in schedules.items()})

    @model_validator(mode="after")
    def _check_choice(self) -> Self:
        rules = _choice_rules(self.kind, self.key, self.use, self.options, self)
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
            numbers = movable(registry("reward").load(self.use), gated=self.gate is not None)
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


def _gold_rules(gold: Any, rewards: Sequence[TermSpec], here: Loc) -> list[Rule]:
    """A reward that takes a gold answer, and has no default for it, must be given one."""
    rules = []
    for index, term in enumerate(rewards if gold is None else ()):
        parameter = inspect.signature(registry("reward").load(term.use)).parameters.get("gold")
        if parameter is not None and parameter.default is inspect.Parameter.empty:
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


class UseSpec(ChoiceSpec):
    """A function by name, or `{use: name, option: value}`."""

    use: Text
    """Name of the function."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: Any) -> Any:
        return {"use": value} if isinstance(value, str) else value

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """A bare name is as good as a mapping."""
        full = handler(schema)
        return {"description": cls.__doc__, "anyOf": [{"type": "string"}, full]}


_ADDS_TERMS = ("gdpo", "mo_grpo")
"""Advantages that make a sum of an objective's terms, whatever the objective makes of them."""


class AdvantageSpec(UseSpec):
    """How rewards of a group become advantages: a name, or `{use: name, option: value}`."""

    kind = "advantage"


class LossSpec(UseSpec):
    """The loss of a token: a name, or `{use: name, option: value}`."""

    kind = "loss"


_BOUNDS = {"none": {}, "truncated": {"cap": 2.0}, "masked": {"low": 0.5, "high": 5.0}}
"""The keys of each kind of importance weights, with their defaults; a mask's are those of IcePop, for tokens."""


class ImportanceSpec(Spec):
    """Correction for the difference between the engine's and the learner's probabilities.

    A loss that corrects for it itself (ppo_clip, gspo, gspo_token, cispo) takes the mask alone, and is not weighted.
    """

    kind: Literal["none", "truncated", "masked"] = "truncated"
    """`truncated` weights a token's loss by min(learner / engine, cap); `masked` by learner / engine, and leaves out
    what lies outside of [low, high], the rest counting for it."""
    level: Literal["token", "sequence", "geometric"] = "token"
    """Whose probability is compared: the token's, the whole answer's, or the answer's mean per token."""
    cap: Annotated[Float, Field(ge=1)] | None = None
    """Largest weight of `truncated`; 2 when it is not given."""
    low: Annotated[Float, Field(ge=0, le=1)] | None = None
    """Least ratio that `masked` keeps; 0.5 for tokens when it is not given."""
    high: Annotated[Float, Field(ge=1)] | None = None
    """Largest ratio that `masked` keeps; 5 for tokens when it is not given."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_bounds(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        kind, level = str(value.get("kind", "truncated")), value.get("level", "token")
        if kind not in _BOUNDS or (kind == "masked" and level != "token"):
            return value
        given = {key: item for key, item in value.items() if item is not None}
        return {**value, **_BOUNDS[kind], **given}

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        rules = []
        for key in ("cap", "low", "high"):
            own = next(kind for kind, keys in _BOUNDS.items() if key in keys)
            value = getattr(self, key)
            if value is not None and own != self.kind:
                message = f"{value:g} belongs to kind '{own}', and the kind is '{self.kind}': leave it out"
                rules.append(Rule((key,), message, [("kind",)]))
            elif value is None and own == self.kind:
                message = f"required with level '{self.level}': the default is for the ratio of a single token"
                rules.append(Rule((key,), message, [("kind",), ("level",)]))
        if self.kind == "none" and self.level != "token":
            message = f"'{self.level}' says how to weight, and the kind is 'none': leave it out"
            rules.append(Rule(("level",), message, [("kind",)]))
        refuse("ImportanceSpec", rules)
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """Between which ratios a token counts, or its weight is kept."""
        return self.low or 0.0, self.cap or self.high or math.inf


class KlSpec(Spec):
    """A penalty on the distance from a frozen reference: `coef * kl` is added to each token's loss."""

    coef: Annotated[Float, Field(gt=0)] = 0.001
    """What a nat costs, in units of advantage."""
    estimator: Literal["k1", "k2", "k3"] = "k2"
    """`k2` has the gradient of KL(policy, reference); `k3` is GRPO's; `k1`'s is 0 on average, for comparison."""
    reference: Text | None = None
    """Folder of the reference's checkpoint, of the policy's vocabulary; `model.path` when it is not given, which costs
    no memory where LoRA adapters are trained: they are switched off."""


class CriticSpec(Spec):
    """The value model of an advantage that works token by token; layout, optimiser and adapters are the learner's.

    It takes as many processes, and GPUs, as the policy's learner does, beside it; nothing of it is frozen.
    """

    path: Text | None = None
    """Folder of the checkpoint that it begins with, of the policy's vocabulary: a language model, or what `morl rm`
    made; `model.path` when it is not given. The head that gives the value is new and says 0."""
    lr: Annotated[Float, Field(ge=0)] = 1e-5
    """Learning rate after warm-up."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate goes on after warm-up; linear and cosine end at 0 with the last step."""
    warmup_steps: Annotated[Int, Field(ge=0)] = 0
    """Steps in which the learning rate rises from 0."""


class AlgorithmSpec(Spec):
    """The update rule."""

    advantage: AdvantageSpec = Field(default_factory=lambda: AdvantageSpec(use="group_std"))
    """How the rewards of a group become advantages."""
    loss: LossSpec = Field(default_factory=lambda: LossSpec(use="on_policy"))
    """The loss of a token."""
    aggregation: Literal["prompt_tokens", "batch_tokens", "sequence_mean", "constant"] = "prompt_tokens"
    """What the sum of token losses is divided by."""
    importance: ImportanceSpec = ImportanceSpec()
    """Correction for the difference between the engine's and the learner's probabilities."""
    kl: KlSpec | None = None
    """A penalty on the distance from a frozen reference; none when it is not given."""
    critic: CriticSpec | None = None
    """The value model of an advantage that works token by token (gae), which has one in any case."""

    @model_validator(mode="after")
    def _check_critic(self) -> Self:
        if self.critic is not None and not self.has_critic:
            message = f"advantage '{self.advantage.use}' asks for no values: leave 'critic' out, or take 'gae'"
            refuse("AlgorithmSpec", [Rule(("critic",), message, [("advantage",)])])
        return self

    @property
    def has_critic(self) -> bool:
        """Whether the advantage works token by token, from a critic's values."""
        from morl.algorithms import wants_critic

        return wants_critic(registry("advantage").load(self.advantage.use))


class RolloutSpec(Spec):
    """How answers are sampled for training."""

    engine: Text = "auto"
    """Name of the engine; `auto` takes vLLM where it is installed, else hf."""
    engines: Annotated[Int, Field(ge=1)] = 1
    """How many engines share the prompts."""
    prompts_per_step: Annotated[Int, Field(ge=1)]
    """Prompts of one step, over all objectives."""
    samples_per_prompt: Annotated[Int, Field(ge=1)]
    """Answers to each prompt; their rewards are compared with each other, unless there is a critic."""
    max_new_tokens: Annotated[Int, Field(ge=1)]
    """Longest answer, in tokens."""
    temperature: Annotated[Float, Field(gt=0)] = 1.0
    """What the logits are divided by."""
    max_prompt_tokens: Annotated[Int, Field(ge=1)] = 2048
    """Longest prompt, in tokens, chat template included."""
    options: dict[str, Any] = {}
    """The engine's own options."""
    max_restarts: Annotated[Int, Field(ge=0)] = 3
    """How often in one step an engine that died is started again."""

    @model_validator(mode="after")
    def _check_engine(self) -> Self:
        refuse("RolloutSpec", self._engine_rules())
        return self

    def _engine_rules(self) -> list[Rule]:
        if self.engine == "auto":
            message = "belong to one engine: name it with 'engine', because 'auto' may choose another"
            return [Rule(("options",), message, [("engine",)])] if self.options else []
        try:
            engines = registry("engine")
            engines.entry(self.engine)
            engine = engines.load(self.engine) if self.options else None
        except UsageError as error:
            return [Rule(("engine",), str(error))]
        if engine is None:
            return []
        given = {
            "dtype": "model.dtype",
            "version": "the program",
            "max_lora_rank": "learner.lora.rank",
            "weight_transfer": "sync.kind",
        }
        rules = [Rule(("options", k), f"is set by {given[k]}") for k in self.options if k in given]
        build = inspect.getattr_static(engine, "__init__") if inspect.isclass(engine) else engine
        options = {key: value for key, value in self.options.items() if key not in given}
        try:
            check_options(build, {**options, "dtype": "float32"})
        except ValidationError as error:
            known = [name for name in options_model(build).model_fields if name not in given]
            for item in error.errors():
                if item["loc"][0] not in given:
                    rules.append(Rule(("options", *item["loc"]), sentence(item, known)))
        return rules


class LoraSpec(Spec):
    """Low-rank adapters: only these are trained."""

    rank: Annotated[Int, Field(ge=1)]
    """Rank of the adapters."""
    alpha: Annotated[Float, Field(gt=0)]
    """Scale of the adapters: their output is multiplied by alpha / rank."""
    dropout: Annotated[Float, Field(ge=0, lt=1)] = 0.0
    """Share of the adapters' inputs that is dropped in training."""
    target_modules: Literal["all-linear"] | Annotated[list[Text], Field(min_length=1)] = "all-linear"
    """Names of the layers that get an adapter."""


class LearnerSpec(Spec):
    """The optimiser and how it is spread over processes; none of the latter changes the update."""

    ranks: Annotated[Int, Field(ge=1)] = 1
    """Processes that learn together, one a GPU."""
    zero: Annotated[Int, Field(ge=0, le=3)] = 0
    """DeepSpeed ZeRO stage: what the ranks share out: 0 nothing, 1 optimiser, 2 gradients too, 3 weights too."""
    lr: Annotated[Float, Field(ge=0)] = 1e-6
    """Learning rate after warm-up."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate goes on after warm-up; linear and cosine end at 0 with the last step."""
    warmup_steps: Annotated[Int, Field(ge=0)] = 0
    """Steps in which the learning rate rises from 0."""
    betas: tuple[Annotated[Float, Field(ge=0, lt=1)], Annotated[Float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """AdamW's decay of the running mean and of the running square of the gradient."""
    eps: Annotated[Float, Field(gt=0)] = 1e-8
    """AdamW's epsilon: a gradient well below it moves nothing, one well above it takes a full step."""
    weight_decay: Annotated[Float, Field(ge=0)] = 0.0
    """AdamW's weight decay."""
    max_grad_norm: Annotated[Float, Field(gt=0)] = 1.0
    """The gradient is scaled down to this norm."""
    tokens_per_microbatch: Annotated[Int, Field(ge=1)] = 16384
    """Tokens in one forward pass of a rank: memory, never the update, depends on it."""
    share_prefix: bool = True
    """Compute a prompt once for all its answers; off, each answer comes with its prompt: slower, the same update."""
    max_restarts: Annotated[Int, Field(ge=0)] = 3
    """How often in a row, without a new checkpoint, the learner is started again after one of its processes died."""
    timeout_s: Annotated[Float, Field(gt=0)] = 1800.0
    """Seconds that a rank waits for the others, and that any one call of the learner, as a step, may take."""
    max_skipped_steps: Annotated[Int, Field(ge=1)] = 3
    """Steps in a row with a loss or gradient that is not finite, each skipped, that end the run."""
    mismatch_warn: Annotated[Float, Field(gt=0)] = 0.1
    """Mean difference of the tokens' log-probabilities, learner against rollout, in nats, that is worth a warning."""
    mismatch_stop: Annotated[Float, Field(gt=0)] = 1.0
    """The same; three steps in a row above it end the run."""
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, more time."""
    attention: Literal["auto", "sdpa", "flex"] = "auto"
    """Attention over a prompt and its answers: `sdpa` block by block; `flex` in one compiled kernel, on GPUs only;
    `auto` takes flex on a GPU."""
    liger: Literal["auto", "on", "off"] = "auto"
    """Fused kernels of the package liger-kernel: `auto` takes them on a GPU where the package is installed."""
    offload: bool = False
    """Keep the optimiser in the memory of the host; needs zero 1, 2 or 3."""
    train: Annotated[list[Text], Field(min_length=1)] = ["*"]
    """Parameters that learn: patterns like `model.visual.merger.*` over their names; all by default."""
    freeze: list[Text] = []
    """Of these, parameters that stay as they are: patterns like `model.embed_tokens.*` or `visual.*`."""
    lora: LoraSpec | None = None
    """Train low-rank adapters; all weights when it is not given."""

    @model_validator(mode="after")
    def _check_offload(self) -> Self:
        if self.offload and self.zero == 0:
            refuse("LearnerSpec", [Rule(("offload",), "needs zero 1, 2 or 3, not 0", [("zero",)])])
        return self


class ScoringSpec(Spec):
    """Where rewards run."""

    workers: Annotated[Int, Field(ge=1)] | None = None
    """Worker processes; as many as there are CPUs when it is not given."""
    memory_mb: Annotated[Int, Field(ge=64)] = 2048
    """Memory that one call of a reward may take in a worker, in MiB."""
    min_scored: Annotated[Float, Field(ge=0, le=1)] = 0.5
    """A step in which a smaller part of the samples got a score stops the run."""


class SyncSpec(Spec):
    """How new weights reach the engines."""

    kind: Literal["disk", "nccl"] = "disk"
    """`disk`: through a folder that learner and engines share; `nccl`: from GPU to GPU, to vLLM engines only."""
    folder: Text | None = None
    """That folder; shared memory of this machine when it is not given. With `nccl` it serves engines that died."""
    lora: Literal["auto", "merged", "adapter"] = "auto"
    """With learner.lora: send the whole model with the adapter `merged` into it, or the `adapter` alone, which engines
    have to support; `auto` sends the adapter where the engine takes it and runs on a GPU."""


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
    sets: dict[Name, EvalSetSpec] = {}
    """What is measured, by name."""


class WandbSpec(Spec):
    """Weights & Biases."""

    project: Text
    """Project that the run belongs to."""
    entity: Text | None = None
    """User or team."""
    name: Text | None = None
    """Name of the run there; `run.name` when it is not given."""
    mode: Literal["offline", "online", "disabled"] = "offline"
    """`offline` writes files that `wandb sync` uploads later."""


class TrackSpec(Spec):
    """Where metrics go besides `metrics.jsonl` and the console."""

    wandb: WandbSpec | None = None
    """Weights & Biases."""
    tensorboard: bool = False
    """Write TensorBoard files."""
    samples: bool = True
    """Save every sample with its score."""
    report: bool = False
    """Write `report.html` when training ends; `morl report` writes it at any time."""


class ClusterSpec(Spec):
    """The Ray cluster."""

    address: Annotated[str, AfterValidator(ray_address)] = "local"
    """`local` starts one on this machine; `auto` or host:port joins one."""
    start_timeout_s: Annotated[Float, Field(gt=0)] = 300.0
    """Seconds to wait for the resources that the recipe needs."""


class _Representer(SafeRepresenter):
    """Writes text with any kind of line break in double quotes, the one style that keeps them all."""

    def represent_str(self, data: str) -> ScalarNode:
        """Text as a YAML scalar."""
        style = '"' if set(data) & set("\n\r\x85\u2028\u2029\ufeff") else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Representer.add_representer(str, _Representer.represent_str)


class Document(Spec):
    """A whole recipe file."""

    @model_validator(mode="before")
    @classmethod
    def _import_plugins(cls, value: Any) -> Any:
        plugins = value.get("plugins") if isinstance(value, Mapping) else None
        if isinstance(plugins, list):
            rules = []
            for index, plugin in enumerate(plugins):
                try:
                    if isinstance(plugin, str):
                        import_plugin(plugin)
                except UsageError as error:
                    rules.append(Rule(("plugins", index), str(error)))
            refuse(cls.__name__, rules)
        return value

    def to_yaml(self) -> str:
        """The recipe with every default written out; reading it gives this recipe again."""
        yaml = YAML(typ="safe", pure=True)
        yaml.Representer = _Representer
        yaml.default_flow_style = False
        yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # keeps the order of the schema
        yaml.allow_unicode = True
        yaml.width = 1000
        text = io.StringIO()
        yaml.dump(self.model_dump(mode="json"), text)
        return text.getvalue()


class Recipe(Document):
    """Everything a run is."""

    run: RunSpec
    """Name, length and checkpoints."""
    model: ModelSpec
    """The policy before training."""
    objectives: Annotated[dict[Name, ObjectiveSpec], Field(min_length=1)]
    """What is trained for, by name."""
    algorithm: AlgorithmSpec = Field(default_factory=AlgorithmSpec)
    """The update rule."""
    rollout: RolloutSpec
    """How answers are sampled for training."""
    learner: LearnerSpec = LearnerSpec()
    """The optimiser and its processes."""
    scoring: ScoringSpec = ScoringSpec()
    """Where rewards run."""
    sync: SyncSpec = SyncSpec()
    """How new weights reach the engines."""
    eval: EvalSpec = EvalSpec()
    """Measurements."""
    track: TrackSpec = TrackSpec()
    """Where metrics go."""
    cluster: ClusterSpec = ClusterSpec()
    """The Ray cluster."""
    plugins: list[Text] = []
    """Modules or .py files to import, so that what they register can be used here."""

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        rules = []
        if self.learner.warmup_steps > self.run.steps:
            message = f"warm-up of {self.learner.warmup_steps} steps in a run of {self.run.steps}"
            rules.append(Rule(("learner", "warmup_steps"), message, [("run", "steps")]))
        if self.sync.kind == "nccl" and self.rollout.engine == "hf":
            message = "the engine 'hf' takes weights from files only: use 'disk', or the engine 'vllm'"
            rules.append(Rule(("sync", "kind"), message, [("rollout", "engine")]))
        if self.sync.kind == "nccl" and self.sync.lora == "adapter":
            message = "an adapter travels as files: set 'kind' to 'disk'"
            rules.append(Rule(("sync", "lora"), message, [("sync", "kind")]))
        if self.sync.lora == "adapter" and self.learner.lora is None:
            message = "there is no adapter to send: add 'learner.lora', or leave this out"
            rules.append(Rule(("sync", "lora"), message, [("learner", "lora")]))
        critic = self.algorithm.critic
        if critic is not None and critic.warmup_steps > self.run.steps:
            message = f"warm-up of {critic.warmup_steps} steps in a run of {self.run.steps}"
            rules.append(Rule(("algorithm", "critic", "warmup_steps"), message, [("run", "steps")]))
        if self.rollout.samples_per_prompt == 1 and not self.algorithm.has_critic:
            message = f"1 answer has none to be compared with, which advantage '{self.algorithm.advantage.use}' does: "
            message += "2 or more, or an advantage with a critic (gae)"
            rules.append(Rule(("rollout", "samples_per_prompt"), message, [("algorithm", "advantage")]))
        for name, objective in self.objectives.items():
            rules += _gold_rules(objective.gold, objective.rewards, ("objectives", name))
            if objective.combine == "product" and self.algorithm.advantage.use in _ADDS_TERMS:
                message = (
                    f"'product' does not reach advantage '{self.algorithm.advantage.use}', which normalises the terms "
                    "one by one and adds them up: take 'sum', or another advantage"
                )
                rules.append(Rule(("objectives", name, "combine"), message, [("algorithm", "advantage")]))
        for name, eval_set in self.eval.sets.items():
            here = ("eval", "sets", name)
            if eval_set.objective is not None and eval_set.objective not in self.objectives:
                message = f"no objective is called '{eval_set.objective}'"
                message += did_you_mean(eval_set.objective, self.objectives)
                rules.append(Rule((*here, "objective"), message, [("objectives", eval_set.objective)]))
            elif eval_set.objective is None and name not in self.objectives:
                lacking = [key for key in ("prompt", "rewards") if getattr(eval_set, key) is None]
                if lacking:
                    message = f"no objective has this name: name one with 'objective', or give {' and '.join(lacking)}"
                    depends = [("objectives", name), *((*here, key) for key in lacking)]
                    rules.append(Rule(here, message, depends))
            base = self.objectives.get(eval_set.objective or name)
            gold = eval_set.gold if eval_set.gold is not None or base is None else base.gold
            rules += _gold_rules(gold, eval_set.rewards or [], here)
        refuse("Recipe", rules)
        return self

    def eval_objectives(self) -> dict[str, ObjectiveSpec]:
        """Each evaluation set as an objective, with what it inherits filled in; shares are 1."""
        keys = ("data", "prompt", "gold", "rewards", "combine", "pass_at")
        resolved = {}
        for name, eval_set in self.eval.sets.items():
            own = {key: getattr(eval_set, key) for key in keys if getattr(eval_set, key) is not None}
            base = self.objectives.get(eval_set.objective or name)
            if base is None:
                resolved[name] = ObjectiveSpec(share=1.0, **{**own, "rewards": own["rewards"] or NoRewards})
            else:
                resolved[name] = base.model_copy(update={"share": 1.0, **own})
        return resolved


def import_plugin(plugin: str) -> None:
    """Import a module, or a .py file, so that its decorators register.

    A file is importable by its name afterwards, in worker processes too.
    Raises: UsageError when it is missing, fails, or has the name of another module.
    """
    try:
        if not plugin.endswith(".py"):
            importlib.import_module(plugin)
            return
        path = Path(plugin).resolve()
        if not path.is_file():
            raise UsageError(f"no such file: {plugin}")
        if str(path.parent) not in sys.path:
            sys.path.append(str(path.parent))
        importlib.invalidate_caches()
        found = Path(importlib.import_module(path.stem).__file__ or "").resolve()
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(f"cannot be imported: {type(error).__name__}: {error}") from error
    if found != path:
        raise UsageError(f"another module is called '{path.stem}' ({found}): rename the file")
