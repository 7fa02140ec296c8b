"""Health checks after each optimiser step, and when they stop the run.

A step with a non-finite loss or gradient changes no weights; its batch is saved for inspection. When the
log-probabilities of rollout and learner differ, the policy learns from responses that are not its own: that
is logged, and soon stops the run.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from morl.errors import DataError, RunError
from morl.files import replacing
from morl.recipe import LearnerSpec
from morl.types import Batch, Features, Group, Score

logger = logging.getLogger(__name__)

KEPT = 8
"""Newest batches of skipped steps that a run keeps."""
STEPS_OF_MISMATCH = 3
"""Steps in a row above `learner.mismatch_stop` that stop the run."""


class HealthCheck:
    """Counts consecutive failures; a resumed run counts from 0."""

    def __init__(self, spec: LearnerSpec, dtype: str, folder: Path) -> None:
        """Check the steps of a learner, keeping skipped batches in `folder`."""
        self.spec = spec
        self.folder = folder
        self._scales_loss = dtype == "float16"
        self._skipped = 0
        self._above_warn = False
        self._above_stop: list[float] = []
        self._silent: set[str] = set()
        """Objectives without any score in the last step."""

    def check_step(
        self,
        step: int,
        batch: Batch,
        metrics: Mapping[str, float],
        *,
        loss: float,
        nonfinite_rows: Callable[[Batch], Sequence[int]],
        prompts: Sequence[str] = (),
    ) -> None:
        """Check the step just taken.

        Args:
            step: its number.
            batch: the rows it learnt from.
            metrics: of the step: `learner/skipped`, and `policy/logprob_mismatch` where there is a rollout.
            loss: of the step.
            nonfinite_rows: finds the rows with a non-finite loss; called only when that of the step is non-finite.
            prompts: ids of the prompts, indexed by `batch.prompts_N`.

        Raises: RunError when the run must not continue.
        """
        if metrics["learner/skipped"]:
            self._check_skipped(step, batch, loss, nonfinite_rows, prompts)
        else:
            self._skipped = 0
        if "policy/logprob_mismatch" in metrics:
            self._check_mismatch(step, metrics["policy/logprob_mismatch"])

    def check_scores(self, step: int, groups: Sequence[Group], min_scored: float) -> None:
        """Check that the step has scores to learn from; warn of an objective without any.

        Raises: RunError when no sample has a score, or a share of less than `min_scored` has.
        """
        by_objective: dict[str, list[Score]] = {}
        for group in groups:
            by_objective.setdefault(group.prompt.objective, []).extend(group.scores_G)
        scores = [score for of_objective in by_objective.values() for score in of_objective]
        scored = sum(score.value is not None for score in scores)
        if scored == 0 or scored < min_scored * len(scores):
            raise RunError(
                f"only {scored} of {len(scores)} samples have a score, less than scoring.min_scored={min_scored:g}; "
                f"reported by the rewards: {_reasons(scores)}"
            )
        for name, of_objective in by_objective.items():
            silent = all(score.value is None for score in of_objective)
            if silent and name not in self._silent:
                logger.warning(
                    "step %d: objectives.%s: none of its %d samples has a score, so nothing is learnt from it; "
                    "reported by its rewards: %s",
                    step,
                    name,
                    len(of_objective),
                    _reasons(of_objective),
                )
            (self._silent.add if silent else self._silent.discard)(name)

    def _check_skipped(
        self,
        step: int,
        batch: Batch,
        loss: float,
        nonfinite_rows: Callable[[Batch], Sequence[int]],
        prompts: Sequence[str],
    ) -> None:
        if self._scales_loss and math.isfinite(loss):
            # In float16 DeepSpeed searches for the largest loss scale, which costs steps.
            logger.info("step %d is skipped: the gradient overflows at this loss scale, which is lowered", step)
            return
        self._skipped += 1
        rows = () if math.isfinite(loss) else tuple(nonfinite_rows(batch))
        skipped = Skipped(step, batch, rows, _names(batch, rows, prompts))
        file = self._keep(skipped)
        if math.isfinite(loss):
            reason = "the gradient is not finite although the loss is: the backward pass overflows"
        elif rows:
            reason = f"the loss of {_listed('row', rows)} is not finite ({_listed('prompt', skipped.prompts)})"
        else:
            reason = "the loss was not finite, but is when recomputed: suspect the hardware"
        logger.warning("step %d is skipped, weights and optimiser unchanged: %s; the batch: %s", step, reason, file)
        if self._skipped >= self.spec.max_skipped_steps:
            raise RunError(
                f"{self._skipped} steps in a row had a loss or gradient that is not finite "
                f"(learner.max_skipped_steps={self.spec.max_skipped_steps}); step {step}: {reason}. Inspect {file} "
                "(morl.run.health.read_skipped); usual remedies are a lower learner.lr, more "
                "learner.warmup_steps, model.dtype=float32, or dropping the prompts named. Checkpoints are "
                "intact: continue from the newest with --resume"
            )

    def _keep(self, skipped: Skipped) -> Path | str:
        file = self.folder / f"step-{skipped.step:06d}.safetensors"
        try:
            write_skipped(file, skipped)
            for old in sorted(self.folder.glob("step-*.safetensors"))[:-KEPT]:
                old.unlink()
        except OSError as error:
            return f"not saved ({error})"
        return file

    def _check_mismatch(self, step: int, mismatch: float) -> None:
        warn, stop = self.spec.mismatch_warn, self.spec.mismatch_stop
        finding = f"step {step}: rollout and learner differ by {mismatch:.3g} nats per token on average"
        if mismatch > warn and not self._above_warn:
            logger.warning("%s, above learner.mismatch_warn=%g; %s", finding, warn, _MISMATCH_CAUSES)
        self._above_warn = mismatch > warn
        self._above_stop = [*self._above_stop, mismatch] if mismatch > stop else []
        if len(self._above_stop) >= STEPS_OF_MISMATCH:
            figures = ", ".join(f"{value:.3g}" for value in self._above_stop)
            raise RunError(
                f"{finding}; the last {len(self._above_stop)} steps ({figures}) are all above learner.mismatch_stop="
                f"{stop:g}: the policy learns from responses that are not its own. {_MISMATCH_CAUSES}. The run is "
                "stopped to prevent further harm. Fix the cause and continue with --resume; the checkpoints of these "
                "steps are affected: delete them to resume from an earlier one"
            )


def _reasons(scores: Sequence[Score]) -> str:
    """Up to three details of terms that gave no score."""
    reasons = {term.detail for score in scores for term in score.terms.values() if term.value is None}
    return "; ".join(sorted(reasons)[:3])


_MISMATCH_CAUSES = (
    "check that the engines serve the newest weights (does every node see sync.folder?) and that both sides use the "
    "same temperature, top_p, banned tokens and model.dtype (rollout.options may set another, or quantise)"
)


@dataclass(frozen=True, slots=True)
class Skipped:
    """The batch of a skipped step."""

    step: int
    batch: Batch
    rows: tuple[int, ...]
    """Rows with a non-finite loss; empty when only the gradient is non-finite."""
    prompts: tuple[str, ...]
    """Ids of those rows' prompts."""


