"""From samples to scores, with rewards of every kind."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import plugin  # registers its rewards
import pytest

from morl.errors import RunError, UsageError
from morl.recipe.schema.objective_section import ObjectiveSpec
from morl.registry import REWARDS
from morl.rewards import reward
from morl.rewards.bound_reward import BoundReward
from morl.rewards.pool.worker_pool import WorkerPool
from morl.rewards.reward import Example
from morl.rewards.scorer import Scorer
from morl.types import Prompt, Sample, Score


def objective(*rewards: dict[str, Any], **more: Any) -> ObjectiveSpec:
    data = {"source": "jsonl", "path": "none.jsonl"}
    return ObjectiveSpec.model_validate({"share": 1, "data": data, "prompt": "x", "rewards": list(rewards), **more})


def prompt(name: str, gold: Any = None) -> Prompt:
    return Prompt(f"{name}/0", name, ({"role": "user", "content": "question"},), (), gold, {"row": 7})


def sample(text: str, index: int = 0) -> Sample:
    return Sample("p", index, (1,), (1,), (0.0,), 0, "stop", text)


def score(scorer: Scorer, name: str, *texts: str, gold: Any = None) -> list[Score]:
    async def run() -> list[Score]:
        calls = (scorer.score(prompt(name, gold), sample(text, i)) for i, text in enumerate(texts))
        return await asyncio.gather(*calls)

    return asyncio.run(run())


OBJECTIVES = {
    "math": objective({"use": "math"}),
    "mix": objective(
        {"use": "math", "weight": 3},
        {"use": "length", "unit": "words", "maximum": 2, "gate": {"term": "math", "at_least": 1}},
    ),
    "async": objective({"use": "test_async", "seconds": 0.01, "deadline_s": 0.5}),
    "slow": objective({"use": "test_async", "seconds": 60.0, "deadline_s": 0.05}),
    "inline": objective({"use": "test_inline"}),
    "batch_inline": objective({"use": "test_batch_inline"}),
    "batch_async": objective({"use": "test_batch_async"}),
    "batch_worker": objective({"use": "test_batch_worker"}),
    "everything": objective({"use": "test_everything", "least": 3}),
    "fail": objective({"use": "math", "on_error": "fail"}),
    "zero": objective({"use": "test_inline", "on_error": "zero"}, {"use": "length", "maximum": 9}),
    "scaled": objective({"use": "test_inline", "scale": [-10, 10]}),
}


@pytest.fixture(scope="module")
def scorer() -> Iterator[Scorer]:
    with Scorer(OBJECTIVES, workers=2) as made:
        yield made


def test_an_objective_is_scored_by_its_own_rewards(scorer: Scorer) -> None:
    scores = score(scorer, "math", r"\boxed{4}", r"\boxed{5}", "", gold="4")
    assert [s.value for s in scores] == [1.0, 0.0, 0.0]
    assert [s.terms["math"].status for s in scores] == ["ok", "ok", "no_answer"]


def test_terms_are_mixed_as_the_recipe_says(scorer: Scorer) -> None:
    scores = score(scorer, "mix", r"\boxed{4}", r"\boxed{4} a b", r"\boxed{5}", gold="4")
    assert [s.value for s in scores] == [1.0, 0.75, 0.0]
    assert scores[2].terms["length"].status == "gated"


def test_a_gold_that_is_needed_and_missing_is_the_datas_fault(scorer: Scorer) -> None:
    (told,) = score(scorer, "math", r"\boxed{4}")
    assert told.value is None
    assert told.terms["math"].status == "bad_gold"


@pytest.mark.parametrize("name", ["async", "inline", "batch_inline", "batch_async", "batch_worker"])
def test_rewards_of_every_kind_tell_items_apart(name: str, scorer: Scorer) -> None:
    texts = [str(i / 100) for i in range(100)]
    texts[42] = "not a number"
    scores = score(scorer, name, *texts, gold="g")
    assert [s.value for s in scores] == [None if i == 42 else i / 100 for i in range(100)]
    (term,) = scores[42].terms.values()
    assert term.status == "error"
    assert "ValueError" in term.detail


def test_a_batch_is_called_together(scorer: Scorer) -> None:
    plugin.SIZES.clear()
    score(scorer, "batch_inline", *["1"] * 20)
    assert plugin.SIZES == [20]
    assert {s.terms["test_batch_worker"].detail for s in score(scorer, "batch_worker", *["1"] * 20, gold="g")} == {"20"}


def test_an_async_reward_has_a_deadline(scorer: Scorer) -> None:
    (told,) = score(scorer, "slow", "1")
    assert told.value is None
    assert told.terms["test_async"].status == "timeout"


def test_a_reward_gets_what_it_names(scorer: Scorer) -> None:
    (told,) = score(scorer, "everything", "text", gold=[1])
    assert told.terms["test_everything"].detail == "['text', [1], 'question', [], 7, 0, 3, True]"


def test_what_failed_is_masked_counted_as_zero_or_stops_the_run(scorer: Scorer) -> None:
    assert [s.value for s in score(scorer, "inline", "x", "1")] == [None, 1.0]
    assert [s.value for s in score(scorer, "zero", "x", "1")] == [0.5, 1.0]
    with pytest.raises(RunError, match="objective 'fail', term 'math', sample 0 of fail/0: bad_gold"):
        score(scorer, "fail", r"\boxed{4}")


def test_a_raw_value_may_lie_anywhere_if_it_is_scaled(scorer: Scorer) -> None:
    (told,) = score(scorer, "scaled", "5")
    assert told.value == 0.75
    assert told.terms["test_inline"].value == 5.0
    (told,) = score(scorer, "inline", "5")
    assert told.value is None
    assert told.terms["test_inline"].status == "error"
    assert "returned 5, outside [0, 1]" in told.terms["test_inline"].detail


def test_an_unknown_objective_is_told_with_the_nearest(scorer: Scorer) -> None:
    with pytest.raises(UsageError, match="did you mean 'math'"):
        score(scorer, "maths", "1")


def test_wrong_options_and_arguments_fail_before_anything_runs() -> None:
    with WorkerPool(workers=1) as runner:
        with pytest.raises(UsageError, match="tolerance"):
            BoundReward("number", {"tolerence": 1}, 1.0, runner)
        with pytest.raises(UsageError, match="relative_tolerance"):
            BoundReward("number", {"relative_tolerance": -1}, 1.0, runner)
        with pytest.raises(UsageError, match="unknown reward 'maths'; did you mean 'math'"):
            BoundReward("maths", {}, 1.0, runner)


def test_a_reward_must_be_importable() -> None:
    with pytest.raises(UsageError, match="top level"):

        @reward("test_local", examples=[Example("", None, 0.0)])
        def local(response: str) -> float:
            return 0.0

    assert "test_local" not in REWARDS.entries()


HEAVY = "torch", "ray", "vllm", "transformers", "sympy", "asyncio", "numpy", "deepspeed"


def test_importing_rewards_is_light() -> None:
    program = f"import sys, morl.rewards; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_scoring_needs_no_torch_in_the_trainers_process() -> None:
    program = (
        "import sys; from morl.rewards import REWARDS, Scorer; "
        "[REWARDS.load(name) for name in ('math', 'choice', 'exact', 'number', 'regex', 'length')]; "
        "print([name for name in ('torch', 'ray', 'vllm', 'sympy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
