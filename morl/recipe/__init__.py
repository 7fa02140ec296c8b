"""Reading recipes: YAML with line numbers, the schema section by section, overrides, schedules and error messages."""

from __future__ import annotations

from morl.recipe.eval_set_recipe import EvalSetRecipe
from morl.recipe.load import (
    RecipeSource,
    command_of,
    go_offline,
    inspect_document,
    is_eval_set,
    load_document,
    load_recipe,
    place_of,
)
from morl.recipe.rm_recipe import PreferenceRecipe, PreferenceSpec
from morl.recipe.schema.algorithm_section import AlgorithmSpec, CriticSpec, ImportanceSpec, UseSpec
from morl.recipe.schema.data_section import DataSpec
from morl.recipe.schema.document import Document, import_plugin
from morl.recipe.schema.learner_section import LearnerSpec, LoraSpec
from morl.recipe.schema.machine_sections import ClusterSpec
from morl.recipe.schema.objective_section import EvalSetSpec, ObjectiveSpec, TermSpec
from morl.recipe.schema.run_section import RunFolderSpec, TrackSpec, WandbSpec
from morl.recipe.schema.section import Spec
from morl.recipe.sft_recipe import SftRecipe, StageSpec
from morl.recipe.train_recipe import Recipe
from morl.recipe.yaml_lines import parse_value

__all__ = [
    "AlgorithmSpec",
    "ClusterSpec",
    "CriticSpec",
    "DataSpec",
    "Document",
    "EvalSetRecipe",
    "EvalSetSpec",
    "ImportanceSpec",
    "LearnerSpec",
    "LoraSpec",
    "ObjectiveSpec",
    "PreferenceRecipe",
    "PreferenceSpec",
    "Recipe",
    "RecipeSource",
    "RunFolderSpec",
    "SftRecipe",
    "Spec",
    "StageSpec",
    "TermSpec",
    "TrackSpec",
    "UseSpec",
    "WandbSpec",
    "command_of",
    "go_offline",
    "import_plugin",
    "inspect_document",
    "is_eval_set",
    "load_document",
    "load_recipe",
    "parse_value",
    "place_of",
]
