from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from learner_groups import make_groups

from morl.learner.packing import build_batch, microbatch, plan_microbatches
from morl.learner.rows import Response, group_rows
from morl.types import Encoded, Group, Prompt, Sample, Score


def flat(groups: list[Group]) -> tuple[torch.Tensor, torch.Tensor]:
    """Advantages and weights that tell every sample apart."""
    shape = (len(groups), len(groups[0].samples_G))
    advantages = torch.arange(1, shape[0] * shape[1] + 1, dtype=torch.float64).reshape(shape)
    return advantages, torch.full(shape, 0.5, dtype=torch.float64)


def one_by_one(model, group: Group, sample: Sample, temperature: float, banned: list[int]) -> torch.Tensor:
    """Log-probs of one answer in a row of its own: the reference."""
    ids = torch.tensor([group.encoded.token_ids_T + sample.token_ids_T])
    logits = model(input_ids=ids).logits[0].float() / temperature
    logits[:, banned] = -torch.inf
    at = torch.arange(len(group.encoded.token_ids_T) - 1, ids.shape[1] - 1)
    return logits.log_softmax(-1)[at, ids[0, at + 1]]


@pytest.mark.parametrize("duplicates", [False, True])
@pytest.mark.parametrize("budget", [40, 100_000])
def test_shared_rows_give_what_separate_rows_give(tiny_model: Path, budget: int, duplicates: bool) -> None:
    from morl.learner.policy import Policy
    from morl.model.loading import load_policy

    model, banned = load_policy(tiny_model, "float32"), [5, 9]
    policy = Policy(model, temperature=0.7, banned_token_ids=banned)
    groups = make_groups(1, duplicates=duplicates)
    batch = build_batch(group_rows(groups, *flat(groups)))
    plan = plan_microbatches(batch.row_starts_B1.diff().tolist(), budget, ranks=1)[0]

    loss = torch.zeros(())
    for rows in plan:
        micro = microbatch(batch, rows)
        logprobs, _ = policy(micro)
        safe = torch.where(micro.targets_N[:, None].eq(torch.tensor(banned)).any(1), 0.0, logprobs)
        loss = loss + (safe * micro.advantages_N * micro.weights_N).sum()
    got = torch.autograd.grad(loss, list(model.parameters()))

    loss = torch.zeros(())
    for p, group in enumerate(groups):
        for g, sample in enumerate(group.samples_G):
            logprobs = one_by_one(model, group, sample, 0.7, banned)
            safe = torch.where(torch.tensor(sample.token_ids_T)[:, None].eq(torch.tensor(banned)).any(1), 0.0, logprobs)
            loss = loss + (safe * (p * 4 + g + 1) * 0.5).sum()
    want = torch.autograd.grad(loss, list(model.parameters()))
    scale = max(float(gradient.abs().max()) for gradient in want)
    assert all(torch.allclose(a, b, atol=1e-5 * scale) for a, b in zip(got, want, strict=True))


def test_same_answers_share_their_tokens() -> None:
    groups = make_groups(2, prompts=1, samples=4, duplicates=True)
    batch = build_batch(group_rows(groups, *flat(groups)))
    first, second = (groups[0].samples_G[i].length for i in (0, 1))
    assert len(batch.token_ids_T) == len(groups[0].encoded.token_ids_T) + (first - 1) + (second - 1)
    assert len(batch.targets_N) == 3 * first + second


def test_rows_without_advantage_are_left_out_but_one_stays() -> None:
    groups = make_groups(3, prompts=3)
    advantages, weights = flat(groups)
    advantages[1] = 0
    assert build_batch(group_rows(groups, advantages, weights)).rows == 2
    assert build_batch(group_rows(groups, advantages * 0, weights)).rows == 1


def test_samples_without_advantage_stay_where_they_are_wanted() -> None:
    groups = make_groups(3, prompts=3)
    advantages, weights = flat(groups)
    advantages[1] = 0
    weights[2, 1] = 0
    batch = build_batch(group_rows(groups, advantages, weights, keep_zeros=True))
    assert batch.rows == 3
    scored = sum(s.length for group in groups for s in group.samples_G) - groups[2].samples_G[1].length
    assert len(batch.targets_N) == scored


def test_a_target_knows_its_prompt_whatever_the_rows() -> None:
    groups = make_groups(3)
    advantages, weights = flat(groups)
    advantages[0] = 0
    advantages[2, 1] = 0
    shared, apart = (build_batch(group_rows(groups, advantages, weights, share=share)) for share in (True, False))
    assert shared.prompts_N.unique().tolist() == [1, 2, 3]
    assert shared.rows < apart.rows
    assert shared.prompts_N.equal(apart.prompts_N)
    own = [sum(s.length for s in groups[p].samples_G) for p in (1, 3)]
    assert [int((shared.prompts_N == p).sum()) for p in (1, 3)] == own


def test_tokens_that_a_tool_wrote_are_context_not_targets() -> None:
    sample = Sample("o/0", 0, (11, 12, 13, 14), (1, 0, 0, 1), (-1.0, 0.0, 0.0, -2.0), 0, "stop", "")
    prompt = Prompt("o/0", "o", ({"role": "user", "content": "?"},))
    group = Group(prompt, Encoded((3, 4)), (sample,), (Score(1.0),))
    batch = build_batch(group_rows([group], torch.ones(1, 1), torch.ones(1, 1)))
    assert batch.token_ids_T.tolist() == [3, 4, 11, 12, 13]
    assert batch.targets_N.tolist() == [11, 14]
    assert batch.sources_N.tolist() == [1, 4]


@settings(max_examples=200)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=30), st.integers(1, 200), st.integers(1, 4))
def test_a_plan_covers_every_row_once_and_keeps_the_budget(lengths: list[int], budget: int, ranks: int) -> None:
    plan = plan_microbatches(lengths, budget, ranks)
    assert sorted(row for rank in plan for rows in rank for row in rows) == list(range(len(lengths)))
    assert len({len(rank) for rank in plan}) == 1
    for rank in plan:
        for rows in rank:
            assert len(rows) <= 1 or len(rows) * max(lengths[row] for row in rows) <= budget


def test_an_answer_whose_mask_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="2 tokens, but 1"):
        Response((5, 6), weight=1.0, loss_mask_T=(1,))


def test_an_empty_microbatch_weighs_nothing() -> None:
    groups = make_groups(4)
    batch = build_batch(group_rows(groups, *flat(groups)))
    assert microbatch(batch, []).weights_N.abs().sum() == 0


def test_a_kernel_of_its_own_is_never_given_a_dense_mask() -> None:
    groups = make_groups(0)
    batch = build_batch(group_rows(groups, *flat(groups)))
    assert microbatch(batch, range(batch.rows)).attention_mask_B1LL is not None
    assert microbatch(batch, range(batch.rows), dense=False).attention_mask_B1LL is None
