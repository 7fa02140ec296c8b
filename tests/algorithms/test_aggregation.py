from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from morl.algorithms.aggregation import token_weights, without_masked

LENGTHS = torch.tensor([[2, 6, 4], [1, 3, 100]])
SCORED = torch.tensor([[True, True, True], [True, True, False]])
MODES = ["prompt_tokens", "batch_tokens", "sequence_mean", "constant"]


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(
    ("mode", "want"),
    [
        ("prompt_tokens", [[1 / 24] * 3, [1 / 8, 1 / 8, 0]]),
        ("batch_tokens", [[1 / 16] * 3, [1 / 16, 1 / 16, 0]]),
        ("sequence_mean", [[1 / 10, 1 / 30, 1 / 20], [1 / 5, 1 / 15, 0]]),
        ("constant", [[1 / 40] * 3, [1 / 40, 1 / 40, 0]]),
    ],
)
def test_worked_by_hand(mode: str, want: list[list[float]]) -> None:
    got = token_weights(LENGTHS, SCORED, mode, max_length=8)
    assert torch.allclose(got, torch.tensor(want, dtype=torch.float64))


@pytest.mark.parametrize("mode", ["prompt_tokens", "batch_tokens", "sequence_mean"])
def test_normalised_weights_sum_to_one_over_tokens(mode: str) -> None:
    weights = token_weights(LENGTHS, SCORED, mode, max_length=8)
    assert math.isclose(float((weights * LENGTHS).sum()), 1.0)


def test_a_prompt_without_any_score_weighs_nothing() -> None:
    scored = torch.tensor([[True, True, True], [False, False, False]])
    weights = token_weights(LENGTHS, scored, "prompt_tokens", max_length=8)
    assert torch.allclose(weights, torch.tensor([[1 / 12] * 3, [0.0] * 3], dtype=torch.float64))


@pytest.mark.parametrize("mode", MODES)
def test_a_sample_without_a_token_counts_no_more_than_one_without_a_score(mode: str) -> None:
    unscored = token_weights(LENGTHS, SCORED & (LENGTHS != 3), mode, max_length=8)
    empty = token_weights(torch.where(LENGTHS == 3, 0, LENGTHS), SCORED, mode, max_length=8)
    assert torch.equal(unscored, empty)
    # The second prompt has no token left.
    empty = token_weights(torch.tensor([[2, 6, 4], [0, 0, 0]]), torch.ones(2, 3).bool(), mode, max_length=8)
    assert torch.equal(empty[0], token_weights(LENGTHS[:1], SCORED[:1], mode, max_length=8)[0])
    assert empty[1].tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("mode", MODES)
def test_nothing_scored_weighs_nothing(mode: str) -> None:
    assert token_weights(LENGTHS, torch.zeros_like(SCORED), mode, max_length=8).tolist() == [[0.0] * 3] * 2


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError, match="token_mean"):
        token_weights(LENGTHS, SCORED, "token_mean", max_length=8)


# Masked tokens.


def test_masked_tokens_leave_the_denominator_worked_by_hand() -> None:
    weights = t(*[1 / 16] * 8, *[1 / 10] * 5)  # two prompts of 8 and 5 tokens, P = 2
    kept = torch.tensor([False] * 2 + [True] * 6 + [True] * 5)
    got = without_masked(weights, kept, torch.tensor([0] * 8 + [1] * 5))
    assert torch.allclose(got, t(0.0, 0.0, *[1 / 12] * 6, *[1 / 10] * 5))


@pytest.mark.parametrize("mode", ["prompt_tokens", "batch_tokens", "sequence_mean"])
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_it_is_the_same_as_never_having_counted_them(mode: str, data: st.DataObject) -> None:
    prompts, samples, longest = 2, 3, 4
    lengths = torch.tensor(
        data.draw(st.lists(st.lists(st.integers(1, longest), min_size=3, max_size=3), min_size=2, max_size=2))
    )
    tokens = [(p, g) for p in range(prompts) for g in range(samples) for _ in range(int(lengths[p, g]))]
    kept = data.draw(st.lists(st.booleans(), min_size=len(tokens), max_size=len(tokens)))
    for p in range(prompts):  # each answer keeps its first token
        for g in range(samples):
            kept[tokens.index((p, g))] = True
    left = torch.zeros_like(lengths)
    for (p, g), keep in zip(tokens, kept, strict=True):
        left[p, g] += keep
    scored = torch.ones_like(lengths).bool()
    before, after = (token_weights(n, scored, mode, max_length=longest) for n in (lengths, left))
    group = {"prompt_tokens": lambda p, g: p, "batch_tokens": lambda p, g: 0, "sequence_mean": lambda p, g: p * 3 + g}
    got = without_masked(
        t(*[float(before[p, g]) for p, g in tokens]),
        torch.tensor(kept),
        torch.tensor([group[mode](p, g) for p, g in tokens]),
    )
    want = t(*[float(after[p, g]) if keep else 0.0 for (p, g), keep in zip(tokens, kept, strict=True)])
    assert torch.allclose(got, want)


def test_without_a_mask_nothing_changes() -> None:
    weights = torch.tensor([0.1, 0.2, 0.3])
    got = without_masked(weights, torch.ones(3).bool(), torch.tensor([0, 0, 1]))
    assert torch.equal(got, weights)


def test_a_group_of_which_nothing_is_kept_counts_as_zero() -> None:
    got = without_masked(t(0.1, 0.1, 0.3), torch.tensor([False, False, True]), torch.tensor([0, 0, 1]))
    assert torch.equal(got, t(0.0, 0.0, 0.3))


def test_tokens_that_had_no_weight_get_none() -> None:
    got = without_masked(t(0.0, 0.0, 0.3), torch.tensor([True, False, True]), torch.tensor([0, 0, 1]))
    assert torch.equal(got, t(0.0, 0.0, 0.3))


def test_no_tokens_have_no_weights() -> None:
    nothing = torch.zeros(0)
    assert without_masked(nothing, nothing.bool(), nothing.long()).shape == (0,)
