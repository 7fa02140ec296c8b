"""The components of a run and how it survives: its folder, checkpoints, interrupts, restarts and health checks."""

from __future__ import annotations

from morl.run.evaluation_run import evaluate_models
from morl.run.export_policy import export
from morl.run.folder import RunFolder
from morl.run.interrupt import Interrupt
from morl.run.recovery import with_restarts
from morl.run.supervised_run import SupervisedRun, open_supervised_run
from morl.run.training_run import TrainingRun, open_training_run

__all__ = [
    "Interrupt",
    "RunFolder",
    "SupervisedRun",
    "TrainingRun",
    "evaluate_models",
    "export",
    "open_supervised_run",
    "open_training_run",
    "with_restarts",
]
