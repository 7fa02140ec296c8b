"""The transformers engine beyond the common contract: bits repeat, and draws follow the distribution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from morl.errors import RunError
from morl.rollout.engine import Sampling
from morl.rollout.engines.hf_cache import Sharing
from morl.rollout.engines.hf_engine import HFEngine, batches
from morl.rollout.engines.sampling import BLOCK, draw, invert, nucleus

from .conftest import answers, ask, worst_logprob_error

PROMPTS = [(5, 6, 7), (9,), tuple(range(30, 60)), (5, 6, 7, 8), tuple(range(100, 117)), (250, 251)]


def requests():
    return [
        ask(f"r{i}", prompt, 5, seed=100 * i, temperature=2.0, new=40, stop_token_ids=tuple(range(50, 70)))
        for i, prompt in enumerate(PROMPTS)
    ]


def test_the_same_requests_give_the_same_bits(hf, run, tiny_model):
    first = run(answers(hf, *requests()))
    assert run(answers(hf, *requests())) == first
    other = HFEngine(str(tiny_model), dtype="float32", max_sequences=16)
    assert run(answers(other, *requests())) == first
    run(other.close())


def test_rows_that_share_padding_prefill_and_shrinking_batches_are_exact(hf, run, tiny_model):
    landed = run(answers(hf, *requests()))
    assert worst_logprob_error(tiny_model, requests(), landed) < 3e-5
    assert len({len(c.token_ids_T) for c in landed.values()}) > 5


@pytest.mark.parametrize("size", [1, 3, 64])
def test_batch_size_does_not_change_the_samples(hf, run, tiny_model, size):
    other = HFEngine(str(tiny_model), dtype="float32", max_sequences=size)
    landed, wanted = run(answers(other, *requests())), run(answers(hf, *requests()))
    assert {k: c.token_ids_T for k, c in landed.items()} == {k: c.token_ids_T for k, c in wanted.items()}
    run(other.close())


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=9))
def test_rows_come_back_from_their_prompts_as_they_were(prompt_of_row):
    sharing = Sharing.of(torch.tensor(prompt_of_row), 4)
    rows = torch.randn(len(prompt_of_row), 2, 3, 5)
    by_prompt = sharing.by_prompt(rows)
    assert torch.equal(sharing.by_row(by_prompt, 3), rows)
    for prompt in set(prompt_of_row):
        expected = rows[torch.tensor(prompt_of_row) == prompt].transpose(0, 1).flatten(1, 2)
        assert torch.equal(by_prompt[prompt, :, : expected.shape[1]], expected)


def test_a_prompt_is_held_once_however_many_go_on_from_it(run, tiny_model):
    engine = HFEngine(str(tiny_model), dtype="float32")
    rows = next(batches(requests(), 64))
    _, state = engine._prefill(rows)
    assert all(len(tensor) == len(PROMPTS) < len(rows) for layer in state.cache.layers for tensor in layer._prompts)
    run(engine.close())


def test_batches_hold_one_sampling_and_every_row_once():
    mixed = [*requests(), *(ask(f"g{i}", p, 3, temperature=0.0) for i, p in enumerate(PROMPTS))]
    batched = list(batches(mixed, 7))
    assert all(len({row.request.sampling for row in rows}) == 1 and len(rows) <= 7 for rows in batched)
    rows = [(row.request.id, row.index) for batch in batched for row in batch]
    assert sorted(rows) == sorted((r.id, i) for r in mixed for i in range(r.samples))


@settings(deadline=None, max_examples=40)
@given(
    logits=st.lists(st.floats(-8, 8), min_size=2, max_size=12),
    temperature=st.sampled_from([0.5, 1.0, 1.7]),
    top_p=st.sampled_from([0.3, 0.8, 1.0]),
    ban=st.booleans(),
)
def test_draw_inverts_the_cdf(logits, temperature, top_p, ban):
    """Evenly spread uniforms hit each token in proportion to its probability, to within one of them."""
    gaps = np.diff(sorted(logits))
    assume(top_p == 1.0 or gaps.min() > 1e-4)  # of two equal tokens, either may be the last in the nucleus
    n = 4000
    sampling = Sampling(temperature, 1, top_p=top_p, banned_token_ids=(0,) if ban else ())
    uniforms = torch.from_numpy((np.arange(n) + 0.5) / n)
    tokens, logprobs = draw(torch.tensor(logits).repeat(n, 1), uniforms, sampling)
    scaled = torch.tensor(logits, dtype=torch.float64)
    if ban:
        scaled[0] = -torch.inf
    exact = torch.log_softmax(scaled / temperature, -1)
    kept = nucleus(exact.exp()[None], top_p)[0]
    kept /= kept.sum()
    frequency = torch.bincount(tokens, minlength=len(logits)) / n
    assert (frequency - kept).abs().max() < 2 / n
    assert torch.allclose(logprobs.double(), exact[tokens], atol=1e-5)


@pytest.mark.parametrize("uniform", [0.0, np.nextafter(1.0, 0.0)])
def test_the_ends_of_the_unit_interval_draw_allowed_tokens(uniform):
    logits = torch.tensor([[-200.0, 0.0, 1.0, -200.0]])
    token, _ = draw(logits, torch.tensor([uniform]), Sampling(1.0, 1, banned_token_ids=(0, 3)))
    assert token.item() in (1, 2)


@settings(deadline=None)
@given(st.integers(1, 5 * BLOCK), st.integers(0, 2**32))
def test_an_entry_is_found_block_first_as_it_is_one_by_one(entries, seed):
    """The entry's part of the unit interval contains the number; entries without weight have no part."""
    rng = np.random.default_rng(seed)
    weights = rng.random((7, entries)) * (rng.random((7, entries)) < 0.3)
    weights[:, rng.integers(entries)] += 0.5
    uniforms = np.append(rng.random(6), np.nextafter(1.0, 0.0))
    drawn = invert(torch.from_numpy(weights).float(), torch.from_numpy(uniforms)).numpy()[:, None]
    cdf = weights.cumsum(1) / weights.sum(1, keepdims=True)
    size = np.take_along_axis(weights, drawn, 1) / weights.sum(1, keepdims=True)
    end = np.take_along_axis(cdf, drawn, 1)
    assert (size > 0).all()
    assert (end > uniforms[:, None] - 1e-6).all()
    assert (end - size < uniforms[:, None] + 1e-6).all()


@settings(deadline=None)
@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=9), st.floats(0.05, 1.0))
def test_the_nucleus_is_the_smallest_set_that_reaches_the_mass(weights, top_p):
    probs = torch.tensor(weights, dtype=torch.float64)
    probs /= probs.sum()
    kept = nucleus(probs[None], top_p)[0]
    assert kept.sum() >= top_p - 1e-9
    smallest = kept[kept > 0].min()
    assert kept.sum() - smallest < top_p
    assert (probs[kept == 0] <= smallest).all()


@pytest.mark.parametrize("logit", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_nonfinite_logits_raise(logit: float, temperature: float) -> None:
    logits_BV = torch.zeros(2, 300)
    logits_BV[1, 7] = logit
    with pytest.raises(RunError, match="logits are not finite"):
        draw(logits_BV, torch.zeros(2, dtype=torch.float64), Sampling(temperature, 8, banned_token_ids=(0,)))
