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
        """Allow a bare name in place of the mapping."""
        full = handler(schema)
        return {"description": cls.__doc__, "anyOf": [{"type": "string"}, full]}


ADDS_TERMS = ("gdpo", "mo_grpo")
"""Advantages that always sum an objective's terms, whatever its `combine` is."""


class AdvantageSpec(UseSpec):
    """How the rewards of a group become advantages: a name, or `{use: name, option: value}`."""

    registry = ADVANTAGES


class LossSpec(UseSpec):
    """The per-token loss: a name, or `{use: name, option: value}`."""

    registry = LOSSES


_BOUNDS = {"none": {}, "truncated": {"cap": 2.0}, "masked": {"low": 0.5, "high": 5.0}}
"""The bounds of each kind of importance weights, with their defaults; those of the mask are IcePop's, per token."""


class ImportanceSpec(Spec):
    """Correction for the difference between the engine's and the learner's probabilities.

    A loss with its own correction (ppo_clip, gspo, gspo_token, cispo) takes the mask only and is not weighted.
    """

    kind: Literal["none", "truncated", "masked"] = "truncated"
    """`truncated` weights a token's loss by min(learner / engine, cap). `masked` weights it by learner / engine and
    drops ratios outside [low, high]; the remaining tokens are scaled up to make up for them."""
    level: Literal["token", "sequence", "geometric"] = "token"
    """Which probability is compared: the token's, the whole response's, or the response's geometric mean per token."""
    cap: Annotated[Float, Field(ge=1)] | None = None
    """Largest weight of `truncated`. Default: 2."""
    low: Annotated[Float, Field(ge=0, le=1)] | None = None
    """Smallest ratio that `masked` keeps. Default for level `token`: 0.5."""
    high: Annotated[Float, Field(ge=1)] | None = None
    """Largest ratio that `masked` keeps. Default for level `token`: 5."""

    @model_validator(mode="before")
    @classmethod
    def _fill_in_bounds(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        kind, level = str(value.get("kind", "truncated")), value.get("level", "token")
        if kind not in _BOUNDS or (kind == "masked" and level != "token"):
            return value
        stated = {key: item for key, item in value.items() if item is not None}
        return {**value, **_BOUNDS[kind], **stated}

    @model_validator(mode="after")
    def _check_bounds(self) -> Self:
        rules = []
        for key in ("cap", "low", "high"):
            owner = next(kind for kind, keys in _BOUNDS.items() if key in keys)
            value = getattr(self, key)
            if value is not None and owner != self.kind:
                message = f"{value:g} belongs to kind '{owner}', and the kind is '{self.kind}': leave it out"
                rules.append(Rule((key,), message, [("kind",)]))
            elif value is None and owner == self.kind:
                message = f"required with level '{self.level}': the default is for the ratio of a single token"
                rules.append(Rule((key,), message, [("kind",), ("level",)]))
        if self.kind == "none" and self.level != "token":
            message = f"'{self.level}' has no effect with kind 'none': leave it out"
            rules.append(Rule(("level",), message, [("kind",)]))
        refuse("ImportanceSpec", rules)
        return self

    @property
    def bounds(self) -> tuple[float, float]:
        """The ratios that count: `(low, high)` of the mask, `(0, cap)` when truncated, `(0, inf)` for kind `none`."""
        return self.low or 0.0, self.cap or self.high or math.inf


class KlSpec(Spec):
    """A penalty on the divergence from a frozen reference: `coef * kl` is added to each token's loss."""

    coef: Annotated[Float, Field(gt=0)] = 0.001
    """Cost of one nat, in units of advantage."""
    estimator: Literal["k1", "k2", "k3"] = "k2"
    """`k2` has the gradient of KL(policy, reference); `k3` is GRPO's; the gradient of `k1` is 0 on average: it is
    there for comparison."""
    reference: Text | None = None
    """Checkpoint folder of the reference, which must have the policy's vocabulary. Default: `model.path`; with LoRA
    this takes no extra memory, because the adapters are switched off."""


class CriticSpec(Spec):
    """The value model of a token-level advantage; layout, optimiser and adapters are set as for the learner.

    It takes as many processes and GPUs as the learner, in addition to the learner's. `learner.train` and
    `learner.freeze` do not apply to it.
    """

    path: Text | None = None
    """Checkpoint folder of the initial weights, which must have the policy's vocabulary: a language model, or a reward
    model of `morl rm`. Default: `model.path`. The value head is new and starts at 0."""
    lr: Annotated[Float, Field(ge=0)] = 1e-5
    """Learning rate after warm-up."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Learning-rate schedule after warm-up; linear and cosine reach 0 in the last step."""
    warmup_steps: Annotated[Int, Field(ge=0)] = 0
    """Steps over which the learning rate rises from 0."""


class AlgorithmSpec(Spec):
    """The update rule."""

    advantage: AdvantageSpec = Field(default_factory=lambda: AdvantageSpec(use="group_std"))
    """How the rewards of a group become advantages."""
    loss: LossSpec = Field(default_factory=lambda: LossSpec(use="on_policy"))
    """The per-token loss."""
    aggregation: Literal["prompt_tokens", "batch_tokens", "sequence_mean", "constant"] = "prompt_tokens"
    """How token losses add up: `prompt_tokens` weights every prompt equally, and every token of a prompt;
    `batch_tokens` weights every token of the batch equally (DAPO); `sequence_mean` every response (GRPO); `constant`
    divides by the number of responses times `rollout.max_new_tokens` (Dr.GRPO)."""
    importance: ImportanceSpec = ImportanceSpec()
    """Correction for the difference between the engine's and the learner's probabilities."""
    kl: KlSpec | None = None
    """A penalty on the divergence from a frozen reference. Default: none."""
    critic: CriticSpec | None = None
    """The value model of a token-level advantage (gae); such an advantage has one even when this is left out."""

    @model_validator(mode="after")
    def _check_critic(self) -> Self:
        if self.critic is not None and not self.has_critic:
            message = f"advantage '{self.advantage.use}' uses no critic: leave 'critic' out, or use 'gae'"
            refuse("AlgorithmSpec", [Rule(("critic",), message, [("advantage",)])])
        return self

    @property
    def has_critic(self) -> bool:
        """Whether the advantage is computed per token from a critic's values."""
        return "values_BT" in wanted_arguments(ADVANTAGES.load(self.advantage.use))
