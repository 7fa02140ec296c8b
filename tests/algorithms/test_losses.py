from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from morl.algorithms.cispo import cispo
from morl.algorithms.gspo import gspo, gspo_token
from morl.algorithms.on_policy import on_policy
from morl.algorithms.ppo_clip import ppo_clip

TWO = torch.tensor([0, 0, 0, 1, 1])
"""An answer of three tokens, then one of two."""
ONE = torch.tensor([0, 0, 0])


def t(*values: float, grad: bool = False) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def gradient(loss_N: torch.Tensor, logprobs_N: torch.Tensor) -> torch.Tensor:
    return torch.autograd.grad(loss_N.sum(), logprobs_N)[0]


# Plain.


def test_on_policy_worked_by_hand() -> None:
    logprobs = t(-1.0, -2.0, grad=True)
    loss = on_policy(logprobs, t(0.5, -3.0))
    assert loss.tolist() == [0.5, -6.0]
    loss.sum().backward()
    assert logprobs.grad.tolist() == [-0.5, 3.0]


# PPO.


def test_ppo_clip_worked_by_hand() -> None:
    old = t(-1.0, -1.0, -1.0, -1.0)
    ratio = t(1.5, 1.5, 0.5, 0.5)
    advantages = t(1.0, -1.0, 1.0, -1.0)
    loss = ppo_clip(old + ratio.log(), old, advantages, clip_low=0.2, clip_high=0.3)
    # clipped from above; pessimistic; pessimistic; clipped from below
    assert torch.allclose(loss, t(-1.3, 1.5, -0.5, 0.8))


def test_ppo_clip_gives_no_gradient_beyond_the_bound() -> None:
    logprobs = t(-0.5, -0.5, -1.5, -1.5, grad=True)
    ppo_clip(logprobs, t(-1.0, -1.0, -1.0, -1.0), t(1.0, -1.0, 1.0, -1.0)).sum().backward()
    assert (logprobs.grad == 0).tolist() == [True, False, False, True]


def test_dual_clip_bounds_what_a_bad_sample_can_do() -> None:
    old = t(-5.0, -5.0, -5.0, -5.0)
    logprobs = (old + t(2.9, 3.1, 3.1, 0.5).log()).requires_grad_()
    advantages = t(-2.0, -2.0, 2.0, -2.0)
    loss = ppo_clip(logprobs, old, advantages, dual_clip=3.0)
    # below the bound; at the bound; a good sample is clipped as ever; and so is a bad one from below
    assert torch.allclose(loss, t(5.8, 6.0, -2.4, 1.6))
    assert torch.allclose(gradient(loss, logprobs), t(5.8, 0.0, 0.0, 0.0))
    without = ppo_clip(logprobs, old, advantages)
    assert torch.allclose(without, t(5.8, 6.2, -2.4, 1.6))


# Whole answers.


def test_gspo_worked_by_hand() -> None:
    old = t(-1.0, -2.0, -0.5, -1.0, -3.0)
    # mean log ratios 0.0002 and -0.0005
    logprobs = old + t(0.0009, -0.0003, 0.0, -0.001, 0.0)
    loss = gspo(logprobs, old, t(1.0, 1.0, 1.0, 1.0, 1.0), TWO)
    inside, below = math.exp(0.0002), math.exp(-0.0005)
    assert torch.allclose(loss, t(*[-inside] * 3, *[-below] * 2), rtol=0, atol=1e-12)
    # beyond the bound in the direction the advantage pulls: clipped
    assert torch.allclose(gspo(logprobs, old, -torch.ones(5).double(), TWO)[3:], t(0.9997, 0.9997), rtol=0, atol=1e-12)
    loss = gspo(logprobs, old, t(1.0, 1.0, 1.0, 1.0, 1.0), TWO, clip_high=1e-4)
    assert torch.allclose(loss[:3], t(*[-1.0001] * 3), rtol=0, atol=1e-12)


