"""Held-out evaluation: scores of a policy, of saved responses and of files, with confidence intervals and tables."""

from __future__ import annotations

from morl.evaluation.held_out import Evaluation, RowFile, compare, evaluate, sets_due
from morl.evaluation.preference_accuracy import PreferenceAccuracy, describe, judge
from morl.evaluation.saved_responses import score_responses
from morl.evaluation.score_files import rescore, score_file
from morl.evaluation.tables import print_comparison, print_evaluation, print_outcome

__all__ = [
    "Evaluation",
    "PreferenceAccuracy",
    "RowFile",
    "compare",
    "describe",
    "evaluate",
    "judge",
    "print_comparison",
    "print_evaluation",
    "print_outcome",
    "rescore",
    "score_file",
    "score_responses",
    "sets_due",
]
