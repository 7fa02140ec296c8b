"""What a reward model's scores of held-out pairs are worth: accuracy, calibration, and whether length explains them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from morl.evaluation.intervals import Interval, clustered_interval


@dataclass(frozen=True, slots=True)
class Measured:
    """What a reward model says of held-out pairs."""

    accuracy: Interval
    """Share of pairs whose preferred answer scores higher, ties half; the interval resamples whole prompts."""
    log_loss: float
    """Mean `-log P(preferred answer)`, in nats; a model that knows nothing has log 2 = 0.693."""
    calibration_error: float
    """Mean distance between the stated probability and how often it came true, over ten equal bins of pairs."""
    length_correlation: float
    """Spearman's rank correlation of score and tokens over all answers."""
    longer_wins: float
    """Share of pairs whose preferred answer is the longer one: what length alone would get right."""
    center: float
    """Mean score of all answers."""
    spread: float
    """Standard deviation of the scores of all answers."""


def judge(scores_N2: np.ndarray, lengths_N2: np.ndarray, questions: Sequence[str]) -> Measured:
    """What scores of pairs, the preferred answer's first, are worth.

    Args:
        scores_N2: of both answers of each pair.
        lengths_N2: their tokens.
        questions: what was asked; pairs of one question are no independent witnesses.
    """
    from scipy.stats import spearmanr

    margin_N = scores_N2[:, 0] - scores_N2[:, 1]
    right_N = np.where(margin_N == 0, 0.5, margin_N > 0)
    longer_N = np.sign(lengths_N2[:, 0] - lengths_N2[:, 1]) / 2 + 0.5
    stated_N = 1 / (1 + np.exp(-np.abs(margin_N)))
    order = np.argsort(stated_N, kind="stable")
    bins = [part for part in np.array_split(order, min(10, len(order))) if len(part)]
    apart = sum(len(part) * abs(stated_N[part].mean() - right_N[part].mean()) for part in bins) / len(order)
    varied = np.ptp(scores_N2) > 0 and np.ptp(lengths_N2) > 0
    return Measured(
        accuracy=clustered_interval(right_N.tolist(), list(questions)),
        log_loss=float(np.logaddexp(0.0, -margin_N).mean()),
        calibration_error=float(apart),
        length_correlation=float(spearmanr(scores_N2.ravel(), lengths_N2.ravel()).statistic) if varied else 0.0,
        longer_wins=float(longer_N.mean()),
        center=float(scores_N2.mean()),
        spread=float(scores_N2.std()),
    )


def describe(found: Measured) -> str:
    """One line for people."""
    return (
        f"held-out pairs right {found.accuracy.mean:.3f} [{found.accuracy.low:.3f}, {found.accuracy.high:.3f}] "
        f"of {found.accuracy.n} (length alone {found.longer_wins:.3f}), log loss {found.log_loss:.3f}, "
        f"calibration error {found.calibration_error:.3f}, correlation with length {found.length_correlation:+.2f}"
    )
