"""Supervised training in stages: the recipe, each stage with its own data, trainable parts and schedule."""

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
    """Examples of one kind: a question and the answer that is learnt."""

    share: Annotated[Float, Field(gt=0)] = 1.0
    """Its part of the stage's examples, relative to the other data sets' shares."""
    data: DataSpec
    """Where its rows come from."""
    held_out: DataSpec | None = None
    """Rows that are never learnt from; the loss on them is measured."""
    prompt: PromptForm
    """What is asked, as in an objective."""
    answer: Text
    """Template of the answer."""

    @property
    def gold(self) -> Any:
        """The answer takes the place of an objective's gold."""
        return self.answer


class StageSpec(Spec):
    """One stage: it starts from the weights of the one before, with a new optimiser."""

    steps: Annotated[Int, Field(ge=1)]
    """Optimiser steps."""
    examples_per_step: Annotated[Int, Field(ge=1)]
    """Examples that one optimiser step learns from."""
    datasets: Annotated[dict[Name, DatasetSpec], Field(min_length=1)]
    """What is learnt, by name."""
    train: Annotated[list[Text], Field(min_length=1)] = Field(default_factory=lambda: ["*"])
    """Parameters that learn: patterns like `model.visual.merger.*` over their names."""
    lr: Annotated[Float, Field(gt=0)]
    """Learning rate after warm-up."""
    schedule: Literal["constant", "linear", "cosine"] = "cosine"
    """How the learning rate goes on after warm-up; linear and cosine end at 0 with the stage's last step."""
    warmup_steps: Annotated[Int, Field(ge=0)] = 0
    """Steps in which the learning rate rises from 0."""
    aggregation: Literal["batch_tokens", "sequence_mean"] = "batch_tokens"
    """Every token of an answer counts the same, or every answer."""
    max_tokens: Annotated[Int, Field(ge=1)] = 4096
    """Most tokens that a prompt and its answer may have together."""
    too_long: Literal["fail", "skip"] = "fail"
    """What a longer example does: stop the run, or be left out and counted. It is never cut."""
    measure_every: Annotated[Int, Field(ge=0)] = 0
    """Steps between measurements on held-out rows; 0 measures at the stage's end only."""


class SftRecipe(Document):
    """Everything a supervised training is."""

    run: RunFolderSpec
    """Name and checkpoints."""
    model: ModelSpec
    """The model to begin with."""
    stages: Annotated[dict[Name, StageSpec], Field(min_length=1)]
    """The stages by name, in the order in which they run."""
    learner: LearnerSpec = LearnerSpec()
    """The optimiser and its processes; what a stage says of them comes first."""
    track: TrackSpec = TrackSpec()
    """Where metrics go."""
    cluster: ClusterSpec = ClusterSpec()
    """The Ray cluster."""
    plugins: list[Text] = Field(default_factory=list)
    """Modules or .py files to import, so that what they register can be used here."""

    @property
    def steps(self) -> int:
        """Optimiser steps of all stages."""
        return sum(stage.steps for stage in self.stages.values())

    def learner_of(self, stage: StageSpec) -> LearnerSpec:
        """The learner as it runs a stage."""
        return self.learner.model_copy(
            update={
                "train": stage.train,
                "lr": stage.lr,
                "schedule": stage.schedule,
                "warmup_steps": stage.warmup_steps,
            }
        )
