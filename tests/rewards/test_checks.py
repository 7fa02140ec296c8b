"""What `morl check` asks of rewards."""

from __future__ import annotations

import asyncio
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import plugin  # noqa: F401  # registers its rewards
import pytest

from morl.errors import UsageError
from morl.preflight.recipe_check import check
from morl.recipe.schema.objective_section import ObjectiveSpec
from morl.rewards import reward
from morl.rewards.bound_reward import BoundReward
from morl.rewards.checks import check_examples, score_golds, written_gold
from morl.rewards.pool.worker_pool import WorkerPool
from morl.rewards.resource import Resource
from morl.rewards.reward import Example, Verdict
from morl.rewards.reward_input import RewardInput
from morl.types import Prompt


def objective(*rewards: dict[str, Any]) -> ObjectiveSpec:
    data = {"source": "jsonl", "path": "none.jsonl"}
    return ObjectiveSpec.model_validate({"share": 1, "data": data, "prompt": "x", "rewards": list(rewards)})


def prompts(*golds: Any, **meta: Any) -> list[Prompt]:
    messages = ({"role": "user", "content": "x"},)
    return [Prompt(f"o/{i}", "o", messages, (), gold, meta) for i, gold in enumerate(golds)]


def test_an_example_that_does_not_hold_is_told(runner: WorkerPool) -> None:
    wrong = check_examples("test_wrong_examples", runner)
    assert [line.partition(":")[0] for line in wrong] == ["example 0, response '0.5'", "example 1, response 'x'"]
    assert "expected 1, got 0.5 (ok)" in wrong[0]
    assert "expected 0, got no score (error: ValueError" in wrong[1]
    assert check_examples("test_async", runner) == check_examples("test_batch_worker", runner) == []
    assert check_examples("exact") == []
    with pytest.raises(UsageError, match="unknown reward"):
        check_examples("no_such_reward")


def test_golds_that_a_verifier_cannot_read_are_found(runner: WorkerPool) -> None:
    golds = ["4", r"\frac{1}{2}", "", r"\frac{", None, 4, "4", ["1", "2"], True]
    bad = dict(score_golds(objective({"use": "math"}), prompts(*golds), runner))
    assert list(bad) == ["o/2", "o/3", "o/4", "o/8"]
    assert all(reason.startswith("term 'math': bad_gold: ") for reason in bad.values())


def test_every_verifier_reads_its_own_answers(runner: WorkerPool) -> None:
    spec = objective({"use": "number"}, {"use": "exact"})
    assert score_golds(spec, prompts("72", 72, 7.5, "-3"), runner) == []
    assert score_golds(objective({"use": "choice"}), prompts("B", "(c)", "D."), runner) == []
    with_texts = objective({"use": "choice", "options_from": "texts"})
    bad = score_golds(with_texts, prompts("red", "B", "yellow", 1, texts=["red", "blue"]), runner)
    assert [name for name, _ in bad] == ["o/2"]


def test_a_gold_is_read_even_where_no_answer_can_be_written(runner: WorkerPool) -> None:
    bad = dict(score_golds(objective({"use": "regex"}), prompts("a+b", "(", "a*", None), runner))
    assert list(bad) == ["o/1", "o/2", "o/3"]
    assert score_golds(objective({"use": "length", "maximum": 3}), prompts(None, "x"), runner) == []


def test_an_answer_function_may_fail_or_miss(runner: WorkerPool) -> None:
    bad = dict(score_golds(objective({"use": "test_gold_list"}), prompts(["a", "b"], ["a"], 5), runner))
    assert list(bad) == ["o/1", "o/2"]
    assert "scores 0" in bad["o/1"]
    assert "cannot be written as a response: TypeError" in bad["o/2"]


def test_many_golds_are_scored_once_each(runner: WorkerPool) -> None:
    assert score_golds(objective({"use": "number"}), prompts(*[i % 7 for i in range(5000)]), runner) == []


CALLS: list[str] = []


@reward("test_gold_calls", runs="inline", answer=str)
def counted(response: str, gold: Any) -> float:
    CALLS.append(response)
    return float(response == str(gold))


