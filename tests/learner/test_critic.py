"""The critic on real DeepSpeed ranks: what it says, what it learns, and what the policy makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from learner_groups import make_groups, make_image_groups
from pydantic import ValidationError
from safetensors.torch import load_file

from morl.algorithms import advantage
from morl.cluster import Cluster
from morl.errors import UsageError
from morl.learner.critic import CriticMetrics, critic_metrics, critic_settings
from morl.learner.learner import Learner
from morl.learner.policy import PolicySettings
from morl.learner.policy_rank import PolicyRank
from morl.learner.rank import RankSettings
from morl.learner.rank_group import LearnerDiedError
from morl.model.chat_codec import ChatCodec
from morl.model.loading import load_policy, load_reward_model
from morl.recipe.schema.algorithm_section import AlgorithmSpec
from morl.recipe.schema.learner_section import LearnerSpec
from morl.recipe.schema.machine_sections import ClusterSpec
from morl.recipe.train_recipe import Recipe
from morl.types import Batch, Group

STEPS = 3
DISCOUNT, TRACE = 0.97, 0.8
GAE = {"use": "gae", "discount": DISCOUNT, "trace": TRACE}


def with_a_tool(group: Group) -> Group:
    """The group with words of a tool in the middle of its longest answer, and at the end of it."""
    g = max(range(len(group.samples_G)), key=lambda g: len(group.samples_G[g].token_ids_T))
    mask = [1] * len(group.samples_G[g].token_ids_T)
    mask[len(mask) // 2] = mask[-1] = 0
    samples = list(group.samples_G)
    samples[g] = replace(samples[g], loss_mask_T=tuple(mask))
    return replace(group, samples_G=tuple(samples))


GROUPS = [
    [*map(with_a_tool, make_groups(step, prompts=2)), *make_groups(step + 50, prompts=2, duplicates=True)]
    for step in range(STEPS)
]


@contextmanager
def started(
    model: Path,
    advantage: dict[str, Any],
    *,
    policy_lr: float = 1e-3,
    local: bool = True,
    critic_model: Path | None = None,
    **layout: Any,
) -> Iterator[Learner]:
    # Below epsilon Adam makes a full step of the rounding of next to nothing.
    spec = LearnerSpec(lr=policy_lr, eps=1e-5, **layout)
    settings = PolicySettings(
        model=model,
        dtype="float32",
        learner=spec,
        algorithm=AlgorithmSpec.model_validate({"advantage": advantage, "importance": {"kind": "none"}}),
        temperature=0.9,
        banned_token_ids=(),
        seed=0,
        objectives=("o",),
    )
    own = spec.model_copy(update={"lr": 3e-3})
    critic = RankSettings(model=critic_model or model, dtype="float32", learner=own, seed=0)
    # One rank needs no actor; several are processes of Ray's.
    cluster = Cluster(ClusterSpec(), local=local and spec.ranks == 1)
    learner = Learner.start(settings, cluster, total_steps=STEPS, max_new_tokens=8, critic=critic)
    try:
        yield learner
    finally:
        learner.close()


def exactly(model: Any, ranks: Any) -> Any:
    """A fresh model of transformers, in float64, with the weights that the only rank of a group holds."""
    model.load_state_dict(ranks._rank.engine.module.language_model.state_dict())
    return model.double().eval()


# --- what a learner step should be, worked out answer by answer


def answers_of(groups: list[Group]) -> list[tuple[Group, int, int]]:
    """`(group, its number, number of the sample)` of every answer with a score."""
    return [
        (group, p, g) for p, group in enumerate(groups) for g, value in enumerate(group.values_G) if value is not None
    ]


def written(group: Group, g: int) -> list[int]:
    return [t for t, policy_wrote in enumerate(group.samples_G[g].loss_mask_T) if policy_wrote]


def hidden_before(model: Any, group: Group, g: int) -> torch.Tensor:
    """The body's state before each token that the policy wrote, of a row with this answer alone."""
    ids = torch.tensor([group.encoded.token_ids_T + group.samples_G[g].token_ids_T])
    places = [len(group.encoded.token_ids_T) + t - 1 for t in written(group, g)]
    return model.model(input_ids=ids).last_hidden_state[0, places]


