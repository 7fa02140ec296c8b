"""A standalone evaluation set: one YAML file."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from morl.recipe.schema.data_section import DataSpec
from morl.recipe.schema.document import Document
from morl.recipe.schema.objective_section import RewardTerms
from morl.recipe.schema.section import Float, GoldTemplate, Int, PromptForm, Text
from morl.recipe.train_recipe import Recipe


class EvalSetRecipe(Document):
    """One evaluation set: rows, prompt, and the rewards that score the responses."""

    about: Text
    """Where the rows come from, how many there are, and their licence."""
    data: DataSpec
    """The rows."""
    prompt: PromptForm
    """As in an objective."""
    gold: GoldTemplate = None
    """As in an objective."""
    rewards: RewardTerms
    """As in an objective."""
    combine: Literal["sum", "product"] = "sum"
    """As in an objective."""
    pass_at: Annotated[Float, Field(gt=0, le=1)] = 1.0
    """As in an objective."""
    samples: Annotated[Int, Field(ge=1)] = 1
    """Responses to each prompt, for pass@k."""
    temperature: Annotated[Float, Field(ge=0)] = 0.0
    """Sampling temperature; 0 is greedy."""
    top_p: Annotated[Float, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling: sample from the most likely tokens whose total probability reaches this."""
    max_new_tokens: Annotated[Int, Field(ge=1)] = 2048
    """Most tokens of a response."""
    max_prompt_tokens: Annotated[Int, Field(ge=1)] = 8192
    """Most tokens of a prompt."""
    plugins: list[Text] = Field(default_factory=list)
    """Modules or .py files to import first, so that the recipe can use what they register."""

    def as_recipe(self, name: str, model: str) -> Recipe:
        """A recipe with this evaluation set only, to evaluate `model`."""
        objective = {key: getattr(self, key) for key in ("data", "prompt", "gold", "rewards", "combine", "pass_at")}
        sampling = {key: getattr(self, key) for key in ("samples", "temperature", "top_p", "max_new_tokens")}
        return Recipe.model_validate(
            {
                "run": {"name": "eval", "steps": 1},
                "model": {"path": model},
                "objectives": {name: {"share": 1.0, **objective}},
                "rollout": {
                    "prompts_per_step": 1,
                    "samples_per_prompt": 2,
                    "max_new_tokens": self.max_new_tokens,
                    "max_prompt_tokens": self.max_prompt_tokens,
                },
                "eval": {"sets": {name: {"data": self.data, **sampling}}},
            }
        )
