"""What a run is made of and how it survives: its parts, folder, checkpoints, interrupts, recovery and health checks."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from morl.run.folder import RunFolder
from morl.run.interrupt import Interrupt

if TYPE_CHECKING:
    from morl.run.evaluation_run import evaluate_models
    from morl.run.export_policy import export
    from morl.run.recovery import with_restarts
    from morl.run.supervised_run import SupervisedRun, open_supervised_run
    from morl.run.training_run import TrainingRun, open_training_run

# Reports and commands want the folder of a run without torch, which these import.
_MODULE_OF = {
    "SupervisedRun": "supervised_run",
    "TrainingRun": "training_run",
    "evaluate_models": "evaluation_run",
    "export": "export_policy",
    "open_supervised_run": "supervised_run",
    "open_training_run": "training_run",
    "with_restarts": "recovery",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


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
