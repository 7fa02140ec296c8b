from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from morl.algorithms.ema_std import ema_std
from morl.algorithms.gdpo import gdpo
from morl.algorithms.group_mean import group_mean
from morl.algorithms.group_std import group_std
from morl.algorithms.mo_grpo import mo_grpo
from morl.algorithms.reinforce_plus_plus import reinforce_plus_plus
from morl.algorithms.rloo import rloo
from morl.registry import ADVANTAGES, LOSSES, options_model

NONE = math.nan
Rows = list[list[float | None]]


def tensor(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


def flat(values: list[float]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def rewards_of(rows: Rows) -> torch.Tensor:
    return torch.tensor([[NONE if r is None else r for r in row] for row in rows], dtype=torch.float64)


def batch_mean(rewards_PG: torch.Tensor) -> torch.Tensor:
    return reinforce_plus_plus(rewards_PG, baseline="batch")


def batch_std(rewards_PG: torch.Tensor) -> torch.Tensor:
    return reinforce_plus_plus(rewards_PG, baseline="group")


def ema(rewards_PG: torch.Tensor) -> torch.Tensor:
    return ema_std(rewards_PG, torch.zeros(len(rewards_PG), dtype=torch.long), {})[0]


def one_term(function: Callable[..., torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """An advantage of terms, on an objective whose only term is the reward itself."""
    return lambda rewards_PG: function(rewards_PG, rewards_PG.unsqueeze(-1), torch.ones(len(rewards_PG), 1).double())


EVERY = {
    "group_std": group_std,
    "group_mean": group_mean,
    "rloo": rloo,
    "reinforce_plus_plus": batch_mean,
    "reinforce_plus_plus, group": batch_std,
    "ema_std": ema,
    "gdpo": one_term(gdpo),
    "mo_grpo": one_term(mo_grpo),
}
RELATIVE = {name: function for name, function in EVERY.items() if function is not batch_mean}
"""Those that compare a sample with its own group alone."""
every = pytest.mark.parametrize("advantage", EVERY.values(), ids=EVERY)
relative = pytest.mark.parametrize("advantage", RELATIVE.values(), ids=RELATIVE)
batches = st.lists(
    st.lists(st.one_of(st.none(), st.sampled_from([0.0, 1.0, 0.1]), st.floats(0, 1)), min_size=3, max_size=3),
    min_size=1,
    max_size=4,
)


# What every advantage keeps.


@every
@settings(max_examples=50, deadline=None)
@given(rows=batches)
def test_always_finite_and_zero_without_a_score(advantage: Callable[..., torch.Tensor], rows: Rows) -> None:
    rewards = rewards_of(rows)
    got = advantage(rewards)
    assert got.shape == rewards.shape
    assert got.dtype == torch.float64
    assert bool(got.isfinite().all())
    assert bool((got[rewards.isnan()] == 0).all())


@every
def test_does_not_touch_what_it_is_given(advantage: Callable[..., torch.Tensor]) -> None:
    rewards = tensor((1.0, NONE, 0.25), (0.5, 0.0, 1.0))
    before = rewards.clone()
    advantage(rewards)
    assert torch.equal(rewards.nan_to_num(-1.0), before.nan_to_num(-1.0))


@every
@settings(max_examples=50, deadline=None)
@given(rows=batches, order=st.permutations(range(3)))
def test_the_order_of_samples_does_not_matter(
    advantage: Callable[..., torch.Tensor], rows: Rows, order: list[int]
) -> None:
    rewards = rewards_of(rows)
    assert torch.allclose(advantage(rewards)[:, order], advantage(rewards[:, order]), atol=1e-6)


@every
@settings(max_examples=50, deadline=None)
@given(rows=batches)
def test_samples_without_a_score_change_nothing(advantage: Callable[..., torch.Tensor], rows: Rows) -> None:
    rewards = rewards_of(rows)
    nothing_G = torch.full_like(rewards[:, :1], NONE)
    nothing_P = torch.full((1, rewards.shape[1] + 1), NONE, dtype=torch.float64)
    wider = torch.cat([torch.cat([nothing_G, rewards], dim=1), nothing_P])
    assert torch.allclose(advantage(wider)[:-1, 1:], advantage(rewards), atol=1e-9)


@every
@settings(max_examples=50, deadline=None)
@given(rows=batches, shift=st.floats(-1, 1))
def test_a_shift_of_all_rewards_changes_nothing(
    advantage: Callable[..., torch.Tensor], rows: Rows, shift: float
) -> None:
    rewards = rewards_of([[None if r is None else round(r, 3) for r in row] for row in rows])
    assert torch.allclose(advantage(rewards), advantage(rewards + shift), atol=1e-6)


@every
def test_a_better_reward_has_the_larger_advantage(advantage: Callable[..., torch.Tensor]) -> None:
    got = advantage(tensor((0.1, 0.7, 0.4, 0.2), (1.0, 0.0, 0.5, 0.75)))
    assert got[0].argsort().tolist() == [0, 3, 2, 1]
    assert got[1].argsort().tolist() == [1, 2, 3, 0]


@relative
def test_equal_rewards_are_exactly_zero_beside_a_group_with_signal(advantage: Callable[..., torch.Tensor]) -> None:
    # The mean of seven times 0.1 is not 0.1 in binary.
    got = advantage(tensor((0.1,) * 7, (0.0, 0.3, 1.0, 0.1, 0.7, 0.2, 0.1), (NONE,) * 7))
    assert got[[0, 2]].abs().max() == 0
    assert got[1].abs().max() > 0.1


@relative
def test_a_single_scored_sample_has_nothing_to_be_compared_with(advantage: Callable[..., torch.Tensor]) -> None:
    assert advantage(tensor((NONE, 0.7, NONE), (0.2, 0.9, 0.4)))[0].tolist() == [0.0, 0.0, 0.0]


@relative
@settings(max_examples=50, deadline=None)
@given(rows=batches)
def test_a_group_adds_up_to_zero(advantage: Callable[..., torch.Tensor], rows: Rows) -> None:
    assert advantage(rewards_of(rows)).sum(dim=1).abs().max() < 1e-9


@every
def test_equal_rewards_everywhere_are_exactly_zero(advantage: Callable[..., torch.Tensor]) -> None:
    assert advantage(tensor((0.1,) * 7, (0.1,) * 7)).abs().max() == 0


# The paper's own.


def test_group_std_worked_by_hand() -> None:
    # mean 0.5, population standard deviation 0.5
    got = group_std(tensor((1.0, 0.0, 1.0, 0.0)), eps=0.0)
    assert got.tolist() == [[1.0, -1.0, 1.0, -1.0]]


def test_a_sample_without_score_is_out_of_the_statistics() -> None:
    with_gap = group_std(tensor((1.0, NONE, 0.0, 0.25)))
    without = group_std(tensor((1.0, 0.0, 0.25)))
    assert with_gap[0, 1] == 0
    assert torch.equal(with_gap[0, [0, 2, 3]], without[0])


@given(batches)
def test_group_std_equals_numpy(rows: Rows) -> None:
    got = group_std(rewards_of(rows), eps=1e-6)
    for p, row in enumerate(rows):
        known = np.array([r for r in row if r is not None])
        for g, reward in enumerate(row):
            flat = reward is None or known.max() == known.min()
            want = 0.0 if flat else (reward - known.mean()) / (known.std() + 1e-6)
            assert math.isclose(float(got[p, g]), want, rel_tol=1e-9, abs_tol=1e-9)


@given(st.lists(st.floats(0, 1), min_size=4, max_size=4), st.floats(0.1, 10), st.floats(-1, 1))
def test_shift_and_scale_of_rewards_change_nothing_in_group_std(
    rewards: list[float], scale: float, shift: float
) -> None:
    if max(rewards) - min(rewards) < 1e-3:
        return
    plain = group_std(tensor(tuple(rewards)), eps=0.0)
    moved = group_std(tensor(tuple(scale * r + shift for r in rewards)), eps=0.0)
    assert torch.allclose(plain, moved, atol=1e-6)


@pytest.mark.parametrize("eps", [0.0, 1e-6])
def test_a_spread_too_small_to_be_squared_is_none(eps: float) -> None:
    assert group_std(tensor((0.0, 1e-200)), eps=eps).tolist() == [[0.0, 0.0]]


# Without a scale.


def test_group_mean_worked_by_hand() -> None:
    assert group_mean(tensor((1.0, 0.0, 0.5, NONE))).tolist() == [[0.5, -0.5, 0.0, 0.0]]


def test_rloo_worked_by_hand() -> None:
    # 1 - (0 + 0.5) / 2, 0 - (1 + 0.5) / 2, 0.5 - (1 + 0) / 2
    assert rloo(tensor((1.0, 0.0, 0.5, NONE))).tolist() == [[0.75, -0.75, 0.0, 0.0]]


@settings(deadline=None)
@given(batches)
def test_rloo_equals_its_definition(rows: Rows) -> None:
    got = rloo(rewards_of(rows))
    for p, row in enumerate(rows):
        for g, reward in enumerate(row):
            others = [r for h, r in enumerate(row) if h != g and r is not None]
            want = 0.0 if reward is None or not others else reward - sum(others) / len(others)
            assert math.isclose(float(got[p, g]), want, abs_tol=1e-12)


# On the scale of the batch.


def test_reinforce_plus_plus_worked_by_hand() -> None:
    # batch mean 0.5, standard deviation 0.5
    got = reinforce_plus_plus(tensor((1.0, 1.0), (0.0, 0.0)), eps=0.0)
    assert got.tolist() == [[1.0, 1.0], [-1.0, -1.0]]


def test_reinforce_plus_plus_with_a_group_baseline_worked_by_hand() -> None:
    # distances 0.5, -0.5, 0, 0 and 0.1, -0.1, NONE, NONE: mean square 0.52 / 6
    got = reinforce_plus_plus(tensor((1.0, 0.0, 0.5, 0.5), (0.9, 0.7, NONE, NONE)), baseline="group", eps=0.0)
    sigma = math.sqrt(0.52 / 6)
    want = tensor((0.5 / sigma, -0.5 / sigma, 0, 0), (0.1 / sigma, -0.1 / sigma, 0, 0))
    assert torch.allclose(got, want)


@settings(deadline=None)
@given(batches, st.sampled_from(["batch", "group"]))
def test_reinforce_plus_plus_equals_numpy(rows: Rows, baseline: str) -> None:
    got = reinforce_plus_plus(rewards_of(rows), baseline=baseline, eps=1e-3)
    known = [r for row in rows for r in row if r is not None]
    distances = []
    for row in rows:
        of = [r for r in row if r is not None] if baseline == "group" else known
        distances += [r - np.mean(of) for r in row if r is not None]
    sigma = np.std(distances) if distances else 0.0
    want = iter(d / (sigma + 1e-3) for d in distances)
    for p, row in enumerate(rows):
        for g, reward in enumerate(row):
            assert math.isclose(float(got[p, g]), 0.0 if reward is None else next(want), abs_tol=1e-9)


# From several terms.

TERMS = torch.tensor(
    [  # a sparse term and a dense one; then an objective with one term only
        [[1.0, 0.2], [0.0, 0.4], [0.0, 0.4], [0.0, 0.6]],
        [[1.0, NONE], [0.0, NONE], [1.0, NONE], [0.0, NONE]],
    ],
    dtype=torch.float64,
)
WEIGHTS = tensor((1.0, 1.0), (1.0, 0.0))
MIXED = tensor((0.6, 0.2, 0.2, 0.3), (1.0, 0.0, 1.0, 0.0))
SPARSE = [math.sqrt(3), -1 / math.sqrt(3), -1 / math.sqrt(3), -1 / math.sqrt(3)]  # (x - 0.25) / sqrt(0.1875)
DENSE = [-math.sqrt(2), 0.0, 0.0, math.sqrt(2)]  # (x - 0.4) / sqrt(0.02)


def test_mo_grpo_worked_by_hand() -> None:
    got = mo_grpo(MIXED, TERMS, WEIGHTS, eps=0.0)
    assert torch.allclose(got[0], flat(SPARSE) + flat(DENSE))
    assert torch.allclose(got[1], tensor((1.0, -1.0, 1.0, -1.0))[0])


def test_gdpo_worked_by_hand() -> None:
    sums = [(s + d) / 2 for s, d in zip(SPARSE, DENSE, strict=True)] + [1.0, -1.0, 1.0, -1.0]
    sigma = np.std(sums)
    assert abs(np.mean(sums)) < 1e-12
    want = flat(sums).view(2, 4) / sigma
    assert torch.allclose(gdpo(MIXED, TERMS, WEIGHTS, eps=0.0), want)


def test_gdpo_keeps_apart_what_a_sum_of_rewards_confuses() -> None:
    # The second answer alone satisfies the second term.
    terms = flat([1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0]).view(1, 4, 2)
    rewards = terms.mean(dim=-1)
    assert group_std(rewards)[0, 0] == group_std(rewards)[0, 1]
    got = gdpo(rewards, terms, tensor((1.0, 1.0)))
    assert got[0, 1] > got[0, 0] > got[0, 3]


@pytest.mark.parametrize("advantage", [gdpo, mo_grpo])
def test_weights_count_relative_to_each_other(advantage: Callable[..., torch.Tensor]) -> None:
    plain = advantage(MIXED, TERMS, tensor((3.0, 1.0), (1.0, 0.0)))
    for scale in (0.25, 1e308):
        assert torch.allclose(advantage(MIXED, TERMS, tensor((scale, scale / 3), (scale, 0.0))), plain)
    assert torch.allclose(advantage(MIXED, TERMS, tensor((3.0, 1.0), (1.0, NONE))), plain)
    assert not torch.allclose(advantage(MIXED, TERMS, WEIGHTS), plain)


@pytest.mark.parametrize("advantage", [gdpo, mo_grpo])
def test_scale_and_shift_of_a_term_change_nothing(advantage: Callable[..., torch.Tensor]) -> None:
    plain = advantage(MIXED, TERMS, WEIGHTS, eps=0.0)
    moved = TERMS * flat([0.01, 7.0]) + flat([0.5, -2.0])
    assert torch.allclose(advantage(MIXED, moved, WEIGHTS, eps=0.0), plain)


@pytest.mark.parametrize("advantage", [gdpo, mo_grpo])
def test_terms_of_a_sample_without_a_score_are_not_read(advantage: Callable[..., torch.Tensor]) -> None:
    rewards = tensor((0.6, NONE, 0.2, 0.3))
    terms, weights = TERMS[:1].clone(), WEIGHTS[:1]
    got = advantage(rewards, terms, weights)
    terms[0, 1] = torch.tensor([1.0, NONE])
    assert torch.equal(advantage(rewards, terms, weights), got)
    assert got[0, 1] == 0
    assert torch.allclose(got[:, [0, 2, 3]], advantage(rewards[:, [0, 2, 3]], terms[:, [0, 2, 3]], weights))


@pytest.mark.parametrize("advantage", [gdpo, mo_grpo])
def test_a_term_without_a_value_says_nothing_of_a_scored_sample(advantage: Callable[..., torch.Tensor]) -> None:
    terms = TERMS[:1].clone()
    terms[0, 0, 1] = NONE
    got = advantage(MIXED[:1], terms, tensor((1.0, 1.0)), eps=0.0)
    # The dense term is 0.4, 0.4, 0.6 among the others.
    dense = [0.0, -1 / math.sqrt(2), -1 / math.sqrt(2), math.sqrt(2)]
    want = flat([s + d for s, d in zip(SPARSE, dense, strict=True)])
    assert torch.allclose(got[0] / got[0, 0], want / want[0])


@pytest.mark.parametrize("advantage", [gdpo, mo_grpo])
def test_an_objective_without_terms_has_no_advantage(advantage: Callable[..., torch.Tensor]) -> None:
    nothing = torch.full_like(TERMS, NONE)
    assert advantage(MIXED, nothing, torch.zeros_like(WEIGHTS)).abs().max() == 0


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=3, max_size=3), min_size=1, max_size=3),
    st.tuples(st.floats(0.1, 5), st.floats(0.1, 5)),
)
def test_terms_equal_numpy(values: list[list[tuple[float, float]]], weights: tuple[float, float]) -> None:
    terms = np.array(values)
    z = (terms - terms.mean(axis=1, keepdims=True)) / (terms.std(axis=1, keepdims=True) + 1e-2)
    sums = (z * np.array(weights)).sum(axis=-1) / sum(weights)
    given_ = (torch.zeros(terms.shape[:2]), torch.tensor(terms), tensor(*[weights] * len(terms)))
    assert np.allclose(mo_grpo(*given_, eps=1e-2).numpy(), sums * 2, atol=1e-9)
    assert np.allclose(gdpo(*given_, eps=1e-2).numpy(), sums / (sums.std() + 1e-2), atol=1e-9)


# With a memory.


def test_ema_std_worked_by_hand() -> None:
    objectives = torch.tensor([0, 1])
    first, state = ema_std(tensor((1.0, 0.0), (0.4, 0.6)), objectives, {})
    # sigma is 0.5 and 0.1: the objectives weigh alike
    assert torch.allclose(first, tensor((1.0, -1.0), (-1.0, 1.0)))
    second, state = ema_std(tensor((1.0, 1.0, 1.0, 0.0), (NONE,) * 4), objectives, state)
    mean, square = 0.99 * 0.5 + 0.01 * 0.75, 0.99 * 0.5 + 0.01 * 0.75
    sigma = math.sqrt(square - mean**2)
    assert torch.allclose(second[0], tensor((0.25, 0.25, 0.25, -0.75))[0] / sigma)
    assert math.isclose(state["0"]["mean"], mean)
    assert math.isclose(state["0"]["variance"], sigma**2)
    assert math.isclose(state["1"]["variance"], 0.01)  # no score of it in the second batch


def test_ema_std_clips() -> None:
    objectives = torch.tensor([0])
    _, state = ema_std(tensor((0.5, 0.5, 0.51, 0.49)), objectives, {})
    got, _ = ema_std(tensor((1.0, *[0.5] * 15)), objectives, state, clip=3.0)
    assert got[0, 0] == 3.0
    assert -3.0 < float(got[0, 1]) < 0
    got, _ = ema_std(tensor((0.0, *[0.5] * 15)), objectives, state, clip=3.0)
    assert got[0, 0] == -3.0


def test_ema_std_of_an_objective_that_never_varied_starts_at_the_least_spread() -> None:
    got, state = ema_std(tensor((0.1, 0.1, 0.1)), torch.tensor([3]), {}, min_std=0.5)
    assert got.tolist() == [[0.0, 0.0, 0.0]]
    again, _ = ema_std(tensor((0.1, 0.1, 0.4)), torch.tensor([3]), state, min_std=0.5, decay=0.999)
    assert torch.allclose(again, tensor((-0.2, -0.2, 0.4)))


def test_the_state_of_ema_std_is_plain_json_and_left_as_it_was() -> None:
    rewards, objectives = tensor((1.0, 0.0, 0.3), (0.2, 0.9, 0.4)), torch.tensor([0, 12])
    _, state = ema_std(rewards, objectives, {})
    kept = json.dumps(state)
    direct = ema_std(rewards + 0.01, objectives, state)
    assert json.dumps(state) == kept
    resumed = ema_std(rewards + 0.01, objectives, json.loads(kept))
    assert torch.equal(direct[0], resumed[0])
    assert direct[1] == resumed[1]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=1, max_size=6), st.floats(0, 0.999))
