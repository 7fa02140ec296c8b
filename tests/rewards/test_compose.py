"""The mixture: in [0, 1] whatever the terms say, with the shares that the recipe names."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morl.recipe.schema.objective_section import TermSpec
from morl.rewards.compose import combine_terms, mixed, scaled
from morl.types import Status, TermScore

unit = st.floats(0, 1)
weights = st.floats(0.01, 100)
values = st.one_of(st.none(), st.floats(-1e6, 1e6))


def term(name: str, **more: object) -> TermSpec:
    return TermSpec.model_validate({"use": "exact", "name": name, **more})


def ok(value: float | None, status: str = "error") -> TermScore:
    return TermScore(value, "ok" if value is not None else status)  # type: ignore[arg-type]


@settings(deadline=None)
@given(st.lists(st.tuples(unit, weights), min_size=1, max_size=6), st.sampled_from(["sum", "product"]))
def test_a_mixture_lies_between_its_terms(terms: list[tuple[float, float]], combine: str) -> None:
    result = mixed([v for v, _ in terms], [w for _, w in terms], combine)  # type: ignore[arg-type]
    assert 0.0 <= result <= 1.0
    if combine == "sum":
        assert min(v for v, _ in terms) - 1e-9 <= result <= max(v for v, _ in terms) + 1e-9


@settings(deadline=None)
@given(st.lists(weights, min_size=1, max_size=6), st.data())
def test_each_term_has_its_share_of_the_sum(shares: list[float], data: st.DataObject) -> None:
    which = data.draw(st.integers(0, len(shares) - 1))
    values = [float(i == which) for i in range(len(shares))]
    assert mixed(values, shares, "sum") == pytest.approx(shares[which] / sum(shares))


@settings(deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(0.001, 1e6))
def test_a_scale_is_straight_and_cut_off(value: float, low: float, width: float) -> None:
    result = scaled(value, (low, low + width))
    assert 0.0 <= result <= 1.0
    if low <= value <= low + width:
        assert result * width + low == pytest.approx(value, abs=1e-6 * max(1.0, abs(low) + width))


@settings(deadline=None)
@given(
    st.lists(st.tuples(values, weights, st.sampled_from(["mask", "zero", "fail"])), min_size=1, max_size=5),
    st.sampled_from(["sum", "product"]),
    st.data(),
)
def test_any_terms_give_a_score_in_range_or_none(
    told: list[tuple[float | None, float, str]], combine: str, data: st.DataObject
) -> None:
    names = [f"t{i}" for i in range(len(told))]
    gates = [
        data.draw(st.none() | st.fixed_dictionaries({"term": st.sampled_from(names), "at_least": st.floats(-2, 2)}))
        for _ in told
    ]
    specs = [
        term(name, weight=weight, on_error=on_error, gate=gate, scale=(-1.0, 1.0))
        for name, (_, weight, on_error), gate in zip(names, told, gates, strict=True)
    ]
    scores = {name: ok(value) for name, (value, _, _) in zip(names, told, strict=True)}
    score = combine_terms(specs, scores, combine)  # type: ignore[arg-type]
    assert score.value is None or 0.0 <= score.value <= 1.0
    assert [score.terms[name].value for name in names] == [value for value, _, _ in told]
    unscored = [s for s in specs if scores[s.name].value is None and score.terms[s.name].status != "gated"]
    assert (score.value is None) == any(s.on_error != "zero" for s in unscored)


def test_none_is_not_zero() -> None:
    specs = [term("a", weight=3), term("b")]
    assert combine_terms(specs, {"a": ok(1.0), "b": ok(0.0)}, "sum").value == 0.75
    assert combine_terms(specs, {"a": ok(1.0), "b": ok(None)}, "sum").value is None
    forgiving = [term("a", weight=3), term("b", on_error="zero")]
    assert combine_terms(forgiving, {"a": ok(1.0), "b": ok(None, "timeout")}, "sum").value == 0.75
    assert combine_terms(forgiving, {"a": ok(1.0), "b": ok(None, "bad_gold")}, "sum").value is None


def test_a_gate_decides_by_the_raw_value_and_leaves_it_to_be_seen() -> None:
    specs = [term("judge", scale=(-10, 10)), term("style", gate={"term": "judge", "at_least": 4.0})]
    below = combine_terms(specs, {"judge": ok(3.9), "style": ok(1.0)}, "sum")
    assert below.value == pytest.approx(0.695 / 2)
    assert (below.terms["style"].value, below.terms["style"].status) == (1.0, "gated")
    assert combine_terms(specs, {"judge": ok(4.0), "style": ok(1.0)}, "sum").value == pytest.approx((0.7 + 1) / 2)
    assert combine_terms(specs, {"judge": ok(3.9), "style": ok(1.0)}, "product").value == 0.0
    # What stands behind a closed gate does not matter, not even that it failed.
    assert combine_terms(specs, {"judge": ok(3.9), "style": ok(None)}, "sum").value == below.value


@dataclass(frozen=True)
class Told:
    """A term of a made-up objective, and what its reward said."""

    spec: TermSpec
    score: TermScore

    def counted(self, by_name: dict[str, TermScore]) -> Fraction | None:
        """What the recipe says that it counts as, from 0 to 1; None is no score."""
        if self.spec.gate is not None:
            value = by_name[self.spec.gate.term].value
            if value is None or value < self.spec.gate.at_least:
                return Fraction(0)
        if self.score.value is None:
            return Fraction(0) if self.spec.on_error == "zero" and self.score.status != "bad_gold" else None
        low, high = map(Fraction, self.spec.scale or (0.0, 1.0))
        return min(Fraction(1), max(Fraction(0), (Fraction(self.score.value) - low) / (high - low)))


STEPS = st.integers(1, 120)
SCALES = st.sampled_from([None, (-1.0, 1.0), (10.0, 0.0), (0.25, 0.75)])
FAILED: st.SearchStrategy[Status] = st.sampled_from(["bad_gold", "timeout", "error"])


@st.composite
def objectives(draw: st.DrawFn) -> list[Told]:
    names = [f"t{i}" for i in range(draw(st.integers(1, 4)))]
    told = []
    for name in names:
        keys: dict[str, object] = {"scale": draw(SCALES), "on_error": draw(st.sampled_from(["mask", "zero", "fail"]))}
        if draw(st.booleans()):
            keys["gate"] = {"term": draw(st.sampled_from(names)), "at_least": draw(st.floats(-1, 1))}
        if draw(st.booleans()):
            keys["schedule"] = {"weight": {0: draw(weights), 100: draw(weights)}}
            if "gate" in keys:
                keys["schedule"]["gate"] = {0: draw(st.floats(-1, 1)), 100: keys["gate"]["at_least"]}
        else:
            keys["weight"] = draw(weights)
        value = draw(st.none() | st.floats(-12, 12))
        told.append(Told(term(name, **keys), ok(value, draw(FAILED))))
    return told


@settings(max_examples=200, deadline=None)
@given(objectives(), STEPS, st.sampled_from(["sum", "product"]))
def test_an_objective_counts_as_its_recipe_says(
    objective: list[Told], step: int, combine: Literal["sum", "product"]
) -> None:
    now = [Told(told.spec.at(step), told.score) for told in objective]
    by_name = {told.spec.name: told.score for told in now}
    score = combine_terms([told.spec for told in now], by_name, combine)
    counted = [told.counted(by_name) for told in now]
    if None in counted:
        assert score.value is None
        return
    shares = [Fraction(told.spec.weight) for told in now]
    if combine == "sum":
        expected = float(sum(s * c for s, c in zip(shares, counted, strict=True)) / sum(shares))
    else:
        expected = 1.0
        for share, value in zip(shares, counted, strict=True):
            expected *= float(value) ** float(share)
    assert score.value == pytest.approx(expected, abs=1e-12)
    assert 0.0 <= score.value <= 1.0


@settings(deadline=None)
@given(st.lists(st.tuples(unit, weights), min_size=1, max_size=5), unit, STEPS, weights, weights)
def test_a_term_moves_the_score_by_its_share_of_the_step(
    others: list[tuple[float, float]], low: float, step: int, first: float, last: float
) -> None:
    moving = term("m", schedule={"weight": {0: first, 100: last}}).at(step)
    weight = first + (last - first) * min(step, 100) / 100
    assert moving.weight == pytest.approx(weight)
    specs = [moving, *(term(f"t{i}", weight=w) for i, (_, w) in enumerate(others))]
    said = {f"t{i}": ok(v) for i, (v, _) in enumerate(others)}
    below, above = (combine_terms(specs, {**said, "m": ok(value)}, "sum").value for value in (low, 1.0))
    assert above - below == pytest.approx(weight / (weight + sum(w for _, w in others)) * (1.0 - low), abs=1e-9)
    halved = [combine_terms(specs, {**said, "m": ok(value)}, "product").value for value in (0.5, 1.0)]
    assert halved[0] == pytest.approx(halved[1] * 0.5**weight, abs=1e-12)


largest = sys.float_info.max
any_weight = st.floats(0, largest, exclude_min=True)


@settings(deadline=None)
@given(st.lists(st.tuples(unit, any_weight), min_size=1, max_size=6), st.sampled_from(["sum", "product"]))
def test_no_weight_is_too_large_or_too_small(terms: list[tuple[float, float]], combine: str) -> None:
    values = [value for value, _ in terms]
    result = mixed(values, [weight for _, weight in terms], combine)  # type: ignore[arg-type]
    assert 0.0 <= result <= 1.0
    if combine == "sum":
        assert min(values) - 1e-9 <= result <= max(values) + 1e-9


@settings(deadline=None)
@given(st.floats(-largest / 4, largest / 4), st.floats(-largest / 4, largest / 4), st.floats(-largest, largest))
def test_no_scale_leaves_the_range(low: float, high: float, value: float) -> None:
    if low != high:
        assert 0.0 <= scaled(value, (low, high)) <= 1.0
        assert (scaled(low, (low, high)), scaled(high, (low, high))) == (0.0, 1.0)


def test_a_scale_that_no_number_spans_is_refused() -> None:
    with pytest.raises(ValueError, match="closer together"):
        term("t", scale=(-largest, largest))
