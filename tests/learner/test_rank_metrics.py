"""What ranks measured, added up."""

from __future__ import annotations

import math

from morl.learner.policy_rank import PolicyMetrics, policy_metrics
from morl.learner.rank_metrics import add_up
from morl.recipe.schema.algorithm_section import AlgorithmSpec

PARTS = [
    PolicyMetrics(loss=0.5, tokens=3.0, mismatch=0.3, mismatch_max=0.2, microbatches=2.0, grad_norm=1.5, seconds=4.0),
    PolicyMetrics(loss=-0.25, tokens=1.0, mismatch=0.1, mismatch_max=0.1, microbatches=2.0, grad_norm=1.5, seconds=5.0),
]


def test_sums_are_added_and_of_the_rest_the_largest_counts() -> None:
    assert add_up(PARTS) == PolicyMetrics(
        loss=0.25, tokens=4.0, mismatch=0.4, mismatch_max=0.2, microbatches=4.0, grad_norm=1.5, seconds=5.0
    )


def test_a_rank_without_rows_changes_nothing() -> None:
    assert add_up([*PARTS, PolicyMetrics(grad_norm=1.5)]) == add_up(PARTS)


def test_a_norm_that_is_not_finite_is_a_skipped_step() -> None:
    spoiled = add_up([PolicyMetrics(grad_norm=norm) for norm in (math.nan, math.nan)])
    assert (spoiled.skipped, add_up(PARTS).skipped) == (1.0, 0.0)


def test_metrics_are_means_over_tokens_and_tell_of_what_the_recipe_has() -> None:
    plain = policy_metrics(add_up(PARTS), AlgorithmSpec())
    assert (plain["policy/logprob_mismatch"], plain["policy/logprob_mismatch_max"]) == (0.1, 0.2)
    with_kl = policy_metrics(add_up(PARTS), AlgorithmSpec.model_validate({"kl": {"coef": 0.1}}))
    assert with_kl.keys() - plain.keys() == {"policy/kl"}
