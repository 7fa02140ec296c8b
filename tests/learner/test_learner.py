"""The learner on real DeepSpeed ranks: the layout of the hardware never changes the update."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from learner_groups import clip_prompt, image_prompts, make_groups, make_image_groups
from safetensors.torch import load_file
from tiny import make_tiny_vision_model

from morl.cluster import Cluster
from morl.learner.learner import Learner
from morl.learner.policy import PolicySettings
from morl.model.chat_codec import ChatCodec
from morl.recipe.schema.algorithm_section import AlgorithmSpec
from morl.recipe.schema.learner_section import LearnerSpec
from morl.recipe.schema.machine_sections import ClusterSpec
from morl.types import Group, Score, TermScore

STEPS = 3
TEXT_GROUPS = [make_groups(step) for step in range(STEPS)]


def start(model: Path, **learner: object) -> Learner:
    settings = PolicySettings(
        model=model,
        dtype="float32",
        # Below epsilon Adam makes a full step of the rounding of next to nothing.
        learner=LearnerSpec(lr=1e-3, eps=1e-5, **learner),
        algorithm=AlgorithmSpec(),
        temperature=0.9,
        banned_token_ids=(),
        seed=0,
    )
    # One rank needs no actor; several are processes of Ray's.
    local = settings.learner.ranks == 1
    return Learner.start(settings, Cluster(ClusterSpec(), local=local), total_steps=STEPS, max_new_tokens=8)


def after_steps(
    model: Path, folder: Path, groups: list[list[Group]], **learner: object
) -> tuple[dict[str, torch.Tensor], list[dict[str, float]]]:
    made = start(model, **learner)
    try:
        metrics = [made.step(made.batch(own)) for own in groups]
        made.publish(folder)
    finally:
        made.close()
    return load_file(folder / "model.safetensors"), metrics


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], origin: dict[str, torch.Tensor]) -> float:
    """How far two results of an update lie apart, as a share of how far it went."""
    apart = sum(float((one[name] - other[name]).square().sum()) for name in one)
    went = sum(float((one[name] - origin[name]).square().sum()) for name in one)
    return (apart / went) ** 0.5


LAYOUTS = [
    {"tokens_per_microbatch": 1},
    {"tokens_per_microbatch": 64},
    {"share_prefix": False},
    {"share_prefix": False, "tokens_per_microbatch": 64},
    {"ranks": 2, "zero": 0},
    {"zero": 1},
    {"ranks": 2, "zero": 2, "tokens_per_microbatch": 64},
    {"ranks": 2, "zero": 3, "share_prefix": False},
    {"ranks": 2, "zero": 3, "tokens_per_microbatch": 1},  # a rank without an image beside one that has some
    {"activation_checkpointing": True},
]


NARROW_HEADS = {
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 10000.0},
}


@pytest.fixture(scope="module")
def vision_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With more and narrower heads than vLLM on the CPU takes, and several keys to share."""
    return make_tiny_vision_model(tmp_path_factory.mktemp("models") / "vision", seed=0, text=NARROW_HEADS)


@pytest.fixture(scope="module")
def image_groups(vision_model: Path) -> list[list[Group]]:
    codec = ChatCodec.load(vision_model, 512)
    prompts = [[*image_prompts(step), clip_prompt(step)] for step in range(STEPS)]
    return [make_image_groups(codec, step, prompts=own) for step, own in enumerate(prompts)]