def test_ema_std_equals_moving_moments(batches_: list[list[float]], decay: float) -> None:
    state: dict[str, object] = {}
    first = second = None
    for row in batches_:
        got, state = ema_std(tensor(tuple(row)), torch.tensor([0]), state, decay=decay, min_std=1e-2)
        mean, square = np.mean(row), np.mean(np.square(row))
        first = mean if first is None else decay * first + (1 - decay) * mean
        second = square if second is None else decay * second + (1 - decay) * square
        sigma = max(math.sqrt(max(0.0, second - first**2)), 1e-2)
        assert np.allclose(got[0].numpy(), np.clip((np.array(row) - mean) / sigma, -5, 5), atol=1e-6)


# How they are found.

POINTS = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "entry-points"
]


@pytest.mark.parametrize(
    ("kind", "name", "target"),
    [(kind, *item) for kind in ("advantages", "losses") for item in POINTS[f"morl.{kind}"].items()],
)
def test_an_entry_point_leads_to_the_function_of_that_name(kind: str, name: str, target: str) -> None:
    module, attribute = target.split(":")
    function = getattr(import_module(module), attribute)
    registry = ADVANTAGES if kind == "advantages" else LOSSES
    assert registry.load(name) is function
    assert function.__doc__
    options_model(function)()  # every option has a default that fits it


def test_every_algorithm_has_an_entry_point() -> None:
    for file in (Path(__file__).parents[2] / "morl" / "algorithms").glob("*.py"):
        if file.stem != "__init__":
            import_module(f"morl.algorithms.{file.stem}")
    own = {entry.name for entry in ADVANTAGES._decorated.values() if entry.target.startswith("morl.")}
    assert own == set(POINTS["morl.advantages"])
    own = {entry.name for entry in LOSSES._decorated.values() if entry.target.startswith("morl.")}
    assert own == set(POINTS["morl.losses"])
