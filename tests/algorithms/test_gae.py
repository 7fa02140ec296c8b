from __future__ import annotations

import functools
import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from morl.algorithms.gae import gae as gae_and_normalise

gae = functools.partial(gae_and_normalise, normalise=False)


def t(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def mask(*rows: tuple[int, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.bool)


def test_worked_by_hand() -> None:
    # d_2 = 1 - 0.6, d_1 = 0.5 * 0.6 - 0.4, d_0 = 0.5 * 0.4 - 0.2; each later advantage counts 0.5 * 0.8
    got, returns = gae(t((0.0, 0.0, 1.0)), t((0.2, 0.4, 0.6)), mask((1, 1, 1)), discount=0.5, trace=0.8)
    last = 0.4
    middle = -0.1 + 0.4 * last
    first = 0.0 + 0.4 * middle
    assert torch.allclose(got, t((first, middle, last)))
    assert torch.allclose(returns, t((first + 0.2, middle + 0.4, last + 0.6)))


def test_trace_one_is_the_return_less_the_value() -> None:
    rewards, values = t((0.1, -0.2, 0.3, 1.0)), t((0.5, 0.4, -0.1, 0.2))
    got, returns = gae(rewards, values, mask((1, 1, 1, 1)), discount=0.9, trace=1.0)
    want = [sum(0.9 ** (s - i) * float(rewards[0, s]) for s in range(i, 4)) for i in range(4)]
    assert torch.allclose(returns, t(tuple(want)))
    assert torch.allclose(got, returns - values)


def test_trace_zero_is_the_error_of_one_step() -> None:
    got, _ = gae(t((0.0, 0.5, 1.0)), t((0.2, 0.4, 0.6)), mask((1, 1, 1)), trace=0.0)
    assert torch.allclose(got, t((0.4 - 0.2, 0.5 + 0.6 - 0.4, 1.0 - 0.6)))


def test_a_perfect_critic_leaves_no_advantage() -> None:
    got, _ = gae(t((0.0, 0.0, 1.0)), t((1.0, 1.0, 1.0)), mask((1, 1, 1)), discount=1.0, trace=0.95)
    assert got.abs().max() == 0


def test_what_the_policy_did_not_write_is_passed_over() -> None:
    rewards, values = t((0.1, 7.0, 0.3, math.nan)), t((0.5, math.nan, -0.1, 3.0))
    got, returns = gae(rewards, values, mask((1, 0, 1, 0)), discount=0.9, trace=0.8)
    plain, plain_returns = gae(t((0.1, 0.3)), t((0.5, -0.1)), mask((1, 1)), discount=0.9, trace=0.8)
    assert torch.equal(got, t((float(plain[0, 0]), 0.0, float(plain[0, 1]), 0.0)))
    assert torch.equal(returns, t((float(plain_returns[0, 0]), 0.0, float(plain_returns[0, 1]), 0.0)))


def test_rows_do_not_know_of_each_other() -> None:
    rewards, values = t((0.1, 0.2, 0.3), (1.0, 0.0, 9.0)), t((0.5, 0.4, 0.1), (0.3, 0.9, 9.0))
    masks = mask((1, 1, 1), (1, 1, 0))
    both, _ = gae(rewards, values, masks)
    for b in range(2):
        assert torch.equal(both[b : b + 1], gae(rewards[b : b + 1], values[b : b + 1], masks[b : b + 1])[0])


def test_neither_values_nor_rewards_get_a_gradient() -> None:
    values = t((0.2, 0.4)).requires_grad_()
    got, returns = gae(t((0.0, 1.0)), values, mask((1, 1)))
    assert not got.requires_grad
    assert not returns.requires_grad


def test_no_tokens_have_no_advantages() -> None:
    empty = torch.zeros(2, 0)
    assert gae(empty, empty, empty.bool())[0].shape == (2, 0)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.booleans()), min_size=1, max_size=6),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_equals_the_double_sum(tokens: list[tuple[float, float, bool]], discount: float, trace: float) -> None:
    got, returns = gae(
        t(tuple(r for r, _, _ in tokens)),
        t(tuple(v for _, v, _ in tokens)),
        mask(tuple(m for _, _, m in tokens)),
        discount=discount,
        trace=trace,
    )
    own = [(r, v) for r, v, m in tokens if m]
    values = [v for _, v in own] + [0.0]
    errors = [r + discount * values[i + 1] - v for i, (r, v) in enumerate(own)]
    want = [sum((discount * trace) ** (s - i) * errors[s] for s in range(i, len(own))) for i in range(len(own))]
    written = [i for i, (_, _, m) in enumerate(tokens) if m]
    assert np.allclose(got[0, written].numpy(), want, atol=1e-12)
    assert np.allclose(returns[0, written].numpy(), np.add(want, values[:-1]), atol=1e-12)
    passed_over = [i for i, (_, _, m) in enumerate(tokens) if not m]
    assert not got[0, passed_over].any()
    assert not returns[0, passed_over].any()
