"""The recipe of `morl sft`: supervised training in stages, each with its data, trainable parameters and schedule."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from morl.recipe.schema.data_section import DataSpec
from morl.recipe.schema.document import Document
from morl.recipe.schema.learner_section import LearnerSpec
from morl.recipe.schema.machine_sections import ClusterSpec, ModelSpec
from morl.recipe.schema.run_section import RunFolderSpec, TrackSpec
from morl.recipe.schema.section import Float, Int, Name, PromptForm, Spec, Text


class DatasetSpec(Spec):
    """Examples of one kind: a prompt and the response to learn."""

    share: Annotated[Float, Field(gt=0)] = 1.0
    """Share of the stage's examples, relative to the shares of the other data sets."""
    data: DataSpec
    """The rows."""
    held_out: DataSpec | None = None
    """Held-out rows: the loss on them is measured."""
    prompt: PromptForm
    """The prompt, as in an objective."""
    answer: Text
    """Template of the response to learn."""

    @property
    def gold(self) -> Any:
        """The response, in place of an objective's gold."""
        return self.answer


class StageSpec(Spec):
    """One stage; it starts from the weights of the previous stage, with a new optimiser."""

    steps: Annotated[Int, Field(ge=1)]
    """Optimiser steps."""
    examples_per_step: Annotated[Int, Field(ge=1)]
    """Examples per optimiser step."""
    datasets: Annotated[dict[Name, DatasetSpec], Field(min_length=1)]
    """Data sets by name."""
    train: Annotated[list[Text], Field(min_length=1)] = Field(default_factory=lambda: ["*"])
    """Parameters to train, as name patterns like `model.visual.merger.*`."""
    lr: Annotated[Float, Field(gt=0)]
    """Learning rate after warm-up."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """Learning-rate schedule after warm-up; linear and cosine reach 0 in the last step of the stage."""
    warmup_steps: Annotated[Int, Field(ge=0)] = 0
    """Steps over which the learning rate rises from 0."""
    aggregation: Literal["batch_tokens", "sequence_mean"] = "batch_tokens"
    """Weight every response token equally (`batch_tokens`), or every response (`sequence_mean`)."""
    max_tokens: Annotated[Int, Field(ge=1)] = 4096
    """Most tokens of a prompt with its response."""
    too_long: Literal["fail", "skip"] = "fail"
    """What happens to a longer example: `fail` stops the run, `skip` leaves it out and counts it. Examples are never
    cut."""
    measure_every: Annotated[Int, Field(ge=0)] = 0
    """Steps between measurements on held-out rows; 0 measures at the end of the stage only."""


class SftRecipe(Document):
    """A recipe of supervised training."""

    run: RunFolderSpec
    """Name and checkpoints."""
    model: ModelSpec
    """The model to start from."""
    stages: Annotated[dict[Name, StageSpec], Field(min_length=1)]
    """Stages by name, in the order in which they run."""
    learner: LearnerSpec = LearnerSpec()
    """The optimiser and its processes; keys of a stage override it."""
    track: TrackSpec = TrackSpec()
    """Where metrics go."""
    cluster: ClusterSpec = ClusterSpec()
    """The Ray cluster."""
    plugins: list[Text] = Field(default_factory=list)
    """Modules or .py files to import first, so that the recipe can use what they register."""

    @property
    def steps(self) -> int:
        """Total optimiser steps of all stages."""
        return sum(stage.steps for stage in self.stages.values())

    def learner_of(self, stage: StageSpec) -> LearnerSpec:
        """The learner with the settings of a stage."""
        return self.learner.model_copy(
            update={
                "train": stage.train,
                "lr": stage.lr,
                "schedule": stage.schedule,
                "warmup_steps": stage.warmup_steps,
            }
        )