@reward("test_gold_in_question", runs="inline", answer=str)
def in_question(response: str, gold: Any, messages: Sequence[Mapping[str, Any]]) -> Verdict:
    CALLS.append(response)
    question = messages[-1]["content"]
    return Verdict(float(response in question), "ok", question)


@reward("test_gold_in_row", runs="inline")
def in_row(response: str, gold: Any, meta: Mapping[str, Any]) -> Verdict:
    CALLS.append(response)
    return Verdict(0.0) if gold in meta["options"] else Verdict(None, "bad_gold", "no option")


class Busy(Resource):
    most = now = 0
    closed = False

    def close(self) -> None:
        Busy.closed = True


@reward("test_gold_waits", answer=str, resource=Busy)
async def waits(response: str, gold: Any, resource: Busy) -> float:
    Busy.now += 1
    Busy.most = max(Busy.most, Busy.now)
    await asyncio.sleep(0.01)
    Busy.now -= 1
    return 1.0


@pytest.fixture(autouse=True)
def _no_calls_yet() -> None:
    CALLS.clear()


def asked(gold: Any, question: str, **meta: Any) -> Prompt:
    return Prompt(f"o/{question}", "o", ({"role": "user", "content": question},), (), gold, meta)


def test_a_gold_that_occurs_again_is_scored_once(runner: WorkerPool) -> None:
    assert score_golds(objective({"use": "test_gold_calls"}), prompts(*[i % 7 for i in range(700)]), runner) == []
    assert sorted(CALLS) == [str(i) for i in range(7)]


def test_golds_that_only_look_alike_are_told_apart(runner: WorkerPool) -> None:
    assert score_golds(objective({"use": "test_gold_calls"}), prompts(1, "1", 1.0, True, [1], ["1"]), runner) == []
    assert len(CALLS) == 6


def test_what_a_reward_reads_beside_the_gold_tells_rows_apart(runner: WorkerPool) -> None:
    rows = [asked("4", question) for question in ["2 + 2 or 4?", "4 or 5?", "5 or 6?"]] * 2
    bad = score_golds(objective({"use": "test_gold_in_question"}), rows, runner)
    assert bad == [("o/5 or 6?", "term 'test_gold_in_question': the gold scores 0 (5 or 6?)")] * 2
    assert len(CALLS) == 3
    CALLS.clear()
    rows = [asked("a", "?", options=["a"]), asked("a", "?", options=["b"]), asked("a", "!", options=["a"])]
    assert [name for name, _ in score_golds(objective({"use": "test_gold_in_row"}), rows, runner)] == ["o/?"]
    assert len(CALLS) == 2


def test_golds_of_math_are_scored_once_a_question(runner: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Any] = []
    call = BoundReward.__call__

    async def watched(self: BoundReward, given: RewardInput) -> Any:
        sent.append(given.gold)
        return await call(self, given)

    monkeypatch.setattr(BoundReward, "__call__", watched)
    assert score_golds(objective({"use": "math"}), [asked(str(i % 3), "same") for i in range(300)], runner) == []
    assert sorted(sent) == ["0", "1", "2"]


def test_what_cannot_be_compared_is_scored_each_time(runner: WorkerPool) -> None:
    strange = lambda: 0  # noqa: E731  # cannot be pickled
    assert score_golds(objective({"use": "test_gold_calls"}), prompts(strange, strange), runner) == []
    assert len(CALLS) == 2


