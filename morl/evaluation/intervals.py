"""Confidence intervals of means and of paired differences, and pass@k."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

CONFIDENCE = 0.95
"""Of every interval."""

_Z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
_RESAMPLES = 4000
_SEED = 0
# The bias-corrected bootstrap leaves out each value in turn: quadratic in their number.
_MOST_FOR_BCA = 1000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its 95 % confidence interval, `low <= mean <= high`, over `n` values."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}] (n={self.n})"


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean of independent values and its confidence interval.

    Wilson's score interval (Wilson 1927) where all values are 0 or 1, which holds for few
    values and near 0 and 1; else the bias-corrected and accelerated bootstrap (Efron 1987)
    with a fixed seed. A single value, or equal ones other than 0 and 1, have no spread: the
    interval is that point, and only `n` shows how little it means.

    Raises: ValueError when there are no values, or one is not finite.
    """
    _check(values)
    if all(value in (0, 1) for value in values):
        return _wilson(int(sum(values)), len(values))
    return _bootstrap(values)


def clustered_interval(values: Sequence[float], clusters: Sequence[str]) -> Interval:
    """The mean of clustered values, such as several of one question, and its confidence interval.

    The percentile bootstrap over whole clusters with a fixed seed (Field and Welsh 2007): values of a cluster are
    correlated, and treating them as independent would overstate certainty. Where all values are 0, or all are 1,
    resampling shows no spread: it is then Wilson's score interval over clusters.

    Raises: ValueError when there are no values, one is not finite, or values and clusters differ in length.
    """
    import numpy as np

    _check(values)
    if len(values) != len(clusters):
        raise ValueError(f"{len(values)} values need as many cluster names, not {len(clusters)}")
    number = {name: index for index, name in enumerate(dict.fromkeys(clusters))}
    if set(values) in ({0}, {1}):
        return replace(_wilson(int(values[0]) * len(number), len(number)), n=len(values))
    sums_C, counts_C = np.zeros(len(number)), np.zeros(len(number))
    for value, name in zip(values, clusters, strict=True):
        sums_C[number[name]] += value
        counts_C[number[name]] += 1
    drawn_RC = np.random.default_rng(_SEED).integers(len(number), size=(_RESAMPLES, len(number)))
    means_R = sums_C[drawn_RC].sum(axis=1) / counts_C[drawn_RC].sum(axis=1)
    mean = float(sums_C.sum() / counts_C.sum())
    low, high = np.quantile(means_R, [0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2])
    return Interval(mean, min(float(low), mean), max(float(high), mean), len(values))


def paired_difference(before: Sequence[float], after: Sequence[float]) -> Interval:
    """The mean of `after - before`, paired on the same questions, and its confidence interval.

    The adjusted Wald interval of paired proportions (Bonett and Price 2012) where all values
    are 0 or 1, which holds when few or no answers changed; else the bootstrap over pairs.

    Raises: ValueError when the two differ in length, are empty, or hold a non-finite value.
    """
    if len(before) != len(after):
        raise ValueError(f"values must be paired, not {len(before)} before and {len(after)} after")
    _check([*before, *after])
    differences = [b - a for a, b in zip(before, after, strict=True)]
    if all(value in (0, 1) for value in (*before, *after)):
        return _bonett_price(differences.count(1), differences.count(-1), len(differences))
    return _bootstrap(differences)


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased estimate of the chance that one of k samples is correct, from n samples of which c were.

    1 - C(n - c, k) / C(n, k), as in Chen et al. 2021 (arXiv:2107.03374).
    Raises: ValueError unless 0 <= c <= n and 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n, not n={n}, c={c}, k={k}")
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def _check(values: Sequence[float]) -> None:
    if not values:
        raise ValueError("there are no values to take the mean of")
    if not all(math.isfinite(value) for value in values):
        raise ValueError("values must be finite")


def _wilson(hits: int, n: int) -> Interval:
    z = _Z
    p = hits / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # At 0 and 1 the bound equals the mean; rounding must not carry it past.
    return Interval(p, min(p, max(0.0, middle - half)), max(p, min(1.0, middle + half)), n)


def _bonett_price(gained: int, lost: int, n: int) -> Interval:
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = _Z * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    mean = (gained - lost) / n
    return Interval(mean, min(mean, max(-1.0, up - down - half)), max(mean, min(1.0, up - down + half)), n)


def _bootstrap(values: Sequence[float]) -> Interval:
    import numpy as np
    from scipy.stats import bootstrap

    array = np.asarray(values, dtype=float)
    mean, n = float(array.mean()), len(array)
    if n == 1 or np.ptp(array) == 0:
        return Interval(mean, mean, mean, n)
    methods = ("BCa", "percentile") if n <= _MOST_FOR_BCA else ("percentile",)
    for method in methods:
        interval = bootstrap(
            (array,),
            np.mean,
            n_resamples=_RESAMPLES,
            # Bounds memory to about 32 MB for any number of values.
            batch=max(1, 4_000_000 // n),
            confidence_level=CONFIDENCE,
            method=method,
            rng=np.random.default_rng(_SEED),
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
        if math.isfinite(low) and math.isfinite(high):
            break
    return Interval(mean, min(low, mean), max(high, mean), n)
