"""How sure a measured mean is: intervals and differences for evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

_RESAMPLES = 4000
_SEED = 0
# The bias-corrected bootstrap looks at every sample left out once: quadratic in their number.
_MOST_FOR_BCA = 1000


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean with its confidence interval, `low <= mean <= high`, over `n` values."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}] (n={self.n})"


def mean_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """The mean of independent values and its confidence interval.

    Where all values are 0 or 1 it is Wilson's score interval (Wilson 1927), which is right
    for few values and at the ends too; else the bias-corrected and accelerated bootstrap
    (Efron 1987) with a fixed seed. Equal values that are not all 0 or 1, or a single one,
    show no spread: their interval is the point, and only `n` says how little that means.

    Raises: ValueError when there are no values, or one is not finite.
    """
    _check(values, confidence)
    if all(value in (0, 1) for value in values):
        return _wilson(int(sum(values)), len(values), confidence)
    return _bootstrap(values, confidence)


def clustered_interval(values: Sequence[float], clusters: Sequence[str], confidence: float = 0.95) -> Interval:
    """The mean of values that come in clusters, several about one question each, and its confidence interval.

    The percentile bootstrap over whole clusters with a fixed seed (Field and Welsh 2007): values of a cluster
    say much the same, and counting them as independent would feign certainty. Where all values are 0, or all are 1,
    no resampling shows a spread: it is Wilson's score interval then, with a cluster for a value.

    Raises: ValueError when there are no values, one is not finite, or the two differ in length.
    """
    import numpy as np

    _check(values, confidence)
    if len(values) != len(clusters):
        raise ValueError(f"{len(values)} values in {len(clusters)} clusters")
    number = {name: place for place, name in enumerate(dict.fromkeys(clusters))}
    if set(values) in ({0}, {1}):
        return replace(_wilson(int(values[0]) * len(number), len(number), confidence), n=len(values))
    sums_C, counts_C = np.zeros(len(number)), np.zeros(len(number))
    for value, name in zip(values, clusters, strict=True):
        sums_C[number[name]] += value
        counts_C[number[name]] += 1
    drawn_RC = np.random.default_rng(_SEED).integers(len(number), size=(_RESAMPLES, len(number)))
    means_R = sums_C[drawn_RC].sum(axis=1) / counts_C[drawn_RC].sum(axis=1)
    mean = float(sums_C.sum() / counts_C.sum())
    low, high = np.quantile(means_R, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return Interval(mean, min(float(low), mean), max(float(high), mean), len(values))


def paired_difference(before: Sequence[float], after: Sequence[float], confidence: float = 0.95) -> Interval:
    """The mean of `after - before`, item by item on the same questions, and its confidence interval.

    Where all values are 0 or 1 it is the adjusted Wald interval of paired proportions
    (Bonett and Price 2012), which stays honest when few answers or none have changed;
    else the bootstrap over pairs.

    Raises: ValueError when the two differ in length, are empty, or hold a value that is not finite.
    """
    if len(before) != len(after):
        raise ValueError(f"pairs are needed, not {len(before)} values before and {len(after)} after")
    _check([*before, *after], confidence)
    differences = [b - a for a, b in zip(before, after, strict=True)]
    if all(value in (0, 1) for value in (*before, *after)):
        return _bonett_price(differences.count(1), differences.count(-1), len(differences), confidence)
    return _bootstrap(differences, confidence)


def pass_at_k(n: int, c: int, k: int) -> float:
    """The chance that one of k samples is right, without bias, from n samples of which c were right.

    1 - C(n - c, k) / C(n, k), as in Chen et al. 2021 (arXiv:2107.03374).
    Raises: ValueError unless 0 <= c <= n and 1 <= k <= n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n, not n={n}, c={c}, k={k}")
    return 1 - math.comb(n - c, k) / math.comb(n, k)


def _check(values: Sequence[float], confidence: float) -> None:
    if not values:
        raise ValueError("the mean of no values is not known")
    if not all(math.isfinite(value) for value in values):
        raise ValueError("values must be finite")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence lies between 0 and 1, not {confidence}")


def _z(confidence: float) -> float:
    return NormalDist().inv_cdf(0.5 + confidence / 2)


def _wilson(hits: int, n: int, confidence: float) -> Interval:
    z = _z(confidence)
    p = hits / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # The bounds touch 0 and 1 exactly there; rounding must not carry them past the mean.
    return Interval(p, min(p, max(0.0, middle - half)), max(p, min(1.0, middle + half)), n)


def _bonett_price(gained: int, lost: int, n: int, confidence: float) -> Interval:
    up, down = (gained + 1) / (n + 2), (lost + 1) / (n + 2)
    half = _z(confidence) * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    mean = (gained - lost) / n
    return Interval(mean, min(mean, max(-1.0, up - down - half)), max(mean, min(1.0, up - down + half)), n)


def _bootstrap(values: Sequence[float], confidence: float) -> Interval:
    import numpy as np
    from scipy.stats import bootstrap

    array = np.asarray(values, dtype=float)
    mean, n = float(array.mean()), len(array)
    if n == 1 or np.ptp(array) == 0:
        return Interval(mean, mean, mean, n)
    methods = ("BCa", "percentile") if n <= _MOST_FOR_BCA else ("percentile",)
    for method in methods:
        found = bootstrap(
            (array,),
            np.mean,
            n_resamples=_RESAMPLES,
            # Bounds memory to some 32 MB however many values there are.
            batch=max(1, 4_000_000 // n),
            confidence_level=confidence,
            method=method,
            rng=np.random.default_rng(_SEED),
        ).confidence_interval
        low, high = float(found.low), float(found.high)
        if math.isfinite(low) and math.isfinite(high):
            break
    return Interval(mean, min(low, mean), max(high, mean), n)
