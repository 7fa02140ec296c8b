"""What `morl check` asks of rewards."""

from __future__ import annotations

from typing import Any

import plugin  # noqa: F401  # registers its rewards
import pytest

from morl.errors import UsageError
from morl.recipe import ObjectiveSpec
from morl.rewards.checks import check_examples, score_golds
from morl.rewards.runner import Runner
from morl.types import Prompt


def objective(*rewards: dict[str, Any]) -> ObjectiveSpec:
    data = {"source": "jsonl", "path": "none.jsonl"}
    return ObjectiveSpec.model_validate({"share": 1, "data": data, "prompt": "x", "rewards": list(rewards)})


def prompts(*golds: Any, **meta: Any) -> list[Prompt]:
    messages = ({"role": "user", "content": "x"},)
    return [Prompt(f"o/{i}", "o", messages, (), gold, meta) for i, gold in enumerate(golds)]


def test_an_example_that_does_not_hold_is_told(runner: Runner) -> None:
    wrong = check_examples("test_wrong_examples", runner)
    assert [line.partition(":")[0] for line in wrong] == ["example 0, response '0.5'", "example 1, response 'x'"]
    assert "expected 1, got 0.5 (ok)" in wrong[0]
    assert "expected 0, got no score (error: ValueError" in wrong[1]
    assert check_examples("test_async", runner) == check_examples("test_batch_worker", runner) == []
    assert check_examples("exact") == []
    with pytest.raises(UsageError, match="unknown reward"):
        check_examples("no_such_reward")


def test_golds_that_a_verifier_cannot_read_are_found(runner: Runner) -> None:
    golds = ["4", r"\frac{1}{2}", "", r"\frac{", None, 4, "4", ["1", "2"], True]
    bad = dict(score_golds(objective({"use": "math"}), prompts(*golds), runner))
    assert list(bad) == ["o/2", "o/3", "o/4", "o/8"]
    assert all(reason.startswith("term 'math': bad_gold: ") for reason in bad.values())


def test_every_verifier_reads_its_own_answers(runner: Runner) -> None:
    spec = objective({"use": "number"}, {"use": "exact"})
    assert score_golds(spec, prompts("72", 72, 7.5, "-3"), runner) == []
    assert score_golds(objective({"use": "choice"}), prompts("B", "(c)", "D."), runner) == []
    with_texts = objective({"use": "choice", "options_from": "texts"})
    bad = score_golds(with_texts, prompts("red", "B", "yellow", 1, texts=["red", "blue"]), runner)
    assert [name for name, _ in bad] == ["o/2"]


def test_a_gold_is_read_even_where_no_answer_can_be_written(runner: Runner) -> None:
    bad = dict(score_golds(objective({"use": "regex"}), prompts("a+b", "(", "a*", None), runner))
    assert list(bad) == ["o/1", "o/2", "o/3"]
    assert score_golds(objective({"use": "length", "maximum": 3}), prompts(None, "x"), runner) == []


def test_an_answer_function_may_fail_or_miss(runner: Runner) -> None:
    bad = dict(score_golds(objective({"use": "test_gold_list"}), prompts(["a", "b"], ["a"], 5), runner))
    assert list(bad) == ["o/1", "o/2"]
    assert "scores 0" in bad["o/1"]
    assert "cannot be written as a response: TypeError" in bad["o/2"]


def test_many_golds_are_scored_once_each(runner: Runner) -> None:
    assert score_golds(objective({"use": "number"}), prompts(*[i % 7 for i in range(5000)]), runner) == []
