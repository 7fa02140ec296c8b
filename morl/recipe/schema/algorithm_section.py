"""The update rule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from morl.recipe.rules import Rule, refuse
from morl.recipe.schema.section import ChoiceSpec, Float, Int, Spec, Text
from morl.registry import ADVANTAGES, LOSSES, wanted_arguments


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


ADDS_TERMS = ("gdpo", "mo_grpo")
"""Advantages that make a sum of an objective's terms, whatever the objective makes of them."""


class AdvantageSpec(UseSpec):
    """How rewards of a group become advantages: a name, or `{use: name, option: value}`."""

    registry = ADVANTAGES


class LossSpec(UseSpec):
    """The loss of a token: a name, or `{use: name, option: value}`."""

    registry = LOSSES


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
        return "values_BT" in wanted_arguments(ADVANTAGES.load(self.advantage.use))
