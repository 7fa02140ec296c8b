"""Reward metrics of a step's groups.

A mean over nothing is left out of the row, never NaN: an objective without scored samples
has no `reward`, but a `no_score_rate` of 1.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import correlation
from typing import Any

from morl.types import Group, Sample, Score

# Scores are weighted sums of floats: a full score may fall short of 1 by rounding.
_ROUNDING = 1e-9


def passes(reward: float, pass_at: float) -> bool:
    """Whether a sample with this reward counts as passed."""
    return reward >= pass_at - _ROUNDING


def step_metrics(groups: Sequence[Group], pass_at: Mapping[str, float]) -> dict[str, float]:
    """`objective_metrics` and `term_metrics` of all objectives, in one row.

    `pass_at` gives for every objective of the run the reward in [0, 1] at which a sample
    passes. An objective without samples in this step has only `samples` 0.
    """
    row: dict[str, float] = {}
    for name in pass_at:
        of_objective = [group for group in groups if group.prompt.objective == name]
        row |= objective_metrics(name, of_objective, pass_at[name])
        row |= term_metrics(name, of_objective)
    return row


def objective_metrics(name: str, groups: Sequence[Group], pass_at: float) -> dict[str, float]:
    """Metrics `objective/<name>/…` of one objective's groups.

    - `samples`: number of samples
    - `reward`: mean over the scored samples
    - `pass_rate`: share of the scored samples with a reward of at least `pass_at`
    - `length`: mean tokens written by the policy
    - `zero_signal_rate`: share of groups whose rewards are all equal, which give no gradient
    - `no_score_rate`: share of samples without a score
    - `truncated_rate`: share of samples cut off by the token limit
    """
    samples: list[Sample] = [sample for group in groups for sample in group.samples_G]
    values = [value for group in groups for value in group.values_G if value is not None]
    means = {
        "reward": _mean(values),
        "pass_rate": _mean(passes(value, pass_at) for value in values),
        "length": _mean(sample.length for sample in samples),
        "zero_signal_rate": _mean(not group.has_signal for group in groups),
        "no_score_rate": 1 - len(values) / len(samples) if samples else None,
        "truncated_rate": _mean(sample.finish_reason == "length" for sample in samples),
    }
    return {f"objective/{name}/samples": float(len(samples))} | _named(f"objective/{name}", means)


def term_metrics(objective: str, groups: Sequence[Group]) -> dict[str, float]:
    """Metrics `term/<objective>/<term>/…` of each reward term of one objective's groups.

    - `value`: mean raw value, before scale and weight, over the samples the term scored
    - `no_score_rate`: share of samples without a value
    - `length_correlation`: Pearson's correlation of value and tokens; left out where either is constant
    - `seconds`: mean seconds per sample
    - `<status>_rate`: share of samples with a status other than ok; left out without any
    """
    scores: list[Score] = [score for group in groups for score in group.scores_G]
    lengths = [sample.length for group in groups for sample in group.samples_G]
    row: dict[str, float] = {}
    for term in sorted({name for score in scores for name in score.terms}):
        terms = [score.terms[term] for score in scores if term in score.terms]
        statuses = sorted({score.status for score in terms} - {"ok"})
        means = {
            "value": _mean(score.value for score in terms if score.value is not None),
            "no_score_rate": _mean(score.value is None for score in terms),
            "length_correlation": _length_correlation(term, scores, lengths),
            "seconds": _mean(score.seconds for score in terms),
            **{f"{status}_rate": _mean(score.status == status for score in terms) for status in statuses},
        }
        row |= _named(f"term/{objective}/{term}", means)
    return row


def _length_correlation(term: str, scores: Sequence[Score], lengths: Sequence[int]) -> float | None:
    scored = [
        (score.terms[term].value, length)
        for score, length in zip(scores, lengths, strict=True)
        if term in score.terms and score.terms[term].value is not None
    ]
    values, tokens = [float(value or 0.0) for value, _ in scored], [length for _, length in scored]
    return correlation(values, tokens) if len(set(values)) > 1 and len(set(tokens)) > 1 else None


def eval_metrics(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of an evaluation's row as `eval/<set>/<key>`, for trackers that take only numbers."""
    name = row.get("set")
    prefix = "eval" if name is None else f"eval/{name}"
    return _numbers(prefix, {key: value for key, value in row.items() if key not in ("step", "set")})


def _numbers(prefix: str, row: Mapping[str, Any]) -> dict[str, float]:
    numbers: dict[str, float] = {}
    for key, value in row.items():
        if isinstance(value, Mapping):
            numbers |= _numbers(f"{prefix}/{key}", value)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            numbers[f"{prefix}/{key}"] = float(value)
    return numbers


def _named(prefix: str, means: Mapping[str, float | None]) -> dict[str, float]:
    return {f"{prefix}/{key}": value for key, value in means.items() if value is not None}


def _mean(values: Iterable[float]) -> float | None:
    numbers = list(values)
    return sum(numbers) / len(numbers) if numbers else None
