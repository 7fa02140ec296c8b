"""The learner on real DeepSpeed ranks: the layout of the hardware never changes the update."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from learner_groups import make_groups
from safetensors.torch import load_file

from morl.cluster import Cluster
from morl.learner import Learner
from morl.learner.policy import PolicySettings
from morl.recipe import AlgorithmSpec, ClusterSpec, LearnerSpec

STEPS = 2


def start(model: Path, **learner: object) -> Learner:
    settings = PolicySettings(
        model=model,
        dtype="float32",
        # A large epsilon-free Adam turns rounding noise of zero gradients into steps; no momentum of signs here.
        learner=LearnerSpec(lr=1e-3, **learner),
        algorithm=AlgorithmSpec(),
        temperature=0.9,
        banned_token_ids=(),
        seed=0,
    )
    return Learner.start(settings, Cluster(ClusterSpec(), local=False), total_steps=STEPS, max_new_tokens=8)


def after_steps(model: Path, folder: Path, **learner: object) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    made = start(model, **learner)
    try:
        metrics = [made.step(made.batch(make_groups(step))) for step in range(STEPS)]
        made.publish(folder)
    finally:
        made.close()
    return load_file(folder / "model.safetensors"), metrics


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], origin: dict[str, torch.Tensor]) -> float:
    """How far two results of an update lie apart, as a share of how far it went."""
    apart = sum(float((one[name] - other[name]).square().sum()) for name in one)
    went = sum(float((one[name] - origin[name]).square().sum()) for name in one)
    return (apart / went) ** 0.5


@pytest.fixture(scope="module")
def reference(ray_cluster, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory):
    return after_steps(tiny_model, tmp_path_factory.mktemp("reference") / "w")


@pytest.mark.parametrize(
    "layout",
    [
        {"tokens_per_microbatch": 64},
        {"ranks": 2, "zero": 0},
        {"ranks": 2, "zero": 2, "tokens_per_microbatch": 64},
        {"ranks": 2, "zero": 3},
    ],
    ids=str,
)
def test_layout_never_changes_the_update(reference, tiny_model: Path, tmp_path: Path, layout: dict[str, int]) -> None:
    weights, metrics = after_steps(tiny_model, tmp_path / "w", **layout)
    origin = load_file(tiny_model / "model.safetensors")
    # Adam divides by the gradient's size, so that rounding moves the weights with next to no gradient too.
    assert distance(weights, reference[0], origin) < 0.02
    for ours, theirs in zip(metrics, reference[1], strict=True):
        for name in ("learner/loss", "learner/grad_norm", "policy/entropy", "policy/logprob_mismatch"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-6), name


def test_the_update_moves_the_weights(reference, tiny_model: Path) -> None:
    origin = load_file(tiny_model / "model.safetensors")
    assert not torch.equal(
        reference[0]["model.layers.0.mlp.up_proj.weight"], origin["model.layers.0.mlp.up_proj.weight"]
    )


def test_a_checkpoint_goes_on_bit_for_bit(ray_cluster, tiny_model: Path, tmp_path: Path) -> None:
    learner = start(tiny_model, ranks=2, zero=3)
    learner.step(learner.batch(make_groups(0)))
    learner.save(tmp_path / "state")
    expected = learner.step(learner.batch(make_groups(1)))
    learner.close()
    learner = start(tiny_model, ranks=2, zero=3)
    learner.load(tmp_path / "state", policy_version=1)
    got = learner.step(learner.batch(make_groups(1)))
    learner.close()
    for name in ("learner/loss", "learner/grad_norm", "learner/lr", "policy/entropy"):
        assert got[name] == expected[name]


@pytest.mark.parametrize("zero", [0, 3])
def test_lora_trains_adapters_and_publishes_merged_weights(
    ray_cluster, tiny_model: Path, tmp_path: Path, zero: int
) -> None:
    from morl.model import load_policy

    learner = start(tiny_model, zero=zero, lora={"rank": 4, "alpha": 8})
    try:
        for step in range(STEPS):
            learner.step(learner.batch(make_groups(step)))
        learner.publish(tmp_path / "w")
        again = learner.batch(make_groups(7))
        measured = learner.step(again)
    finally:
        learner.close()
    origin, trained = load_file(tiny_model / "model.safetensors"), load_file(tmp_path / "w" / "model.safetensors")
    assert trained.keys() == origin.keys()
    assert torch.equal(trained["model.embed_tokens.weight"], origin["model.embed_tokens.weight"])
    assert not torch.equal(trained["model.layers.0.mlp.up_proj.weight"], origin["model.layers.0.mlp.up_proj.weight"])

    # What was published is what the adapted model computes.
    from morl.learner.packing import microbatch
    from morl.learner.policy import Policy

    policy = Policy(load_policy(tmp_path / "w", "float32"), temperature=0.9, banned_token_ids=())
    with torch.no_grad():
        logprobs, entropy = policy(microbatch(again, range(again.rows)))
    mismatch = (logprobs - microbatch(again, range(again.rows)).rollout_logprobs_N).abs().mean()
    assert float(mismatch) == pytest.approx(measured["policy/logprob_mismatch"], abs=1e-5)
    assert float(entropy.mean()) == pytest.approx(measured["policy/entropy"], abs=1e-5)


def test_a_dead_rank_is_an_error_that_says_so(ray_cluster, tiny_model: Path) -> None:
    import ray

    from morl.learner.group import LearnerDiedError

    learner = start(tiny_model, ranks=2)
    try:
        ray.kill(learner._ranks._actors[1])
        with pytest.raises(LearnerDiedError, match="step"):
            learner.step(learner.batch(make_groups(0)))
    finally:
        learner.close()
