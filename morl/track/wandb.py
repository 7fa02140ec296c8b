"""Weights & Biases, used on request; offline unless the recipe says online."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from morl.errors import MissingExtraError, RunError
from morl.files import replacing
from morl.track.metrics import eval_metrics

if TYPE_CHECKING:
    from morl.recipe import WandbSpec

logger = logging.getLogger(__name__)


class WandbTracker:
    """Sends metrics to one wandb run, which a resumed run continues."""

    def __init__(self, spec: WandbSpec, *, name: str, run_dir: Path, config: Mapping[str, Any]) -> None:
        """Start or continue the wandb run whose id is kept in `run_dir`.

        `name` is the run's name unless the recipe gives one; `config` is the recipe.
        Raises: MissingExtraError when wandb is not installed, RunError when it cannot start.
        """
        # Read when wandb is imported: no crash reports unless the user asks for them.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        try:
            import wandb
        except ImportError as error:
            raise MissingExtraError("wandb", "wandb", "track.wandb") from error
        self._error = wandb.Error
        try:
            self._run = wandb.init(
                project=spec.project,
                entity=spec.entity,
                name=spec.name or name,
                mode=spec.mode,
                dir=str(run_dir),
                id=_run_id(run_dir),
                resume="allow" if spec.mode == "online" else None,
                config=dict(config),
                settings=wandb.Settings(silent=True, console="off", save_code=False),
            )
        except wandb.Error as error:
            raise RunError(f"track.wandb: {error}; log in (wandb login), or set mode: offline") from error
        # A separate step metric: wandb's counter cannot go back, which a resumed run may.
        self._run.define_metric("step", hidden=True)
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send one step's metrics."""
        self._send({"step": step, **metrics})

    def log_eval(self, row: Mapping[str, Any]) -> None:
        """Send the numbers of one evaluation."""
        self._send({"step": row.get("step", 0), **eval_metrics(row)})

    def close(self) -> None:
        """Finish the upload, or the offline file."""
        self._run.finish()

    def _send(self, values: Mapping[str, float]) -> None:
        # metrics.jsonl holds the same rows, so a failing tracker must not end the run.
        try:
            self._run.log(dict(values))
        except self._error as error:
            logger.warning("wandb could not log step %s: %s", values["step"], error)


def _run_id(run_dir: Path) -> str:
    path = run_dir / "wandb-id.txt"
    if not path.is_file():
        with replacing(path) as file:
            file.write(uuid.uuid4().hex[:12].encode())
    return path.read_text().strip()
