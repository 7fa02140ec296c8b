"""The schema of a recipe: one model per section.

The docstring under a field is its documentation, in editors too. The options of rewards, data
sources, engines, advantages and losses are checked against the signature of the function that
the recipe names.
"""

from morl.recipe.schema.algorithm_section import (
    AdvantageSpec,
    AlgorithmSpec,
    CriticSpec,
    ImportanceSpec,
    KlSpec,
    LossSpec,
    UseSpec,
)
from morl.recipe.schema.data_section import DataSpec, MediaSpec
from morl.recipe.schema.document import Document, import_plugin
from morl.recipe.schema.learner_section import LearnerSpec, LoraSpec
from morl.recipe.schema.machine_sections import ClusterSpec, ModelSpec, RolloutSpec, ScoringSpec, SyncSpec
from morl.recipe.schema.objective_section import (
    EvalSetSpec,
    EvalSpec,
    GateSpec,
    ObjectiveSpec,
    RewardTerms,
    ScheduleSpec,
    TermSpec,
)
from morl.recipe.schema.run_section import RunFolderSpec, RunSpec, TrackSpec, WandbSpec
from morl.recipe.schema.section import ChoiceSpec, Float, GoldTemplate, Int, Name, PromptForm, Spec, Text

__all__ = [
    "AdvantageSpec",
    "AlgorithmSpec",
    "ChoiceSpec",
    "ClusterSpec",
    "CriticSpec",
    "DataSpec",
    "Document",
    "EvalSetSpec",
    "EvalSpec",
    "Float",
    "GateSpec",
    "GoldTemplate",
    "ImportanceSpec",
    "Int",
    "KlSpec",
    "LearnerSpec",
    "LoraSpec",
    "LossSpec",
    "MediaSpec",
    "ModelSpec",
    "Name",
    "ObjectiveSpec",
    "PromptForm",
    "RewardTerms",
    "RolloutSpec",
    "RunFolderSpec",
    "RunSpec",
    "ScheduleSpec",
    "ScoringSpec",
    "Spec",
    "SyncSpec",
    "TermSpec",
    "Text",
    "TrackSpec",
    "UseSpec",
    "WandbSpec",
    "import_plugin",
]