def test_gspo_gradient_worked_by_hand() -> None:
    # d s / d logprob = s / length, and each of the answer's tokens carries the answer's loss
    logprobs = (t(-1.0, -2.0, -0.5, -1.0, -3.0) + 1e-4).requires_grad_()
    advantages = t(2.0, 2.0, 2.0, -1.0, -1.0)
    weights = t(1 / 3, 1 / 3, 1 / 3, 1 / 2, 1 / 2)  # sequence_mean, but for the number of samples
    loss = gspo(logprobs, t(-1.0, -2.0, -0.5, -1.0, -3.0), advantages, TWO) * weights
    s = math.exp(1e-4)
    assert torch.allclose(gradient(loss, logprobs), t(*[-2 * s / 3] * 3, *[s / 2] * 2))


def test_gspo_clips_whole_answers() -> None:
    logprobs = t(-0.9, -2.0, -0.5, -1.0, -3.0, grad=True)
    loss = gspo(logprobs, t(-1.0, -2.0, -0.5, -1.0, -3.0), torch.ones(5).double(), TWO)
    assert (gradient(loss, logprobs) == 0).tolist() == [True, True, True, False, False]


def test_gspo_token_has_the_values_and_answers_gradient_of_gspo() -> None:
    torch.manual_seed(0)
    old = -torch.rand(5).double()
    logprobs = (old + 3e-4 * torch.randn(5).double()).requires_grad_()
    for advantages in (t(1.0, 1.0, 1.0, -0.7, -0.7), t(-2.0, -2.0, -2.0, 0.4, 0.4)):
        whole, single = (loss(logprobs, old, advantages, TWO) for loss in (gspo, gspo_token))
        assert torch.allclose(whole, single, rtol=0, atol=1e-15)
        assert torch.allclose(gradient(whole, logprobs), gradient(single, logprobs))


def test_gspo_token_lets_tokens_of_an_answer_differ() -> None:
    logprobs = t(-1.0, -2.0, -0.5, grad=True)
    advantages, weights = t(2.0, 0.0, -1.0), t(1.0, 1.0, 3.0)
    loss = gspo_token(logprobs, t(-1.0, -2.0, -0.5), advantages, ONE) * weights
    assert torch.allclose(gradient(loss, logprobs), t(-2.0, 0.0, 3.0))


def test_an_answer_is_the_same_in_any_microbatch() -> None:
    torch.manual_seed(1)
    old = -torch.rand(5).double()
    logprobs, advantages = old + 3e-4 * torch.randn(5).double(), t(1.0, 1.0, 1.0, -0.7, -0.7)
    for loss in (gspo, gspo_token):
        together = loss(logprobs, old, advantages, TWO)
        apart = [loss(logprobs[m], old[m], advantages[m], ONE[: int(m.sum())]) for m in (TWO == 0, TWO == 1)]
        assert torch.equal(together, torch.cat(apart))
        mixed = torch.tensor([3, 0, 4, 1, 2])
        assert torch.allclose(loss(logprobs[mixed], old[mixed], advantages[mixed], TWO[mixed]), together[mixed])


def test_a_long_answer_in_single_precision_keeps_the_ratio() -> None:
    length = 32768
    old = torch.linspace(-8, -0.01, length)
    loss = gspo(old + 1e-5, old, torch.ones(length), torch.zeros(length, dtype=torch.long))
    # the additions to float32 log-probs round to 1e-7 or so each
    assert abs(float(loss[0]) + math.exp(1e-5)) < 1e-6


# A clipped weight.


def test_cispo_worked_by_hand() -> None:
    old = t(-4.0, -4.0, -4.0, -4.0)
    logprobs = (old + t(7.0, 2.0, 0.1, 7.0).log()).requires_grad_()
    advantages = t(1.0, 1.0, 1.0, -0.5)
    loss = cispo(logprobs, old, advantages)
    weights = t(5.0, 2.0, 0.1, 5.0)
    assert torch.allclose(loss, -weights * advantages * logprobs)
    # every token keeps a gradient, and none goes through the weight
    assert torch.allclose(gradient(loss, logprobs), -weights * advantages)
    bounded = cispo(logprobs, old, advantages, clip_low=0.5, clip_high=1.5)
    assert torch.allclose(gradient(bounded, logprobs), -t(2.5, 2.0, 0.5, 2.5) * advantages)


# What all of them keep.


def with_old(loss: Callable[..., torch.Tensor], **options: float) -> Callable[..., torch.Tensor]:
    return lambda logprobs, old, advantages, sequence: loss(logprobs, old, advantages, **options)