def plain_gae(reward: float, values: list[float]) -> list[float]:
    """The double sum of the definition."""
    rewards = [0.0] * (len(values) - 1) + [reward]
    ahead = [*values, 0.0]
    errors = [rewards[t] + DISCOUNT * ahead[t + 1] - ahead[t] for t in range(len(values))]
    return [sum((DISCOUNT * TRACE) ** (s - t) * errors[s] for s in range(t, len(values))) for t in range(len(values))]


def prompt_tokens_weights(groups: list[Group]) -> torch.Tensor:
    totals: dict[int, int] = {}
    for group, p, g in answers_of(groups):
        totals[p] = totals.get(p, 0) + len(written(group, g))
    spread = [1 / (len(totals) * totals[p]) for group, p, g in answers_of(groups) for _ in written(group, g)]
    return torch.tensor(spread, dtype=torch.float64)


def grad_norm(loss: torch.Tensor, model: Any) -> float:
    grads = torch.autograd.grad(loss, [p for p in model.parameters() if p.requires_grad])
    return float(torch.stack([grad.square().sum() for grad in grads]).sum().sqrt())


@pytest.mark.parametrize("share", [True, False])
def test_a_step_is_what_the_definitions_say(tiny_model: Path, share: bool) -> None:
    with started(tiny_model, GAE, share_prefix=share) as learner:
        for groups in GROUPS[:2]:
            learner.step(learner.batch(groups))
        critic = exactly(load_reward_model(tiny_model, "float32"), learner._critic._ranks)
        policy = exactly(load_policy(tiny_model, "float32"), learner._ranks)
        groups = GROUPS[2]
        batch = learner.batch(groups)
        metrics = learner.step(batch)

    values_N = torch.cat([critic.score(hidden_before(critic, group, g))[:, 0] for group, _, g in answers_of(groups)])
    lengths = [len(written(group, g)) for group, _, g in answers_of(groups)]
    rewards = [group.values_G[g] for group, _, g in answers_of(groups)]
    assert values_N.detach().std() > 0.01, "a critic that says the same everywhere proves nothing"
    raw: list[float] = []
    for reward, own_T in zip(rewards, values_N.detach().split(lengths), strict=True):
        raw += plain_gae(reward, own_T.tolist())
    raw_N = torch.tensor(raw, dtype=torch.float64)
    returns_N = raw_N + values_N.detach()
    advantages_N = (raw_N - raw_N.mean()) / (raw_N.std(correction=0) + 1e-6)
    assert torch.allclose(batch.advantages_N.double(), advantages_N, atol=2e-5)
    assert torch.allclose(batch.returns_N.double(), returns_N, atol=2e-6)

    weights_N = prompt_tokens_weights(groups)
    value_loss = (0.5 * (values_N - returns_N).square() * weights_N).sum()
    assert metrics["learner/value_loss"] == pytest.approx(float(value_loss.detach()), rel=1e-5)
    assert metrics["critic/value"] == pytest.approx(float(values_N.detach().mean()), rel=1e-5)
    assert metrics["critic/grad_norm"] == pytest.approx(grad_norm(value_loss, critic), rel=1e-4)
    unexplained = (returns_N - values_N.detach()).var(correction=0) / returns_N.var(correction=0)
    assert metrics["critic/explained_variance"] == pytest.approx(1 - float(unexplained), abs=1e-5)

    logprobs_N = torch.cat(
        [
            (policy.lm_head(hidden_before(policy, group, g)) / 0.9)
            .log_softmax(-1)
            .gather(1, torch.tensor([[group.samples_G[g].token_ids_T[t]] for t in written(group, g)]))[:, 0]
            for group, _, g in answers_of(groups)
        ]
    )
    loss = -(advantages_N * weights_N * logprobs_N).sum()
    assert metrics["learner/loss"] == pytest.approx(float(loss.detach()), abs=2e-5)
    assert metrics["learner/grad_norm"] == pytest.approx(grad_norm(loss, policy), rel=1e-3)


# --- what must not change the critic


def trained(
    model: Path, batches: list[list[Group]], folder: Path, **layout: Any
) -> tuple[dict[str, torch.Tensor], Any]:
    """The critic's weights after a step on each, and the metrics of the steps."""
    with started(model, GAE, **layout) as learner:
        metrics = [learner.step(learner.batch(groups)) for groups in batches]
        learner._critic._ranks.call("publish", folder, STEPS)
    return load_file(folder / "model.safetensors"), metrics


