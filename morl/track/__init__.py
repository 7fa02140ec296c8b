"""Metrics of a run: JSONL and the console always, wandb and TensorBoard on request."""

from __future__ import annotations

from morl.track.console import LineTracker
from morl.track.jsonl_files import read_rows, read_samples, write_samples
from morl.track.metrics import passes, step_metrics
from morl.track.trackers import Tracker, make_tracker

__all__ = [
    "LineTracker",
    "Tracker",
    "make_tracker",
    "passes",
    "read_rows",
    "read_samples",
    "step_metrics",
    "write_samples",
]
