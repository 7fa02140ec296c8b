"""The schema of a recipe: one model a section.

A docstring under a field is its documentation, in editors too. Rewards, data sources,
engines, advantages and losses bring options of their own, which are checked against the
signature of the function that a recipe names.
"""

from morl.schema.algorithm import AdvantageSpec, AlgorithmSpec, CriticSpec, ImportanceSpec, KlSpec, LossSpec, UseSpec
from morl.schema.base import ChoiceSpec, Float, GoldTemplate, Int, Name, PromptForm, Spec, Text, registry
from morl.schema.data import DataSpec, MediaSpec
from morl.schema.document import Document, import_plugin
from morl.schema.learner import LearnerSpec, LoraSpec
from morl.schema.objective import EvalSetSpec, EvalSpec, GateSpec, ObjectiveSpec, RewardTerms, ScheduleSpec, TermSpec
from morl.schema.parts import ClusterSpec, ModelSpec, RolloutSpec, ScoringSpec, SyncSpec
from morl.schema.recipe import Recipe
from morl.schema.run import RunFolderSpec, RunSpec, TrackSpec, WandbSpec

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
    "Recipe",
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
    "registry",
]
