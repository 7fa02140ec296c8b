"""The mixture: in [0, 1] whatever the terms say, with the shares that the recipe names."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morl.recipe import TermSpec
from morl.rewards.compose import compose, mixed, scaled
from morl.types import TermScore

unit = st.floats(0, 1)
weights = st.floats(0.01, 100)
values = st.one_of(st.none(), st.floats(-1e6, 1e6))


def term(name: str, **more: object) -> TermSpec:
    return TermSpec.model_validate({"use": "exact", "name": name, **more})


def ok(value: float | None, status: str = "error") -> TermScore:
    return TermScore(value, "ok" if value is not None else status)  # type: ignore[arg-type]


@given(st.lists(st.tuples(unit, weights), min_size=1, max_size=6), st.sampled_from(["sum", "product"]))
def test_a_mixture_lies_between_its_terms(terms: list[tuple[float, float]], combine: str) -> None:
    result = mixed([v for v, _ in terms], [w for _, w in terms], combine)  # type: ignore[arg-type]
    assert 0.0 <= result <= 1.0
    if combine == "sum":
        assert min(v for v, _ in terms) - 1e-9 <= result <= max(v for v, _ in terms) + 1e-9


@given(st.lists(weights, min_size=1, max_size=6), st.data())
def test_each_term_has_its_share_of_the_sum(shares: list[float], data: st.DataObject) -> None:
    which = data.draw(st.integers(0, len(shares) - 1))
    values = [float(i == which) for i in range(len(shares))]
    assert mixed(values, shares, "sum") == pytest.approx(shares[which] / sum(shares))


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6), st.floats(0.001, 1e6))
def test_a_scale_is_straight_and_cut_off(value: float, low: float, width: float) -> None:
    result = scaled(value, (low, low + width))
    assert 0.0 <= result <= 1.0
    if low <= value <= low + width:
        assert result * width + low == pytest.approx(value, abs=1e-6 * max(1.0, abs(low) + width))


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
    score = compose(specs, scores, combine)  # type: ignore[arg-type]
    assert score.value is None or 0.0 <= score.value <= 1.0
    assert [score.terms[name].value for name in names] == [value for value, _, _ in told]
    unscored = [s for s in specs if scores[s.name].value is None and score.terms[s.name].status != "gated"]
    assert (score.value is None) == any(s.on_error != "zero" for s in unscored)


def test_none_is_not_zero() -> None:
    specs = [term("a", weight=3), term("b")]
    assert compose(specs, {"a": ok(1.0), "b": ok(0.0)}, "sum").value == 0.75
    assert compose(specs, {"a": ok(1.0), "b": ok(None)}, "sum").value is None
    forgiving = [term("a", weight=3), term("b", on_error="zero")]
    assert compose(forgiving, {"a": ok(1.0), "b": ok(None, "timeout")}, "sum").value == 0.75
    assert compose(forgiving, {"a": ok(1.0), "b": ok(None, "bad_gold")}, "sum").value is None


def test_a_gate_decides_by_the_raw_value_and_leaves_it_to_be_seen() -> None:
    specs = [term("judge", scale=(-10, 10)), term("style", gate={"term": "judge", "at_least": 4.0})]
    below = compose(specs, {"judge": ok(3.9), "style": ok(1.0)}, "sum")
    assert below.value == pytest.approx(0.695 / 2)
    assert (below.terms["style"].value, below.terms["style"].status) == (1.0, "gated")
    assert compose(specs, {"judge": ok(4.0), "style": ok(1.0)}, "sum").value == pytest.approx((0.7 + 1) / 2)
    assert compose(specs, {"judge": ok(3.9), "style": ok(1.0)}, "product").value == 0.0
    # What stands behind a closed gate does not matter, not even that it failed.
    assert compose(specs, {"judge": ok(3.9), "style": ok(None)}, "sum").value == below.value
