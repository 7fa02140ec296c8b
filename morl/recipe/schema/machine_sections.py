"""The policy, the engines, the reward workers, the weight sync and the cluster."""

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
    """Data type of the weights, in learner and engines."""


class RolloutSpec(Spec):
    """How responses are sampled for training."""

    engine: Text = "auto"
    """Name of the engine; `auto` is vllm if it is installed, else hf."""
    engines: Annotated[Int, Field(ge=1)] = 1
    """Number of engines; the prompts are spread over them."""
    prompts_per_step: Annotated[Int, Field(ge=1)]
    """Prompts per step, over all objectives."""
    samples_per_prompt: Annotated[Int, Field(ge=1)]
    """Responses to each prompt: the group whose rewards are compared. 1 is allowed only with a critic."""
    max_new_tokens: Annotated[Int, Field(ge=1)]
    """Most tokens of a response."""
    temperature: Annotated[Float, Field(gt=0)] = 1.0
    """Sampling temperature."""
    max_prompt_tokens: Annotated[Int, Field(ge=1)] = 2048
    """Most tokens of a prompt, chat template included."""
    too_long: Literal["fail", "skip"] = "fail"
    """What happens to a longer prompt: `fail` ends the run with an error, `skip` takes the next row instead."""
    options: dict[str, Any] = Field(default={})
    """Options of the engine."""
    max_restarts: Annotated[Int, Field(ge=0)] = 3
    """How often per step an engine that died is restarted."""

    @model_validator(mode="after")
    def _check_engine(self) -> Self:
        refuse("RolloutSpec", self._engine_rules())
        return self

    def _engine_rules(self) -> list[Rule]:
        if self.engine == "auto":
            message = "are options of one engine: name it with 'engine', because 'auto' may choose another"
            return [Rule(("options",), message, [("engine",)])] if self.options else []
        try:
            ENGINES.entry(self.engine)
            engine = ENGINES.load(self.engine) if self.options else None
        except UsageError as error:
            return [Rule(("engine",), str(error))]
        if engine is None:
            return []
        set_elsewhere = {
            "dtype": "model.dtype",
            "version": "the program",
            "max_lora_rank": "learner.lora.rank",
            "weight_transfer": "sync.kind",
        }
        rules = [Rule(("options", k), f"is set by {set_elsewhere[k]}") for k in self.options if k in set_elsewhere]
        build = inspect.getattr_static(engine, "__init__") if inspect.isclass(engine) else engine
        options = {key: value for key, value in self.options.items() if key not in set_elsewhere}
        try:
            check_options(build, {**options, "dtype": "float32"})
        except ValidationError as error:
            known = [name for name in options_model(build).model_fields if name not in set_elsewhere]
            for item in option_errors(build, error):
                if item["loc"][0] not in set_elsewhere:
                    rules.append(Rule(("options", *item["loc"]), sentence(item, known)))
        return rules


class ScoringSpec(Spec):
    """Where rewards run."""

    workers: Annotated[Int, Field(ge=1)] | None = None
    """Number of worker processes. Default: one per CPU."""
    memory_mb: Annotated[Int, Field(ge=64)] = 2048
    """Memory limit of one reward call in a worker, in MiB."""
    min_scored: Annotated[Float, Field(ge=0, le=1)] = 0.5
    """The run stops when a smaller fraction of a step's samples has a score."""


class SyncSpec(Spec):
    """How new weights reach the engines."""

    kind: Literal["disk", "nccl"] = "disk"
    """`disk` goes through a folder that learner and engines share; `nccl` goes from GPU to GPU, for vLLM only."""
    folder: Text | None = None
    """The shared folder. Default: shared memory of this machine. With `nccl` it serves engines that are restarted."""
    lora: Literal["auto", "merged", "adapter"] = "auto"
    """With `learner.lora`: `merged` sends the whole model with the adapter merged in; `adapter` sends the adapter
    alone, which the engine must support; `auto` sends the adapter if the engine supports it and runs on a GPU."""


class ClusterSpec(Spec):
    """The Ray cluster."""

    address: Annotated[str, matches(r"local|auto|(ray://)?[^\s:/]+:\d+", "should be 'local', 'auto' or host:port")] = (
        "local"
    )
    """`local` starts a cluster on this machine; `auto` or host:port joins a running one."""
    start_timeout_s: Annotated[Float, Field(gt=0)] = 300.0
    """Seconds to wait for the resources that the recipe needs, and again for the learner's ranks to load the model."""