@pytest.fixture(scope="module")
def image_groups(vision_model: Path) -> list[list[Group]]:
    codec = ChatCodec.load(vision_model, 512)
    return [make_image_groups(codec, step) for step in range(STEPS)]


@pytest.fixture(scope="module")
def reference(tiny_model: Path, vision_model: Path, image_groups: list[list[Group]], tmp_path_factory):
    folder = tmp_path_factory.mktemp("critic")
    return {
        "text": trained(tiny_model, GROUPS, folder / "text"),
        "images": trained(vision_model, image_groups, folder / "images"),
    }


@pytest.mark.parametrize(
    ("kind", "layout"),
    [
        ("text", {"tokens_per_microbatch": 1}),
        ("text", {"share_prefix": False, "tokens_per_microbatch": 64}),
        ("text", {"zero": 2, "activation_checkpointing": True}),
        ("text", {"ranks": 2, "zero": 3, "tokens_per_microbatch": 64}),
        ("images", {"share_prefix": False, "tokens_per_microbatch": 1}),
    ],
    ids=str,
)
def test_layout_never_changes_the_critic(
    request, reference, image_groups, tiny_model: Path, vision_model: Path, tmp_path: Path, kind: str, layout: Any
) -> None:
    if layout.get("ranks", 1) > 1:
        request.getfixturevalue("ray_cluster")
    model, batches = {"text": (tiny_model, GROUPS), "images": (vision_model, image_groups)}[kind]
    weights, metrics = trained(model, batches, tmp_path / "w", **layout)
    expected, expected_metrics = reference[kind]
    origin = load_file(model / "model.safetensors")
    origin["score.weight"] = torch.zeros_like(expected["score.weight"])
    apart = sum(float((weights[name] - expected[name]).square().sum()) for name in expected) ** 0.5
    went = sum(float((expected[name] - origin[name]).square().sum()) for name in expected) ** 0.5
    print(f"{kind:9} {layout!s:70} {apart / went:.1e}")
    assert apart < 1e-5 * went
    for ours, theirs in zip(metrics, expected_metrics, strict=True):
        for name in ("learner/value_loss", "critic/value", "critic/grad_norm", "critic/explained_variance"):
            assert ours[name] == pytest.approx(theirs[name], rel=1e-4, abs=1e-6), name


def test_images_are_seen_by_the_critic(reference, vision_model: Path) -> None:
    weights, _ = reference["images"]
    origin = load_file(vision_model / "model.safetensors")
    moved = {name for name in origin if not torch.equal(weights[name], origin[name])}
    assert any("visual" in name for name in moved)
    assert "lm_head.weight" not in moved


@pytest.mark.parametrize("layout", [{}, {"zero": 3}], ids=str)
def test_a_checkpoint_goes_on_bit_for_bit(tiny_model: Path, tmp_path: Path, layout: Any) -> None:
    with started(tiny_model, GAE, **layout) as learner:
        learner.step(learner.batch(GROUPS[0]))
        state = learner.save(tmp_path / "state")
        expected = [(batch := learner.batch(groups), learner.step(batch)) for groups in GROUPS[1:]]
    with started(tiny_model, GAE, **layout) as learner:
        learner.load(tmp_path / "state", state)
        got = [(batch := learner.batch(groups), learner.step(batch)) for groups in GROUPS[1:]]
    for (batch, metrics), (expected_batch, expected_metrics) in zip(got, expected, strict=True):
        assert torch.equal(batch.advantages_N, expected_batch.advantages_N)
        assert torch.equal(batch.returns_N, expected_batch.returns_N)
        for name in expected_metrics:
            assert name.startswith("time/") or name.endswith("_per_s") or metrics[name] == expected_metrics[name], name


def test_a_dead_critic_is_an_error_that_says_so(ray_cluster, tiny_model: Path) -> None:
    import ray

    with started(tiny_model, GAE, local=False) as learner:
        learner.step(batch := learner.batch(GROUPS[0]))
        ray.kill(learner._critic._ranks._actors[0])
        with pytest.raises(LearnerDiedError, match=r"learner\.step"):
            learner.step(batch)
        with pytest.raises(LearnerDiedError, match=r"learner\.values"):
            learner.batch(GROUPS[1])


# --- what it learns, and begins with


