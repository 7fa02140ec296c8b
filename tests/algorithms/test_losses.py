from __future__ import annotations

import math

import pytest
import torch

from morl.algorithms.aggregation import token_weights
from morl.algorithms.importance import truncated
from morl.algorithms.on_policy import on_policy
from morl.algorithms.ppo_clip import ppo_clip


def t(*values: float, grad: bool = False) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def test_on_policy_worked_by_hand() -> None:
    logprobs = t(-1.0, -2.0, grad=True)
    loss = on_policy(logprobs, t(0.5, -3.0))
    assert loss.tolist() == [0.5, -6.0]
    loss.sum().backward()
    assert logprobs.grad.tolist() == [-0.5, 3.0]


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


def test_ppo_clip_on_policy_has_the_gradient_of_on_policy() -> None:
    logprobs, advantages = t(-0.3, -2.0, grad=True), t(0.7, -1.1)
    clipped = torch.autograd.grad(ppo_clip(logprobs, logprobs.detach(), advantages).sum(), logprobs)[0]
    plain = torch.autograd.grad(on_policy(logprobs, advantages).sum(), logprobs)[0]
    assert torch.allclose(clipped, plain)


@pytest.mark.parametrize("loss", [on_policy, lambda lp, adv: ppo_clip(lp, t(-1.0, -1.1, -0.9), adv)])
def test_gradients_are_right(loss) -> None:
    assert torch.autograd.gradcheck(lambda lp: loss(lp, t(0.5, -1.0, 2.0)), (t(-1.05, -1.0, -1.0, grad=True),))


def test_importance_weights_are_truncated_and_carry_no_gradient() -> None:
    logprobs = t(math.log(0.6), math.log(0.3), math.log(0.1), grad=True)
    weights = truncated(logprobs, t(math.log(0.2), math.log(0.3), math.log(0.2)), cap=2.0)
    assert torch.allclose(weights, t(2.0, 1.0, 0.5))
    assert not weights.requires_grad


LENGTHS = torch.tensor([[2, 6, 4], [1, 3, 100]])
SCORED = torch.tensor([[True, True, True], [True, True, False]])


@pytest.mark.parametrize(
    ("mode", "want"),
    [
        ("prompt_tokens", [[1 / 24] * 3, [1 / 8, 1 / 8, 0]]),
        ("batch_tokens", [[1 / 16] * 3, [1 / 16, 1 / 16, 0]]),
        ("sequence_mean", [[1 / 10, 1 / 30, 1 / 20], [1 / 5, 1 / 15, 0]]),
        ("constant", [[1 / 40] * 3, [1 / 40, 1 / 40, 0]]),
    ],
)
def test_aggregation_worked_by_hand(mode: str, want: list[list[float]]) -> None:
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
