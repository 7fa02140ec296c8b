"""TensorBoard event files, written on request."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from morl.errors import MissingExtraError
from morl.track.metrics import eval_metrics


class TensorboardTracker:
    """Writes every metric as a scalar."""

    def __init__(self, folder: Path, *, done: int = 0) -> None:
        """Write into `folder`, hiding steps after `done` in earlier files.

        Raises: MissingExtraError when tensorboard is not installed.
        """
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise MissingExtraError("tensorboard", "tensorboard", "track.tensorboard") from error
        writer: Any = SummaryWriter
        self._writer = writer(log_dir=str(folder), purge_step=done + 1 if done else None)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Write one step's metrics."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def log_eval(self, row: Mapping[str, Any]) -> None:
        """Write the numbers of one evaluation."""
        self.log(int(row.get("step", 0)), eval_metrics(row))

    def close(self) -> None:
        """Close the event file."""
        self._writer.close()
