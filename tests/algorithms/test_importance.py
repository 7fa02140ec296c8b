from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from morl.algorithms.importance import masked, truncated
from morl.algorithms.ratio import importance_ratio

TWO = torch.tensor([0, 0, 0, 1, 1])
OLD = torch.tensor([-1.0, -2.0, -0.5, -1.0, -3.0], dtype=torch.float64)
RATIO = torch.tensor([2.0, 0.5, 4.0, 3.0, 12.0], dtype=torch.float64)
NEW = OLD + RATIO.log()
# By answer: 2 * 0.5 * 4 = 4 over three tokens, 3 * 12 = 36 over two.
LEVELS = {
    "token": RATIO.tolist(),
    "sequence": [4.0] * 3 + [36.0] * 2,
    "geometric": [4 ** (1 / 3)] * 3 + [6.0] * 2,
}
levels = pytest.mark.parametrize("level", LEVELS)


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


@levels
def test_ratios_worked_by_hand(level: str) -> None:
    assert torch.allclose(importance_ratio(NEW, OLD, level=level, sequence_N=TWO), t(*LEVELS[level]))


@levels
def test_truncation_cuts_off_from_above_only(level: str) -> None:
    got = truncated(NEW, OLD, 3.5, level=level, sequence_N=TWO)
    assert torch.allclose(got, t(*[min(r, 3.5) for r in LEVELS[level]]))


@levels
def test_a_mask_leaves_out_what_is_outside_the_bounds(level: str) -> None:
    weights, kept = masked(NEW, OLD, 0.6, 5.0, level=level, sequence_N=TWO)
    want = [0.6 <= r <= 5.0 for r in LEVELS[level]]
    assert kept.tolist() == want
    assert torch.allclose(weights, t(*[r if k else 0.0 for r, k in zip(LEVELS[level], want, strict=True)]))


def test_truncation_leaves_small_weights_as_they_are() -> None:
    assert torch.allclose(truncated(t(0.01, 0.9).log(), t(0.5, 0.3).log(), 2.0), t(0.02, 2.0))


def test_long_answers_in_single_precision_are_added_up_exactly() -> None:
    # 7 and -7 + 2^-20, each 16,384 times: in single precision the last digits would be lost on the way
    half = torch.ones(16384)
    old, new = torch.cat([-8 * half, -1 * half]), torch.cat([-1 * half, (-8 + 2**-20) * half])
    got = importance_ratio(new, old, level="sequence", sequence_N=torch.zeros(32768, dtype=torch.long))
    assert torch.allclose(got, torch.full_like(got, math.exp(2**-6)), rtol=1e-6)


def test_tokens_are_the_default() -> None:
    assert torch.equal(truncated(NEW, OLD, 3.5), truncated(NEW, OLD, 3.5, level="token"))
    assert torch.equal(masked(NEW, OLD, 0.6, 5.0)[0], masked(NEW, OLD, 0.6, 5.0, level="token")[0])


def test_the_bounds_belong_to_what_is_kept() -> None:
    # exp(0) is exactly 1
    assert masked(OLD, OLD, 1.0, 1.0)[1].all()


@levels
def test_weights_carry_no_gradient(level: str) -> None:
    logprobs = NEW.clone().requires_grad_()
    assert not truncated(logprobs, OLD, 2.0, level=level, sequence_N=TWO).requires_grad
    assert not masked(logprobs, OLD, 0.5, 2.0, level=level, sequence_N=TWO)[0].requires_grad


@levels
def test_the_gradient_of_a_ratio_is_right(level: str) -> None:
    assert torch.autograd.gradcheck(
        lambda lp: importance_ratio(lp, OLD, level=level, sequence_N=TWO), (NEW.clone().requires_grad_(),)
    )


@levels
def test_a_ratio_beyond_all_bounds_stays_finite(level: str) -> None:
    far = torch.tensor([-1e4, 0.0, -1.0, 0.0, -1e4])
    logprobs, old = far.clone().requires_grad_(), far.flip(0)
    ratio = importance_ratio(logprobs, old, level=level, sequence_N=TWO)
    assert bool(ratio.isfinite().all())
    assert bool((ratio > 0).all())
    ratio.sum().backward()
    assert bool(logprobs.grad.isfinite().all())


@pytest.mark.parametrize("level", ["sequence", "geometric"])
def test_answers_must_be_known_to_compare_them(level: str) -> None:
    with pytest.raises(ValueError, match="which response"):
        importance_ratio(NEW, OLD, level=level)


@levels
def test_no_tokens_have_no_weights(level: str) -> None:
    nothing = torch.zeros(0)
    assert truncated(nothing, nothing, 2.0, level=level, sequence_N=TWO[:0]).shape == (0,)


@levels
@settings(max_examples=50, deadline=None)
@given(
    data=st.lists(st.tuples(st.floats(-2, 0), st.floats(-2, 0)), min_size=5, max_size=5),
    order=st.permutations(range(5)),
)
def test_the_order_of_tokens_does_not_matter(level: str, data: list[tuple[float, float]], order: list[int]) -> None:
    new, old = t(*[n for n, _ in data]), t(*[o for _, o in data])
    plain = importance_ratio(new, old, level=level, sequence_N=TWO)
    moved = importance_ratio(new[order], old[order], level=level, sequence_N=TWO[order])
    assert torch.allclose(plain[order], moved)


def test_weights_an_answer_are_unbiased_and_weights_a_token_are_not() -> None:
    """Two tokens, two words: the expectation under the rollout, by enumeration."""
    rollout_first, learner_first = t(0.7, 0.3), t(0.4, 0.6)
    rollout_second, learner_second = t(0.5, 0.5, 0.9, 0.1).view(2, 2), t(0.8, 0.2, 0.3, 0.7).view(2, 2)
    reward = t(1.0, 0.0, 0.5, 2.0).view(2, 2)
    exact = float((learner_first[:, None] * learner_second * reward).sum())
    mean = {"token": 0.0, "sequence": 0.0}
    for a in range(2):
        for b in range(2):
            old = torch.stack([rollout_first[a], rollout_second[a, b]]).log()
            new = torch.stack([learner_first[a], learner_second[a, b]]).log()
            for level in mean:
                weight = truncated(new, old, math.inf, level=level, sequence_N=torch.tensor([0, 0]))[1]
                mean[level] += float(old.sum().exp() * weight * reward[a, b])
    assert math.isclose(mean["sequence"], exact)
    assert abs(mean["token"] - exact) > 0.1