@pytest.fixture(scope="module")
def reference(ray_cluster, tiny_model: Path, vision_model: Path, image_groups, tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    return {
        "text": after_steps(tiny_model, folder / "text", TEXT_GROUPS),
        "images": after_steps(vision_model, folder / "images", image_groups),
    }


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize("kind", ["text", "images"])
def test_layout_never_changes_the_update(
    reference, image_groups, tiny_model: Path, vision_model: Path, tmp_path: Path, kind: str, layout: dict[str, int]
) -> None:
    model, groups = {"text": (tiny_model, TEXT_GROUPS), "images": (vision_model, image_groups)}[kind]
    weights, metrics = after_steps(model, tmp_path / "w", groups, **layout)
    expected, expected_metrics = reference[kind]
    apart = distance(weights, expected, load_file(model / "model.safetensors"))
    print(f"{kind:9} {layout!s:70} {apart:.1e}")
    assert apart < 1e-5
    for ours, theirs in zip(metrics, expected_metrics, strict=True):
        for name in ("learner/loss", "learner/grad_norm", "policy/entropy", "policy/logprob_mismatch"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-6), name


def test_the_update_moves_the_weights(reference, tiny_model: Path) -> None:
    origin = load_file(tiny_model / "model.safetensors")
    assert not torch.equal(
        reference["text"][0]["model.layers.0.mlp.up_proj.weight"], origin["model.layers.0.mlp.up_proj.weight"]
    )


def test_a_checkpoint_goes_on_bit_for_bit(ray_cluster, tiny_model: Path, tmp_path: Path) -> None:
    learner = start(tiny_model, ranks=2, zero=3)
    learner.step(learner.batch(make_groups(0)))
    state = learner.save(tmp_path / "state")
    expected = learner.step(learner.batch(make_groups(1)))
    learner.close()
    learner = start(tiny_model, ranks=2, zero=3)
    learner.load(tmp_path / "state", state)
    got = learner.step(learner.batch(make_groups(1)))
    learner.close()
    for name in ("learner/loss", "learner/grad_norm", "learner/lr", "policy/entropy"):
        assert got[name] == expected[name]


@pytest.mark.parametrize("zero", [0, 3])
def test_lora_trains_adapters_and_publishes_merged_weights(
    ray_cluster, tiny_model: Path, tmp_path: Path, zero: int
) -> None:
    from morl.model.loading import load_policy

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

    from morl.learner.rank_group import LearnerDiedError

    learner = start(tiny_model, ranks=2)
    try:
        ray.kill(learner._ranks._actors[1])
        with pytest.raises(LearnerDiedError, match="step"):
            learner.step(learner.batch(make_groups(0)))
    finally:
        learner.close()


@pytest.mark.parametrize(
    "algorithm",
    [
        *({"advantage": name} for name in ("group_mean", "rloo", "gdpo", "mo_grpo", "ema_std", "reinforce_plus_plus")),
        *({"loss": name} for name in ("ppo_clip", "gspo", "gspo_token", "cispo")),
    ],
    ids=lambda algorithm: "-".join(algorithm.values()),
)
def test_every_algorithm_takes_a_step(tiny_model: Path, tmp_path: Path, algorithm: dict[str, str]) -> None:
    settings = PolicySettings(
        model=tiny_model,
        dtype="float32",
        learner=LearnerSpec(lr=1e-3),
        algorithm=AlgorithmSpec.model_validate(algorithm),
        temperature=1.0,
        banned_token_ids=(),
        seed=0,
        objectives=("o",),
    )
    learner = Learner.start(settings, Cluster(ClusterSpec(), local=True), total_steps=2, max_new_tokens=8)
    groups = [with_terms(group) for group in make_groups(1)]
    metrics = learner.step(learner.batch(groups))
    assert metrics["learner/grad_norm"] > 0
    state = learner.save(tmp_path / "state")
    assert (state["advantage"] != {}) == (algorithm.get("advantage") == "ema_std")
    expected = learner.step(learner.batch(groups))
    learner.close()
    again = Learner.start(settings, Cluster(ClusterSpec(), local=True), total_steps=2, max_new_tokens=8)
    again.load(tmp_path / "state", state)
    assert again.step(again.batch(groups))["learner/grad_norm"] == expected["learner/grad_norm"]
    again.close()


def with_terms(group: Group) -> Group:
    """The group as two terms of equal weight would have scored it."""
    scores = []
    for place, score in enumerate(group.scores_G):
        parts = (None, None) if score.value is None else (score.value, place / len(group.scores_G))
        terms = {
            name: TermScore(part, "error" if part is None else "ok", entered=part, weight=0.5)
            for name, part in zip("ab", parts, strict=True)
        }
        scores.append(Score(None if score.value is None else sum(parts) / 2, terms))
    return replace(group, scores_G=tuple(scores))