def test_memory_of_golds_is_bounded(runner: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("morl.rewards.checks.MAX_KNOWN", 2)
    assert score_golds(objective({"use": "test_gold_calls"}), prompts(1, 1, 2, 3, 3, 1, 1), runner) == []
    assert CALLS == ["1", "2", "3", "1"]


def test_golds_are_scored_together_and_the_bar_moves_when_they_are(runner: WorkerPool) -> None:
    done: list[int] = []
    read = 0

    def rows() -> Iterator[Prompt]:
        nonlocal read
        for i in range(1000):
            read += 1
            yield asked(str(i), str(i))

    Busy.most = 0
    score_golds(objective({"use": "test_gold_waits"}), rows(), runner, advance=lambda: done.append(read))
    assert len(done) == 1000
    assert done[0] < 1000  # not all rows are read before the first is done
    assert Busy.most > 50
    assert Busy.closed


def test_rows_are_left_unread_when_no_reward_reads_golds(runner: WorkerPool) -> None:
    rows = iter(prompts(1, 2, 3))
    assert score_golds(objective({"use": "length", "maximum": 3}), rows, runner) == []
    assert len(list(rows)) == 3


def test_the_bar_of_check_moves_once_a_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[int] = []

    @contextmanager
    def bar(total: int) -> Iterator[Any]:
        yield lambda: moved.append(total)

    recipe = """
run: {name: test, steps: 10}
model: {path: model}
objectives:
  counted:
    share: 1
    data: {source: jsonl, path: rows.jsonl}
    prompt: "{{ q }}"
    gold: "{{ a }}"
    rewards: [{use: test_gold_calls}]
  unread:
    share: 1
    data: {source: jsonl, path: rows.jsonl}
    prompt: "{{ q }}"
    rewards: [{use: length, maximum: 3}]
rollout: {prompts_per_step: 4, samples_per_prompt: 2, max_new_tokens: 8}
"""
    (tmp_path / "r.yaml").write_text(recipe)
    (tmp_path / "rows.jsonl").write_text('{"q": "1", "a": "1"}\n{"a": "2"}\n{"q": "3", "a": "3"}\n')
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys.modules["morl.preflight.recipe_check"], "_progress", bar)
    report = check("r.yaml")
    assert [problem.where for problem in report.data] == ["rows.jsonl:2", "rows.jsonl:2"]
    assert moved == [6] * 6
    assert CALLS == ["1", "3"]


def written_by(gold: Any, meta: Mapping[str, Any], *, unit: str = "m", other: int = 0) -> str:
    return f"{meta['sign']}{gold} {unit}"


@reward("test_gold_with_unit", runs="inline", answer=written_by)
def with_unit(response: str, gold: Any, meta: Mapping[str, Any], *, unit: str = "m", strict: bool = True) -> float:
    return float(response == f"{meta['sign']}{gold} {unit}")


def test_an_answer_is_written_with_the_row_and_the_options_that_it_names(runner: WorkerPool) -> None:
    rows = prompts(3, 4, sign="-")
    assert score_golds(objective({"use": "test_gold_with_unit", "unit": "km"}), rows, runner) == []
    given = RewardInput("", 3, meta={"sign": "-"})
    assert written_gold(str, given, {"unit": "km"}) == "3"
    assert written_gold(lambda meta: f"<{meta}>", given, {"meta": 5}) == "<3>"
    assert written_gold(lambda gold, **options: f"{gold} {options}", given, {"a": 1}) == "3 {'a': 1}"


@reward("test_example_with_wrong_option", examples=[Example("a", None, 1.0, {"strikt": True}), Example("a", None, 1.0)])
def strict_or_not(response: str, *, strict: bool = False) -> float:
    return 1.0


def test_an_example_with_a_wrong_option_is_told(runner: WorkerPool) -> None:
    (told,) = check_examples("test_example_with_wrong_option", runner)
    assert told.startswith("example 0: reward 'test_example_with_wrong_option': option 'strikt': unknown key")
    assert check_examples("test_gold_in_row", runner) == []  # it has none


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_a_bar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "r.yaml").write_text(
        "run: {name: test, steps: 1}\nmodel: {path: model}\nobjectives: {o: {share: 1, prompt: '{{ q }}', "
        "data: {source: jsonl, path: rows.jsonl}, rewards: [{use: length, maximum: 3}]}}\n"
        "rollout: {prompts_per_step: 4, samples_per_prompt: 2, max_new_tokens: 8}\n"
    )
    (tmp_path / "rows.jsonl").write_text('{"q": "1"}\n' * 3)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert check("r.yaml").exit_code == 0
    assert "rows" in sys.stderr.getvalue()
    assert "100%" in sys.stderr.getvalue()
