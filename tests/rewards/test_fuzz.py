"""Malformed and hostile responses, a few hundred for each verifier; `tests/bench/fuzz.py` has no end of them."""

from __future__ import annotations

from collections.abc import Iterator

import plugin  # noqa: F401  # registers a reward that fails
import psutil
import pytest
from bench.fuzz import Case, cases_of, fuzz, fuzzable, problem

from morl.rewards.pool.worker_pool import WorkerPool
from morl.types import TermScore

COUNT = {"math": 100, "repetition": 100}
"""Instead of 300."""


@pytest.fixture(scope="module")
def pool() -> Iterator[WorkerPool]:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    with WorkerPool(workers=2, memory_mb=1024) as made:
        yield made
    assert {child.pid for child in psutil.Process().children(recursive=True)} <= before


@pytest.mark.parametrize("name", fuzzable())
def test_every_response_gets_a_score(name: str, pool: WorkerPool) -> None:
    found = fuzz(pool, name, COUNT.get(name, 300), seed=7, huge=False)
    assert found.bad == []
    assert found.statuses["ok"] > 0
    assert set(found.statuses) <= {"ok", "no_answer", "bad_gold"}


def test_the_same_seed_writes_the_same_cases() -> None:
    assert repr(cases_of("choice", 50, 3)) == repr(cases_of("choice", 50, 3)) != repr(cases_of("choice", 50, 4))


@pytest.mark.parametrize(
    ("score", "wrong"),
    [
        (TermScore(0.5, "ok", "fine"), None),
        (TermScore(None, "bad_gold", "why"), None),
        (TermScore(None, "ok"), "contradict"),
        (TermScore(0.5, "error"), "contradict"),
        (TermScore(1.5, "ok"), "outside"),
        (TermScore(0.5, "gated"), "not a score"),
        (TermScore(0.5, "ok", "x" * 400), "too long"),
        (0.5, "not a score"),
    ],
)
def test_what_is_not_valid_is_noticed(score: TermScore, wrong: str | None) -> None:
    told = problem(score)
    assert told is wrong is None or (wrong is not None and told is not None and wrong in told)


def test_a_verifier_that_fails_is_found(pool: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = [Case("0.5", None, {}, {}), Case("no number", None, {}, {})] * 10
    monkeypatch.setattr("bench.fuzz.cases_of", lambda *_: broken)
    found = fuzz(pool, "test_inline", len(broken))
    assert {(wrong.partition(":")[0], case.response) for wrong, case in found.bad} == {("error", "no number")}
