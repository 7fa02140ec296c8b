"""What a run is made of and how it survives: its parts, folder, checkpoints, interrupts, recovery and health checks."""

from __future__ import annotations

from morl.run.build import Parts, build_parts
from morl.run.evaluation_run import evaluate_models
from morl.run.export_policy import export
from morl.run.folder import RunFolder
from morl.run.interrupt import Interrupt
from morl.run.recovery import recovering
from morl.run.supervised_run import SupervisedRun, open_supervised_run

__all__ = [
    "Interrupt",
    "Parts",
    "RunFolder",
    "SupervisedRun",
    "build_parts",
    "evaluate_models",
    "export",
    "open_supervised_run",
    "recovering",
]