LOSSES = {
    "on_policy": lambda logprobs, old, advantages, sequence: on_policy(logprobs, advantages),
    "ppo_clip": with_old(ppo_clip),
    "ppo_clip, dual": with_old(ppo_clip, clip_high=0.28, dual_clip=3.0),
    "cispo": with_old(cispo),
    "gspo": gspo,
    "gspo_token": gspo_token,
}
every = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


@every
def test_on_fresh_samples_all_have_the_gradient_of_on_policy(loss: Callable[..., torch.Tensor]) -> None:
    logprobs, advantages = t(-0.3, -2.0, -1.0, -0.1, -4.0, grad=True), t(0.7, 0.7, 0.7, -1.1, -1.1)
    got = gradient(loss(logprobs, logprobs.detach(), advantages, TWO), logprobs)
    assert torch.allclose(got, -advantages)


@pytest.mark.parametrize("name", ["on_policy", "ppo_clip", "ppo_clip, dual", "gspo"])
def test_gradients_are_right(name: str) -> None:
    old, advantages = t(-1.0, -1.1, -0.9, -2.0, -1.5), t(0.5, 0.5, 0.5, -1.0, -1.0)
    start = (old + t(2e-4, 1e-4, -1e-4, 2e-4, -1e-4)).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda lp: LOSSES[name](lp, old, advantages, TWO), (start,), eps=1e-7, atol=1e-6, rtol=1e-5
    )


@every
def test_a_broken_token_gives_no_nan(loss: Callable[..., torch.Tensor]) -> None:
    old = torch.tensor([-1.0, -200.0, -0.001, -1.0, -1.0])
    for advantage in (0.0, 1.0, -1.0):
        logprobs = torch.tensor([-200.0, -1.0, -0.001, -1.0, -1.0], requires_grad=True)
        loss_N = loss(logprobs, old, torch.full((5,), advantage), TWO)
        assert loss_N.dtype == torch.float32
        assert bool(loss_N.isfinite().all())
        assert bool(gradient(loss_N, logprobs).isfinite().all())


@every
def test_no_tokens_are_no_loss(loss: Callable[..., torch.Tensor]) -> None:
    nothing = torch.zeros(0, requires_grad=True)
    loss_N = loss(nothing, torch.zeros(0), torch.zeros(0), torch.zeros(0, dtype=torch.long))
    assert loss_N.shape == (0,)
    loss_N.sum().backward()


@every
def test_what_the_rollout_said_gets_no_gradient(loss: Callable[..., torch.Tensor]) -> None:
    logprobs = t(-1.0, -1.0, -1.0, -1.0, -1.0, grad=True)
    loss(logprobs, logprobs.detach(), t(1.0, 1.0, 1.0, -1.0, -1.0), TWO).sum().backward()
    assert bool((logprobs.grad != 0).all())


def clip_by_loops(ratio: list[float], advantages: list[float], low: float, high: float) -> list[float]:
    return [-min(r * a, float(np.clip(r, 1 - low, 1 + high)) * a) for r, a in zip(ratio, advantages, strict=True)]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.floats(-3, 0), st.floats(-1e-3, 1e-3)), min_size=1, max_size=4), max_size=4),
    st.lists(st.floats(-3, 3), min_size=4, max_size=4),
)
def test_ratios_equal_loops(answers: list[list[tuple[float, float]]], advantages: list[float]) -> None:
    old = [o for answer in answers for o, _ in answer]
    new = [o + d for answer in answers for o, d in answer]
    sequence = [s for s, answer in enumerate(answers) for _ in answer]
    each = [advantages[s] for s in sequence]
    token = [math.exp(n - o) for n, o in zip(new, old, strict=True)]
    mean = [math.exp(sum(d for _, d in answers[s]) / len(answers[s])) for s in sequence]
    given_ = (t(*new), t(*old), t(*each))
    ids = torch.tensor(sequence, dtype=torch.long)
    assert np.allclose(ppo_clip(*given_, clip_low=5e-4).numpy(), clip_by_loops(token, each, 5e-4, 0.2), atol=1e-12)
    assert np.allclose(gspo(*given_, ids).numpy(), clip_by_loops(mean, each, 3e-4, 4e-4), atol=1e-12)
    want = [-min(r, 5.0) * a * n for r, a, n in zip(token, each, new, strict=True)]
    assert np.allclose(cispo(*given_).numpy(), want, atol=1e-12)
