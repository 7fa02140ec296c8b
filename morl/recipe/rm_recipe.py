"""The recipe of `morl rm`: a reward model from pairs of responses."""

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
    """Preference pairs, and how the reward model is trained on them."""

    data: DataSpec
    """The rows, one pair each."""
    prompt: PromptForm
    """The prompt, as in an objective."""
    chosen: Text
    """Template of the preferred response."""
    rejected: Text
    """Template of the rejected response."""
    pairs_per_step: Annotated[Int, Field(ge=1)]
    """Pairs per optimiser step."""
    held_out: Annotated[Float, Field(gt=0, lt=1)] = 0.1
    """Fraction of the prompts whose pairs are held out for evaluation."""
    measure_every: Annotated[Int, Field(ge=0)] = 0
    """Steps between evaluations on the held-out pairs; 0 evaluates before and after training only."""
    max_tokens: Annotated[Int, Field(ge=1)] = 2048
    """Most tokens of a prompt with its two responses."""
    too_long: Literal["fail", "skip"] = "fail"
    """What happens to a longer pair: `fail` stops the run, `skip` leaves it out and counts it. Pairs are never cut."""
    centering: Annotated[Float, Field(ge=0)] = 0.01
    """Weight of a loss that draws the mean of a pair's two scores to 0; their difference stays free."""

    @property
    def gold(self) -> dict[str, str]:
        """The two responses, in place of an objective's gold."""
        return {"chosen": self.chosen, "rejected": self.rejected}


class PreferenceRecipe(Document):
    """A recipe that trains a reward model."""

    run: RunSpec
    """Name, length and checkpoints."""
    model: ModelSpec
    """The language model, or reward model, to start from."""
    preference: PreferenceSpec
    """The pairs."""
    learner: LearnerSpec = LearnerSpec(lr=1e-5)
    """The optimiser and its processes."""
    track: TrackSpec = TrackSpec()
    """Where metrics go."""
    cluster: ClusterSpec = ClusterSpec()
    """The Ray cluster."""
    plugins: list[Text] = Field(default_factory=list)
    """Modules or .py files to import first, so that the recipe can use what they register."""
