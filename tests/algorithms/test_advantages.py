from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from morl.algorithms.group_std import group_std

NONE = math.nan


def tensor(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def test_worked_by_hand() -> None:
    # mean 0.5, population standard deviation 0.5
    got = group_std(tensor((1.0, 0.0, 1.0, 0.0)), eps=0.0)
    assert got.tolist() == [[1.0, -1.0, 1.0, -1.0]]


def test_a_sample_without_score_is_out_of_the_statistics() -> None:
    with_gap = group_std(tensor((1.0, NONE, 0.0, 0.25)))
    without = group_std(tensor((1.0, 0.0, 0.25)))
    assert with_gap[0, 1] == 0
    assert torch.equal(with_gap[0, [0, 2, 3]], without[0])


def test_no_signal_is_exactly_zero() -> None:
    # The mean of these is not 0.1 in binary.
    assert group_std(tensor((0.1,) * 7, (NONE,) * 7)).abs().max() == 0


@given(
    st.lists(st.lists(st.one_of(st.none(), st.floats(0, 1)), min_size=3, max_size=3), min_size=1, max_size=4),
)
def test_equals_numpy(rows: list[list[float | None]]) -> None:
    got = group_std(
        torch.tensor([[NONE if r is None else r for r in row] for row in rows], dtype=torch.float64), eps=1e-6
    )
    for p, row in enumerate(rows):
        known = np.array([r for r in row if r is not None])
        for g, reward in enumerate(row):
            flat = reward is None or known.max() == known.min()
            want = 0.0 if flat else (reward - known.mean()) / (known.std() + 1e-6)
            assert math.isclose(float(got[p, g]), want, rel_tol=1e-9, abs_tol=1e-9)


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), st.floats(0.1, 10), st.floats(-1, 1))
def test_shift_and_scale_of_rewards_change_nothing(rewards: list[float], scale: float, shift: float) -> None:
    if max(rewards) - min(rewards) < 1e-3:
        return
    plain = group_std(tensor(tuple(rewards)), eps=0.0)
    moved = group_std(tensor(tuple(scale * r + shift for r in rewards)), eps=0.0)
    assert torch.allclose(plain, moved, atol=1e-6)