def most_that_can_be_explained(groups: list[Group]) -> float:
    """By what is known before a token: of answers that begin alike, nobody can tell which one it will be."""
    rewards: dict[Any, list[float]] = {}
    for group, _, g in answers_of(groups):
        for t in written(group, g):
            rewards.setdefault((group.encoded.token_ids_T, group.samples_G[g].token_ids_T[:t]), []).append(
                group.values_G[g]
            )
    told = torch.tensor([value for own in rewards.values() for value in own], dtype=torch.float64)
    known = torch.tensor([sum(own) / len(own) for own in rewards.values() for _ in own], dtype=torch.float64)
    return float(1 - (told - known).var(correction=0) / told.var(correction=0))


def test_it_learns_what_answers_turn_out_to_be_worth(tiny_model: Path) -> None:
    # With trace 1 a return is the answer's reward, whatever the values are.
    told = [group for groups in GROUPS for group in groups]
    with started(tiny_model, {"use": "gae", "trace": 1.0}, policy_lr=0.0) as learner:
        metrics = [learner.step(learner.batch(told)) for _ in range(25)]
    assert metrics[0]["critic/value"] == 0.0
    assert metrics[0]["critic/explained_variance"] == pytest.approx(0.0, abs=1e-9)
    assert metrics[-1]["learner/value_loss"] < 0.1 * metrics[0]["learner/value_loss"]
    most = most_that_can_be_explained(told)
    assert 0.95 * most < metrics[-1]["critic/explained_variance"] <= most


def test_answers_that_earned_nothing_are_learnt_from(tiny_model: Path) -> None:
    groups = [replace(g, scores_G=tuple(replace(s, value=0.0) for s in g.scores_G)) for g in GROUPS[0]]
    with started(tiny_model, GAE) as learner:
        batch = learner.batch(groups)
    assert len(batch.targets_N) == sum(len(written(group, g)) for group, _, g in answers_of(groups))


def test_a_critic_out_of_its_mind_teaches_nothing(tiny_model: Path) -> None:
    with started(tiny_model, GAE) as learner:
        learner._critic._ranks._rank.engine.module.model.score.weight.data[0, 0] = torch.nan
        metrics = learner.step(learner.batch(GROUPS[0]))
    assert metrics["learner/skipped"] == metrics["critic/skipped"] == 1.0


def test_without_any_difference_there_is_no_variance_to_explain() -> None:
    total = CriticMetrics(tokens=2.0, loss=0.1, value=1.0, grad_norm=1.0)
    assert "critic/explained_variance" not in critic_metrics(total, torch.tensor([0.3, 0.3]))


def test_a_reward_model_gives_its_body_and_not_its_head(tiny_model: Path, tmp_path: Path) -> None:
    made = load_reward_model(tiny_model, "float32")
    torch.nn.init.normal_(made.score.weight)
    made.model.layers[0].mlp.up_proj.weight.data += 1.0
    made.save_pretrained(tmp_path)
    with started(tiny_model, GAE, critic_model=tmp_path) as learner:
        held = exactly(load_reward_model(tiny_model, "float32"), learner._critic._ranks)
    assert not held.score.weight.any()
    assert torch.equal(held.model.layers[0].mlp.up_proj.weight.float(), made.model.layers[0].mlp.up_proj.weight)


def test_a_critic_that_cannot_start_leaves_no_policy_behind(tiny_model: Path, tmp_path: Path, monkeypatch) -> None:
    closed, close = [], PolicyRank.close
    monkeypatch.setattr(PolicyRank, "close", lambda rank: (closed.append(rank), close(rank)))
    with pytest.raises(ValueError, match=str(tmp_path)), started(tiny_model, GAE, critic_model=tmp_path):
        pass
    assert len(closed) == 1


# --- an advantage of a stranger's


@advantage("test_reward_to_go_by_objective")
def reward_to_go(
    rewards_BT: torch.Tensor,
    values_BT: torch.Tensor,
    mask_BT: torch.Tensor,
    prompts_B: torch.Tensor,
    objectives_B: torch.Tensor,
    rewards_PG: torch.Tensor,
    state: dict[str, int],
    *,
    scale: float = 1.0,
) -> tuple[torch.Tensor, torch.Tensor, dict[str, int]]:
    """The answer's reward at each of its tokens, less the prompt's mean, in a world of one objective."""
    assert not objectives_B.any()
    reward_B = rewards_BT.sum(dim=1)
    baseline_B = rewards_PG.nanmean(dim=1)[prompts_B]
    advantages_BT = (scale * (reward_B - baseline_B))[:, None] * mask_BT
    return advantages_BT, reward_B[:, None] * mask_BT, {"calls": state.get("calls", 0) + 1}


