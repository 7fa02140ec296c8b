"""Several engines act as one; a dead one is replaced without losing or repeating completions."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_tiny_model

from morl.errors import MorlError, RunError, UsageError
from morl.registry import ENGINES
from morl.rollout.engine import EngineInfo, choose_engine, engine_info
from morl.rollout.engine_actor import Deadlines, missing_parts
from morl.rollout.engine_pool import EnginePool

from .conftest import OPTIONS, answers, ask, publish, worst_logprob_error


def requests(new: int = 200):
    return [ask(f"r{i}", (5, 6, 7 + i), 8, seed=100 * i, new=new) for i in range(4)]


async def answers_with_a_kill(pool, wanted):
    """Every completion; the first engine's process is killed after three."""
    landed = []
    async for completion in pool.generate(wanted):
        landed.append(completion)
        if len(landed) == 3:
            os.kill(pool.engines[0].pid, signal.SIGKILL)
    return landed


def test_a_killed_actor_is_replaced_and_nothing_is_lost_or_doubled(ray_cluster, run, tmp_path: Path, tiny_model):
    other = make_tiny_model(tmp_path / "other", seed=1)
    options = {"max_sequences": 4}
    pool = run(EnginePool.start("hf", str(tiny_model), dtype="float32", options=options, count=2))
    assert run(pool.load_weights(publish(other, tmp_path / "v5", 5))) == 5
    whole = run(answers(pool, *requests()))
    before = pool.engines[0].pid
    landed = run(answers_with_a_kill(pool, requests()))
    assert pool.engines[0].pid != before
    keys = [(c.request_id, c.index) for c in landed]
    assert sorted(keys) == sorted(whole)
    assert {c.policy_version for c in landed} == {5}
    assert all(c.token_ids_T == whole[c.request_id, c.index].token_ids_T for c in landed)
    # The replacement serves the weights loaded last, not those it started from.
    assert worst_logprob_error(other, requests(), {(c.request_id, c.index): c for c in landed}) < 1e-4
    # Also when killed between calls.
    os.kill(pool.engines[0].pid, signal.SIGKILL)
    assert run(pool.policy_version()) == 5
    run(pool.close())


def test_restarts_are_bounded_and_the_error_names_the_cause(ray_cluster, run, tiny_model):
    pool = run(EnginePool.start("hf", str(tiny_model), dtype="float32", max_restarts=0, options={"max_sequences": 4}))
    with pytest.raises(RunError, match=r"'hf' died 1 times.*max_restarts is 0"):
        run(answers_with_a_kill(pool, requests()))
    run(pool.close())


def test_a_model_that_is_not_there_says_so_at_the_start(ray_cluster, run, tmp_path: Path):
    with pytest.raises(MorlError, match="no-such-model"):
        run(EnginePool.start("hf", str(tmp_path / "no-such-model"), dtype="float32"))


def test_the_number_of_engines_does_not_change_the_samples(hf, run, tiny_model):
    pool = run(EnginePool.start("hf", str(tiny_model), dtype="float32", options=OPTIONS["hf"], count=3, local=True))
    three, one = run(answers(pool, *requests(32))), run(answers(hf, *requests(32)))
    assert {k: c.token_ids_T for k, c in three.items()} == {k: c.token_ids_T for k, c in one.items()}
    run(pool.close())


def test_two_requests_of_one_name_are_refused(hf, run):
    with pytest.raises(UsageError, match="same id"):
        run(answers(hf, ask("a", (1,)), ask("a", (2,))))


@given(st.integers(1, 12), st.sets(st.integers(0, 11)))
def test_missing_parts_cover_exactly_what_has_not_landed_with_the_same_seeds(samples, landed):
    whole = ask("r", (1, 2), samples, seed=1000)
    parts = missing_parts(whole, landed)
    seeds = {part.first + i: part.request.seed + i for part in parts for i in range(part.request.samples)}
    assert seeds == {i: 1000 + i for i in range(samples) if i not in landed}
    assert sum(part.request.samples for part in parts) == len(seeds)
    assert len({part.request.id for part in parts}) == len(parts)


def test_auto_chooses_an_engine_and_says_why():
    name, reason = choose_engine("auto")
    assert name in ENGINES.entries()
    assert "vLLM" in reason or "vllm" in reason
    assert choose_engine("hf")[0] == "hf"
    with pytest.raises(UsageError, match="did you mean 'vllm'"):
        choose_engine("vlm")


class Plain:
    """An engine that declares nothing."""


class Declared:
    info = EngineInfo(takes_adapters=True)


class Mistaken:
    info = "takes_adapters"


def test_an_engine_can_do_what_it_declares_and_no_more():
    for kind in (Plain, Declared, Mistaken):
        ENGINES.register(f"{kind.__name__.lower()}_for_tests")(kind)
    assert engine_info("plain_for_tests") == engine_info("hf") == EngineInfo()
    assert engine_info("declared_for_tests").takes_adapters
    with pytest.raises(UsageError, match=r"'mistaken_for_tests' from .*: its `info` must be an EngineInfo"):
        engine_info("mistaken_for_tests")


def test_a_cluster_without_room_for_an_engine_says_so(ray_cluster, run, tiny_model: Path):
    start = EnginePool.start("hf", str(tiny_model), dtype="float32", num_gpus=64, deadlines=Deadlines(place_s=1.0))
    with pytest.raises(RunError, match=r"needs \{'CPU': 1, 'GPU': 64\}, and the cluster has no room for it after 1 s"):
        run(start)
