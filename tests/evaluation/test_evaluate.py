from __future__ import annotations

import pytest

from morl.evaluation.held_out import compare, measure
from morl.types import Encoded, Group, Prompt, Sample, Score


def group(*values: float | None) -> Group:
    prompt = Prompt("eval.x/0", "eval.x", ({"role": "user", "content": "?"},))
    samples = tuple(Sample(prompt.id, i, (1, 2), (1, 1), (-1.0, -1.0), 0, "stop", "") for i in range(len(values)))
    return Group(prompt, Encoded((5,)), samples, tuple(Score(value) for value in values))


def test_a_prompt_counts_with_the_mean_over_its_scored_samples() -> None:
    row = measure([group(1.0, 0.0), group(None, 0.5), group(None, None)], pass_at=1.0)
    assert row["n"] == 2
    assert row["values"] == [0.5, 0.5, None]
    assert row["reward"] == 0.5
    assert row["pass_rate"] == 0.25
    assert row["no_score_rate"] == pytest.approx(0.5)
    assert row["pass_at_2"] == 0.5


def test_no_score_at_all_is_no_number() -> None:
    row = measure([group(None)], pass_at=1.0)
    assert "reward" not in row
    assert row["n"] == 0


def test_a_comparison_pairs_prompt_by_prompt() -> None:
    before = {"set": "x", **measure([group(0.0)] * 30 + [group(None)], 1.0)}
    after = {"set": "x", **measure([group(1.0)] * 20 + [group(0.0)] * 10 + [group(1.0)], 1.0)}
    (row,) = compare([before], [after])
    assert row["n"] == 30
    assert row["difference"][0] == pytest.approx(2 / 3)
    assert row["difference"][1] > 0


def test_a_full_mark_that_is_short_by_a_rounding_passes() -> None:
    short = 0.7 + 0.2  # 0.8999999999999999
    assert short < 0.9
    assert measure([group(short)], pass_at=0.9)["pass_rate"] == 1.0


def test_a_set_that_has_other_prompts_now_is_not_compared(caplog: pytest.LogCaptureFixture) -> None:
    before = [{"set": name, **measure([group(0.0)] * 30, 1.0)} for name in ("x", "y")]
    after = [{"set": "x", **measure([group(1.0)] * 20, 1.0)}, {"set": "y", **measure([group(1.0)] * 30, 1.0)}]
    assert [row["set"] for row in compare(before, after)] == ["y"]
    assert "x: not compared, 30 prompts before and 20 after" in caplog.text
