"""Quality of a reward model on held-out pairs: accuracy, calibration, and the influence of length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from morl.evaluation.intervals import Interval, clustered_interval


@dataclass(frozen=True, slots=True)
class PreferenceAccuracy:
    """How well a reward model's scores match held-out preferences."""

    accuracy: Interval
    """Share of pairs whose preferred answer scores higher, ties counting half; the interval resamples whole prompts."""
    log_loss: float
    """Mean `-log P(preferred answer)`, in nats; a model without knowledge has log 2 = 0.693."""
    calibration_error: float
    """Mean distance of predicted probability and observed frequency, over ten equal bins of pairs."""
    length_correlation: float
    """Spearman's rank correlation of score and tokens over all answers."""
    longer_wins: float
    """Share of pairs whose preferred answer is the longer one: the accuracy of length alone."""
    center: float
    """Mean score of all answers."""
    spread: float
    """Standard deviation of the scores of all answers."""


def judge(scores_N2: np.ndarray, lengths_N2: np.ndarray, questions: Sequence[str]) -> PreferenceAccuracy:
    """Measure scores of pairs, the preferred answer first.

    Args:
        scores_N2: scores of both answers of each pair.
        lengths_N2: their lengths in tokens.
        questions: the question of each pair; pairs of one question are not independent.
    """
    from scipy.stats import spearmanr

    margin_N = scores_N2[:, 0] - scores_N2[:, 1]
    correct_N = np.where(margin_N == 0, 0.5, margin_N > 0)
    longer_N = np.sign(lengths_N2[:, 0] - lengths_N2[:, 1]) / 2 + 0.5
    stated_N = 1 / (1 + np.exp(-np.abs(margin_N)))
    order = np.argsort(stated_N, kind="stable")
    bins = [part for part in np.array_split(order, min(10, len(order))) if len(part)]
    gaps = [len(part) * abs(stated_N[part].mean() - correct_N[part].mean()) for part in bins]
    varied = np.ptp(scores_N2) > 0 and np.ptp(lengths_N2) > 0
    return PreferenceAccuracy(
        accuracy=clustered_interval(correct_N.tolist(), list(questions)),
        log_loss=float(np.logaddexp(0.0, -margin_N).mean()),
        calibration_error=float(sum(gaps) / len(order)),
        length_correlation=float(spearmanr(scores_N2.ravel(), lengths_N2.ravel()).statistic) if varied else 0.0,
        longer_wins=float(longer_N.mean()),
        center=float(scores_N2.mean()),
        spread=float(scores_N2.std()),
    )


def describe(result: PreferenceAccuracy) -> str:
    """One line for the console."""
    return (
        f"held-out accuracy {result.accuracy.mean:.3f} [{result.accuracy.low:.3f}, {result.accuracy.high:.3f}] "
        f"over {result.accuracy.n} pairs (length alone {result.longer_wins:.3f}), log loss {result.log_loss:.3f}, "
        f"calibration error {result.calibration_error:.3f}, correlation with length {result.length_correlation:+.2f}"
    )
