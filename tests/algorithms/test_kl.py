from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from morl.algorithms.kl_estimators import kl

ESTIMATORS = ["k1", "k2", "k3"]
LOGITS = torch.tensor([0.3, -1.2, 0.9, 0.1, -0.4], dtype=torch.float64)
REFERENCE = torch.tensor([-0.5, 0.4, 1.0, 0.0, 0.2], dtype=torch.float64).log_softmax(0)


def t(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_worked_by_hand() -> None:
    # x = log 2 and -log 2
    logprobs, reference = t(0.5, 0.25).log(), t(0.25, 0.5).log()
    log2 = math.log(2)
    assert torch.allclose(kl(logprobs, reference, "k1"), t(log2, -log2))
    assert torch.allclose(kl(logprobs, reference, "k2"), t(log2**2 / 2, log2**2 / 2))
    assert torch.allclose(kl(logprobs, reference, "k3"), t(0.5 - 1 + log2, 2 - 1 - log2))


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gradients_are_right(estimator: str) -> None:
    start = t(-1.0, -0.2, -3.0).requires_grad_()
    assert torch.autograd.gradcheck(lambda lp: kl(lp, t(-1.1, -2.0, -0.5), estimator), (start,))


def exact_gradient(forward: bool) -> torch.Tensor:
    """Of KL(policy, reference), or of KL(reference, policy), by the logits."""
    logits = LOGITS.clone().requires_grad_()
    logprobs = logits.log_softmax(0)
    if forward:
        divergence = (REFERENCE.exp() * (REFERENCE - logprobs)).sum()
    else:
        divergence = (logprobs.exp() * (logprobs - REFERENCE)).sum()
    return torch.autograd.grad(divergence, logits)[0]


def mean_of(estimator: str) -> tuple[float, torch.Tensor]:
    """Value and gradient of the estimator, in the mean over the tokens that the policy draws."""
    logits = LOGITS.clone().requires_grad_()
    logprobs = logits.log_softmax(0)
    loss = (logprobs.detach().exp() * kl(logprobs, REFERENCE, estimator)).sum()
    return float(loss.detach()), torch.autograd.grad(loss, logits)[0]


EXACT = float((LOGITS.log_softmax(0).exp() * (LOGITS.log_softmax(0) - REFERENCE)).sum())


def test_values_of_k1_and_k3_are_unbiased_and_k2_is_near() -> None:
    assert math.isclose(mean_of("k1")[0], EXACT)
    assert math.isclose(mean_of("k3")[0], EXACT)
    assert not math.isclose(mean_of("k2")[0], EXACT, rel_tol=1e-3)
    assert math.isclose(mean_of("k2")[0], EXACT, rel_tol=0.5)


def test_the_gradient_of_k1_says_nothing() -> None:
    assert mean_of("k1")[1].abs().max() < 1e-12


def test_the_gradient_of_k2_is_that_of_the_divergence() -> None:
    assert torch.allclose(mean_of("k2")[1], exact_gradient(forward=False))


def test_the_gradient_of_k3_is_that_of_the_other_direction() -> None:
    assert torch.allclose(mean_of("k3")[1], exact_gradient(forward=True))
    assert not torch.allclose(mean_of("k3")[1], exact_gradient(forward=False), rtol=0.05)


@given(st.floats(-30, 0), st.floats(-30, 0))
def test_k2_and_k3_are_never_negative(logprob: float, reference: float) -> None:
    for estimator in ("k2", "k3"):
        assert float(kl(t(logprob), t(reference), estimator)) >= 0


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_same_distribution_is_exactly_zero(estimator: str) -> None:
    logprobs = t(-1.0, -20.0, 0.0).requires_grad_()
    loss = kl(logprobs, logprobs.detach(), estimator)
    assert loss.tolist() == [0.0, 0.0, 0.0]


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_far_apart_stays_finite_and_the_reference_gets_no_gradient(estimator: str) -> None:
    logprobs = torch.tensor([-1000.0, -0.1], requires_grad=True)
    reference = torch.tensor([-0.1, -1000.0], requires_grad=True)
    loss = kl(logprobs, reference, estimator)
    assert bool(loss.isfinite().all())
    loss.sum().backward()
    assert bool(logprobs.grad.isfinite().all())
    assert reference.grad is None


def test_k3_keeps_its_digits_where_the_two_agree() -> None:
    x = 1e-3
    got = float(kl(torch.tensor([-1.0 + x]), torch.tensor([-1.0]), "k3"))
    assert math.isclose(got, x**2 / 2, rel_tol=0.1)


def test_an_unknown_estimator_is_refused() -> None:
    with pytest.raises(ValueError, match="k4"):
        kl(t(0.0), t(0.0), "k4")
