"""The contract of every engine, tested on all built-in ones."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest
import torch
from tiny import make_tiny_model

from morl.errors import CheckpointError, UsageError

from .conftest import answers, ask, publish, teacher_forced, worst_logprob_error

SHORT, LONG, ONE = (7, 8, 9), tuple(range(20, 70)), (11,)


def test_a_seed_names_its_sample(engine, run):
    together = run(answers(engine, ask("a", SHORT, 5, seed=100), ask("b", LONG, 3, seed=100)))
    again = run(answers(engine, ask("a", SHORT, 5, seed=100), ask("b", LONG, 3, seed=100)))
    assert {k: c.token_ids_T for k, c in together.items()} == {k: c.token_ids_T for k, c in again.items()}
    for i in range(5):
        alone = run(answers(engine, ask("x", SHORT, 1, seed=100 + i)))["x", 0]
        assert alone.token_ids_T == together["a", i].token_ids_T
        assert alone.logprobs_T == pytest.approx(together["a", i].logprobs_T, abs=1e-4)
    drawn = [c.token_ids_T for (name, _), c in together.items() if name == "a"]
    assert all(a != b for a, b in itertools.combinations(drawn, 2))


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_of_the_distribution_drawn_from(engine, run, tiny_model, temperature):
    banned = tuple(range(100, 300))
    requests = [
        ask(f"p{i}", prompt, seed=50 * i, temperature=temperature, banned_token_ids=banned)
        for i, prompt in enumerate((SHORT, LONG, ONE))
    ]
    landed = run(answers(engine, *requests))
    assert worst_logprob_error(tiny_model, requests, landed) < 1e-4
    assert not {token for c in landed.values() for token in c.token_ids_T} & set(banned)
    assert all(len(c.logprobs_T) == len(c.token_ids_T) == 24 for c in landed.values())


def test_samples_follow_the_distribution(engine, run, tiny_model):
    request = ask("d", SHORT, 2000, new=1)
    landed = run(answers(engine, request))
    drawn = torch.tensor([c.token_ids_T[0] for c in landed.values()])
    frequency = torch.bincount(drawn, minlength=384) / len(drawn)
    probability = teacher_forced(tiny_model, request, (0,))[0].exp()
    deviation = (frequency - probability).abs() / (probability * (1 - probability) / len(drawn)).sqrt()
    assert (probability > 0.005).sum() > 20
    assert deviation[probability > 0.005].max() < 4.5


def test_top_p_draws_from_the_nucleus(engine, run, tiny_model):
    request = ask("n", SHORT, 8, top_p=0.5)
    landed = run(answers(engine, request))
    for answer in landed.values():
        logprobs = teacher_forced(tiny_model, request, answer.token_ids_T)
        ranked, order = logprobs.exp().sort(descending=True)
        size = (ranked.cumsum(-1) < 0.5 + 1e-4).sum(-1) + 1
        place = (order == torch.tensor(answer.token_ids_T)[:, None]).int().argmax(-1)
        assert (place < size).all()


def test_greedy_takes_the_likeliest_and_reports_untempered_logprobs(engine, run, tiny_model):
    request = ask("g", SHORT, 2, temperature=0.0, banned_token_ids=tuple(range(0, 384, 3)))
    landed = run(answers(engine, request))
    assert landed["g", 0].token_ids_T == landed["g", 1].token_ids_T
    likeliest = teacher_forced(tiny_model, request, landed["g", 0].token_ids_T).argmax(-1)
    assert tuple(likeliest.tolist()) == landed["g", 0].token_ids_T
    assert worst_logprob_error(tiny_model, [request], landed) < 1e-4


def test_only_the_stop_tokens_asked_for_end_an_answer(engine, run):
    stop = tuple(range(200, 210))
    landed = run(answers(engine, ask("s", SHORT, 48, new=64, temperature=2.0, stop_token_ids=stop)))
    for answer in landed.values():
        assert not set(answer.token_ids_T[:-1]) & set(stop)
        stopped = answer.token_ids_T[-1] in stop
        assert answer.finish_reason == ("stop" if stopped else "length")
        assert stopped or len(answer.token_ids_T) == 64
    assert {c.finish_reason for c in landed.values()} == {"stop", "length"}
    # Token 2 is the checkpoint's end token, but not a requested stop token.
    assert any(2 in c.token_ids_T[:-1] for c in landed.values())


def test_prompts_too_many_for_one_step_keep_their_samples(engine, run, tiny_model):
    requests = [ask(f"m{i}", tuple((i + j) % 380 + 1 for j in range(120)), 1, seed=9 * i, new=4) for i in range(40)]
    landed = run(answers(engine, *requests))
    assert worst_logprob_error(tiny_model, requests, landed) < 1e-4
    for request in requests[:: len(requests) // 4]:
        alone = run(answers(engine, request))
        assert alone[request.id, 0].token_ids_T == landed[request.id, 0].token_ids_T


def test_abort_ends_a_request_and_no_other(engine, run):
    long, other, quick = ask("long", SHORT, 2, new=480), ask("other", LONG, 2, seed=5), ask("quick", ONE, 1, new=1)

    async def interrupted():
        landed = {}
        async for c in engine.generate([quick, long, other]):
            landed[c.request_id, c.index] = c
            if c.request_id == "quick":
                await engine.abort(["long", "never heard of"])
        return landed

    whole = run(answers(engine, long, other))
    landed = run(interrupted())
    assert set(landed) == {("quick", 0), *whole}
    for i in range(2):
        aborted = landed["long", i]
        assert aborted.finish_reason == "abort"
        assert len(aborted.token_ids_T) == len(aborted.logprobs_T) < 480
        assert aborted.token_ids_T == whole["long", i].token_ids_T[: len(aborted.token_ids_T)]
        assert landed["other", i].token_ids_T == whole["other", i].token_ids_T


def test_a_generation_left_early_leaves_the_engine_free(engine, run):
    async def leave():
        stream = engine.generate([ask("first", ONE, 1, new=1), ask("rest", SHORT, 4, new=480)])
        async for _ in stream:
            break
        await asyncio.wait_for(stream.aclose(), 60)

    before = run(answers(engine, ask("a", SHORT)))
    run(leave())
    after = run(answers(engine, ask("a", SHORT)))
    assert [c.token_ids_T for c in after.values()] == [c.token_ids_T for c in before.values()]


def test_a_request_beyond_the_context_is_refused(engine, run):
    with pytest.raises(UsageError, match="512"):
        run(answers(engine, ask("big", tuple(range(1, 301)), 1, new=300)))
    run(answers(engine, ask("fits", SHORT, 1)))


def test_new_weights_of_a_tied_model_are_served(engine, run, tiny_model, tmp_path: Path):
    other = make_tiny_model(tmp_path / "other", seed=1)
    # Long enough to fill a block of the prefix cache, which must be dropped with the weights.
    requests = [ask("a", LONG), ask("b", SHORT, seed=9)]
    old = run(answers(engine, *requests))
    try:
        assert run(engine.load_weights(publish(other, tmp_path / "v7", 7))) == 7
        assert run(engine.policy_version()) == 7
        new = run(answers(engine, *requests))
        assert {c.policy_version for c in new.values()} == {7}
        assert worst_logprob_error(other, requests, new) < 1e-4
        assert worst_logprob_error(tiny_model, requests, new) > 0.1
    finally:
        assert run(engine.load_weights(publish(tiny_model, tmp_path / "v0", 0))) == 0
    restored = run(answers(engine, *requests))
    assert [restored[key].token_ids_T for key in old] == [c.token_ids_T for c in old.values()]


def test_incomplete_weights_are_refused(engine, run, tiny_model, tmp_path: Path):
    torn = publish(tiny_model, tmp_path / "torn", 3, without="model.layers.0.self_attn.k_proj.weight")
    with pytest.raises(CheckpointError, match="k_proj"):
        run(engine.load_weights(torn))
    with pytest.raises(CheckpointError, match="policy_version"):
        run(engine.load_weights(str(tiny_model)))
    run(engine.load_weights(publish(tiny_model, tmp_path / "v0", 0)))