def write_skipped(path: Path, skipped: Skipped) -> None:
    """Write a batch for `read_skipped`, atomically."""
    from safetensors.torch import save

    batch = skipped.batch
    values = {field.name: getattr(batch, field.name) for field in fields(batch)}
    tensors = {name: value for name, value in values.items() if isinstance(value, torch.Tensor)}
    for row, features in enumerate(batch.features_B):
        if features is not None:
            tensors[f"features_B.{row}.positions_3T"] = features.positions_3T
            tensors |= {f"features_B.{row}.tensors.{name}": value for name, value in features.tensors.items()}
    metadata = {
        "step": skipped.step,
        "rows": skipped.rows,
        "prompts": skipped.prompts,
        "features": len(batch.features_B),
    }
    with replacing(path) as file:
        file.write(
            # Cloned: safetensors refuses tensors that share memory.
            save(
                {name: tensor.clone().contiguous() for name, tensor in tensors.items()},
                metadata={"skipped": json.dumps(metadata)},
            )
        )


def read_skipped(path: Path) -> Skipped:
    """A batch that `write_skipped` wrote. Raises: DataError when the file is not one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = json.loads((file.metadata() or {})["skipped"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  not a mapping
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise DataError(f"{path}: not the batch of a skipped step: {error!r}") from error
    features = tuple(_features(tensors, row) for row in range(metadata["features"]))
    plain: dict[str, Any] = {name: tensor for name, tensor in tensors.items() if "." not in name}
    return Skipped(
        metadata["step"],
        Batch(**plain, features_B=features),
        tuple(metadata["rows"]),
        tuple(metadata["prompts"]),
    )


def _features(tensors: Mapping[str, torch.Tensor], row: int) -> Features | None:
    prefix = f"features_B.{row}."
    if f"{prefix}positions_3T" not in tensors:
        return None
    inputs = {
        name.removeprefix(f"{prefix}tensors."): tensor for name, tensor in tensors.items() if name.startswith(prefix)
    }
    positions_3T = inputs.pop(f"{prefix}positions_3T")
    return Features(inputs, positions_3T)


def _names(batch: Batch, rows: Sequence[int], prompts: Sequence[str]) -> tuple[str, ...]:
    row_of_N = torch.bucketize(batch.sources_N, batch.row_starts_B1, right=True) - 1
    numbers = batch.prompts_N[torch.isin(row_of_N, torch.tensor(rows, dtype=torch.long))].tolist()
    return tuple(prompts[number] for number in sorted(set(numbers)) if number < len(prompts))


def _listed(noun: str, items: Sequence[object]) -> str:
    shown = ", ".join(map(str, items[:8])) + (f" and {len(items) - 8} more" if len(items) > 8 else "")
    return f"{noun}{'s' if len(items) != 1 else ''} {shown or 'unknown'}"
