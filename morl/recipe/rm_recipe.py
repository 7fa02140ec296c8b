"""The recipe of `morl rm`: a reward model from pairs of answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from morl.recipe.schema.data_section import DataSpec
from morl.recipe.schema.document import Document
from morl.recipe.schema.learner_section import LearnerSpec
from morl.recipe.schema.machine_sections import ClusterSpec, ModelSpec
from morl.recipe.schema.run_section import RunSpec, TrackSpec
from morl.recipe.schema.section import Float, Int, PromptForm, Spec, Text


class PreferenceSpec(Spec):
    """Pairs of answers, and how a reward model learns from them."""

    data: DataSpec
    """Where the rows come from, one pair each."""
    prompt: PromptForm
    """What was asked, as in an objective."""
    chosen: Text
    """Template of the answer that was preferred."""
    rejected: Text
    """Template of the other one."""
    pairs_per_step: Annotated[Int, Field(ge=1)]
    """Pairs that one optimiser step learns from."""
    held_out: Annotated[Float, Field(gt=0, lt=1)] = 0.1
    """Share of the prompts whose pairs are never learnt from, but measured."""
    measure_every: Annotated[Int, Field(ge=0)] = 0
    """Steps between measurements on the held-out pairs; 0 measures before and after only."""
    max_tokens: Annotated[Int, Field(ge=1)] = 2048
    """Most tokens that a prompt and its two answers may have together."""
    too_long: Literal["fail", "skip"] = "fail"
    """What a longer pair does: stop the run, or be left out and counted. It is never cut."""
    centering: Annotated[Float, Field(ge=0)] = 0.01
    """Weight of a loss that draws the two scores of a pair to opposite sides of 0; their difference stays free."""

    @property
    def gold(self) -> dict[str, str]:
        """The answers take the place of an objective's gold."""
        return {"chosen": self.chosen, "rejected": self.rejected}


class PreferenceRecipe(Document):
    """Everything the training of a reward model is."""

    run: RunSpec
    """Name, length and checkpoints."""
    model: ModelSpec
    """The language model, or reward model, to begin with."""
    preference: PreferenceSpec
    """The pairs."""
    learner: LearnerSpec = LearnerSpec(lr=1e-5)
    """The optimiser and its processes."""
    track: TrackSpec = TrackSpec()
    """Where metrics go."""
    cluster: ClusterSpec = ClusterSpec()
    """The Ray cluster."""
    plugins: list[Text] = Field(default_factory=list)
    """Modules or .py files to import, so that what they register can be used here."""
