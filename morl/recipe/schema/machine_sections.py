"""The policy, the engines, the workers, and what is between them."""

from __future__ import annotations

import inspect
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from morl.errors import UsageError
from morl.recipe.rules import Rule, matches, refuse, sentence
from morl.recipe.schema.section import Float, Int, Spec, Text
from morl.registry import ENGINES, check_options, option_errors, options_model


class ModelSpec(Spec):
    """The policy before training."""

    path: Text
    """Folder of a Hugging Face checkpoint with its tokenizer, or a name on the hub."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Number type of the weights, in learner and engines."""


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
    too_long: Literal["fail", "skip"] = "fail"
    """What becomes of longer prompts: the run ends with an error, or the next row takes their place."""
    options: dict[str, Any] = Field(default={})
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
            ENGINES.entry(self.engine)
            engine = ENGINES.load(self.engine) if self.options else None
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
            for item in option_errors(build, error):
                if item["loc"][0] not in given:
                    rules.append(Rule(("options", *item["loc"]), sentence(item, known)))
        return rules


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


class ClusterSpec(Spec):
    """The Ray cluster."""

    address: Annotated[str, matches(r"local|auto|(ray://)?[^\s:/]+:\d+", "should be 'local', 'auto' or host:port")] = (
        "local"
    )
    """`local` starts one on this machine; `auto` or host:port joins one."""
    start_timeout_s: Annotated[Float, Field(gt=0)] = 300.0
    """Seconds to wait for the resources that the recipe needs, and then for the learner's ranks to load the model."""