@pytest.mark.parametrize("share", [True, False])
def test_a_stranger_may_ask_for_values_too(tiny_model: Path, tmp_path: Path, share: bool) -> None:
    own = {"use": "test_reward_to_go_by_objective", "scale": 2.0}
    with started(tiny_model, own, share_prefix=share) as learner:
        batch: Batch = learner.batch(GROUPS[0])
        learner.step(batch)
        assert learner.save(tmp_path / "s")["advantage"] == {"calls": 1}
    expected = []
    for group, _, g in answers_of(GROUPS[0]):
        known = [value for value in group.values_G if value is not None]
        expected += [2.0 * (group.values_G[g] - sum(known) / len(known))] * len(written(group, g))
    assert batch.advantages_N.tolist() == pytest.approx(expected, abs=1e-6)


# --- recipes


def recipe(model: Path, algorithm: Any, **rollout: int) -> Recipe:
    return Recipe.model_validate(
        {
            "run": {"name": "x", "steps": 3},
            "model": {"path": str(model)},
            "objectives": {
                "o": {
                    "share": 1.0,
                    "data": {"source": "jsonl", "path": "rows.jsonl"},
                    "prompt": "{{ question }}",
                    "rewards": [{"use": "length", "maximum": 10}],
                }
            },
            "algorithm": algorithm,
            "rollout": {"prompts_per_step": 1, "samples_per_prompt": 2, "max_new_tokens": 4, **rollout},
            "learner": {"ranks": 2, "zero": 2, "lr": 1e-6, "freeze": ["model.embed_tokens.*"]},
        }
    )


def test_the_critic_is_laid_out_as_the_learner_is(tiny_model: Path) -> None:
    settings = critic_settings(recipe(tiny_model, {"advantage": "gae", "critic": {"warmup_steps": 2}}), tiny_model)
    assert settings is not None
    spec = settings.learner
    assert (settings.model, spec.ranks, spec.zero) == (tiny_model, 2, 2)
    assert (spec.lr, spec.warmup_steps, spec.freeze) == (1e-5, 2, [])
    assert critic_settings(recipe(tiny_model, {"advantage": "gae"}), tiny_model) is not None
    assert critic_settings(recipe(tiny_model, {"advantage": "rloo"}), tiny_model) is None


@pytest.mark.parametrize(
    ("algorithm", "rollout", "told"),
    [
        ({"critic": {}}, {}, "advantage 'group_std' uses no critic: leave 'critic' out, or use 'gae'"),
        ({"advantage": "gae", "critic": {"warmup_step": 1}}, {}, "did you mean 'warmup_steps'"),
        ({"advantage": "gae", "critic": {"warmup_steps": 9}}, {}, "warm-up of 9 steps in a run of 3"),
        ({"advantage": {"use": "gae", "trace": 1.5}}, {}, "less than or equal to 1"),
        ({"advantage": "rloo"}, {"samples_per_prompt": 1}, "and 1 has none to be compared with"),
    ],
)
def test_what_makes_no_sense_is_refused(tiny_model: Path, algorithm: Any, rollout: Any, told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        recipe(tiny_model, algorithm, **rollout)


def test_a_critic_needs_no_answers_to_compare(tiny_model: Path) -> None:
    assert recipe(tiny_model, {"advantage": "gae"}, samples_per_prompt=1).rollout.samples_per_prompt == 1


def test_a_critic_that_cannot_read_the_policy_is_refused(tiny_model: Path, vision_model: Path, tmp_path: Path) -> None:
    from tiny import make_tokenizer

    def critic(path: Path | str) -> None:
        critic_settings(recipe(tiny_model, {"advantage": "gae", "critic": {"path": str(path)}}), tiny_model)

    with pytest.raises(UsageError, match=r"algorithm\.critic\.path: .*nowhere"):
        critic("./nowhere")
    with pytest.raises(UsageError, match=r"algorithm\.critic\.path: .* one is multimodal and the other is not"):
        critic(vision_model)
    load_policy(tiny_model, "float32").config.save_pretrained(tmp_path)
    make_tokenizer(["<pad>", "<start>", "<end>"]).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=r"algorithm\.critic\.path: .* has another vocabulary"):
        critic(tmp_path)
