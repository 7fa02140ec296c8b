"""Metrics by the names that the design promises, with no score kept apart from a score of 0."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from track.groups import make_group

from morl.track.metrics import eval_metrics, step_metrics
from morl.types import TermScore


def test_every_metric_of_an_objective() -> None:
    groups = [
        make_group("math", [1.0, 0.5, None], lengths=[2, 4, 6], cut=[False, False, True]),
        make_group("math", [1.0, 1.0, 1.0], lengths=[4, 4, 4]),
        make_group("boxes", [0.0, 0.0]),
    ]
    row = step_metrics(groups, {"math": 1.0, "boxes": 0.5})
    assert {key: row[key] for key in row if key.startswith("objective/math/")} == {
        "objective/math/samples": 6,
        "objective/math/reward": pytest.approx(4.5 / 5),
        "objective/math/pass_rate": pytest.approx(4 / 5),
        "objective/math/length": 4,
        "objective/math/zero_signal_rate": 0.5,
        "objective/math/no_score_rate": pytest.approx(1 / 6),
        "objective/math/truncated_rate": pytest.approx(1 / 6),
    }
    assert row["objective/boxes/reward"] == 0
    assert row["objective/boxes/no_score_rate"] == 0


def test_no_score_leaves_no_reward_rather_than_0_or_nan() -> None:
    row = step_metrics([make_group("math", [None, None])], {"math": 1.0, "idle": 1.0})
    assert "objective/math/reward" not in row
    assert "objective/math/pass_rate" not in row
    assert row["objective/math/no_score_rate"] == 1
    assert row["objective/math/zero_signal_rate"] == 1
    assert {key: row[key] for key in row if "idle" in key} == {"objective/idle/samples": 0}


def test_terms_are_told_apart_by_objective_and_their_failures_named() -> None:
    ok = {"box": TermScore(0.5, "ok", seconds=0.2), "format": TermScore(3.0, "gated", seconds=0.0)}
    late = {"box": TermScore(None, "timeout", seconds=1.0), "format": TermScore(1.0, "ok", seconds=0.0)}
    row = step_metrics([make_group("ground", [0.5, None], terms=[ok, late]), make_group("math", [1.0])], {"ground": 1})
    assert {key: row[key] for key in row if key.startswith("term/")} == {
        "term/ground/box/value": 0.5,
        "term/ground/box/no_score_rate": 0.5,
        "term/ground/box/seconds": pytest.approx(0.6),
        "term/ground/box/timeout_rate": 0.5,
        "term/ground/format/value": 2.0,
        "term/ground/format/no_score_rate": 0,
        "term/ground/format/seconds": 0,
        "term/ground/format/gated_rate": 0.5,
    }


def test_a_full_mark_short_by_a_rounding_passes() -> None:
    mixed = sum([0.1] * 10)
    assert mixed < 1
    assert step_metrics([make_group("math", [mixed])], {"math": 1.0})["objective/math/pass_rate"] == 1


@given(st.lists(st.lists(st.none() | st.floats(0, 1), min_size=1, max_size=4), max_size=4))
def test_every_number_is_finite_and_every_rate_a_share(groups) -> None:
    row = step_metrics([make_group("math", values) for values in groups], {"math": 0.5})
    assert all(math.isfinite(value) for value in row.values())
    assert all(0 <= row[key] <= 1 for key in row if key.endswith("_rate"))


def test_every_metric_is_told_of() -> None:
    root = Path(__file__).parents[2]
    sources = "".join(path.read_text("utf-8") for path in (root / "morl").rglob("*.py"))
    written = set(re.findall(r'"((?:learner|policy|critic|rollout|time|sft|preference)/[a-z_]+)"', sources))
    row = step_metrics([make_group("<name>", [1.0, 0.5])], {"<name>": 0.5})
    told = set(re.findall(r"`([a-z]+/[^`]*)`", (root / "docs" / "metrics.md").read_text("utf-8")))
    assert written | set(row) <= told
    assert {name for name in told if "<" not in name and "…" not in name} <= written


def test_an_evaluation_gives_its_numbers_under_the_name_of_its_set() -> None:
    row = {"step": 5, "set": "math", "model": "x", "mean": 0.5, "interval": {"low": 0.4}, "done": True, "none": None}
    assert eval_metrics(row) == {"eval/math/mean": 0.5, "eval/math/interval/low": 0.4}
