"""The whole update rule, on real DeepSpeed ranks, against the same rule written down plainly in double precision."""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from learner_groups import make_groups
from safetensors.torch import load_file, save_file

from morl.cluster import Cluster
from morl.errors import UsageError
from morl.learner.learner import Learner
from morl.learner.policy import PolicySettings
from morl.recipe.schema.algorithm_section import AlgorithmSpec
from morl.recipe.schema.learner_section import LearnerSpec
from morl.recipe.schema.machine_sections import ClusterSpec
from morl.types import Group, Score

TEMPERATURE, BANNED, MAX_NEW = 0.8, (5, 9), 8
# Adam's first step is lr * g / (|g| + eps): with so large an epsilon all but the plain gradient, times 100.
LR, EPS = 1e5, 1e3
BOUNDS = {"token": (0.6, 2.0), "sequence": (0.5, 3.0), "geometric": (0.8, 1.3)}
AGGREGATIONS = ("prompt_tokens", "batch_tokens", "sequence_mean", "constant")


def masking(level: str) -> dict[str, Any]:
    low, high = BOUNDS[level]
    return {"kind": "masked", "level": level, "low": low, "high": high}


def logprobs_of(model: Any, group: Group, answer_T: tuple[int, ...]) -> torch.Tensor:
    """One answer in a row of its own."""
    ids = torch.tensor([group.encoded.token_ids_T + answer_T])
    logits = model(input_ids=ids).logits[0] / TEMPERATURE
    logits = logits.index_fill(1, torch.tensor(BANNED), -torch.inf)
    at = torch.arange(len(group.encoded.token_ids_T) - 1, ids.shape[1] - 1)
    return logits.log_softmax(-1)[at, ids[0, at + 1]]


@cache
def exact_model(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, attn_implementation="eager").eval()


@pytest.fixture(scope="module")
def other_model(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reference so far from the policy as training would bring it."""
    folder = tmp_path_factory.mktemp("other") / "tiny"
    shutil.copytree(tiny_model, folder)
    weights, noise = load_file(folder / "model.safetensors"), torch.Generator().manual_seed(1)
    moved = {name: own + 0.005 * torch.randn(own.shape, generator=noise) for name, own in weights.items()}
    save_file(moved, folder / "model.safetensors", {"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def groups(tiny_model: Path) -> list[Group]:
    """Answers whose engine disagreed with the learner here and there; tools wrote some; one prompt has no signal."""
    draw = random.Random(3)
    made = []
    for p, group in enumerate(make_groups(3)):
        samples, scores = [], list(group.scores_G)
        for g, sample in enumerate(group.samples_G):
            ids = tuple(token if token not in BANNED else 11 for token in sample.token_ids_T)
            with torch.no_grad():
                exact = logprobs_of(exact_model(tiny_model), group, ids)
            engine = tuple(float(x) + draw.gauss(0.1 * g - 0.2, 0.5) for x in exact)
            wrote = tuple(int(t == 0 or g != 2 or t % 3 != 1) for t in range(len(ids)))
            samples.append(replace(sample, token_ids_T=ids, logprobs_T=engine, loss_mask_T=wrote))
        if p == 1:
            scores = [Score(0.5)] * len(scores)
        if p == 2:
            scores[1] = Score(None)
        made.append(replace(group, samples_G=tuple(samples), scores_G=tuple(scores)))
    return made


@dataclass
class Answer:
    """One answer's tokens that the policy wrote; `x` is log pi - log pi_reference."""

    prompt: int
    advantage: float
    logprobs: torch.Tensor
    log_ratio: torch.Tensor
    x: torch.Tensor
    ratio: torch.Tensor
    kept: torch.Tensor


@dataclass
class Update:
    loss: float
    weights: dict[str, torch.Tensor]
    kl: float
    masked: float
    clipped: float


def answers_of(policy: Any, frozen: Any, groups: list[Group], spec: AlgorithmSpec) -> list[Answer]:
    """Every answer with a score."""
    answers, importance = [], spec.importance
    for p, group in enumerate(groups):
        rewards = torch.tensor([v for v in group.values_G if v is not None], dtype=torch.float64)
        for sample, reward in zip(group.samples_G, group.values_G, strict=True):
            if reward is None:
                continue
            advantage = float((reward - rewards.mean()) / (rewards.std(correction=0) + 1e-6))
            mine = torch.tensor(sample.loss_mask_T).bool()
            logprobs = logprobs_of(policy, group, sample.token_ids_T)[mine]
            now = logprobs.detach()
            log_ratio = now - torch.tensor(sample.logprobs_T, dtype=torch.float64)[mine]
            ratio = {"token": log_ratio, "sequence": log_ratio.sum(), "geometric": log_ratio.mean()}[importance.level]
            ratio = ratio.exp().expand(len(now))
            kept = torch.ones_like(ratio).bool()
            if importance.kind == "masked":
                kept = (ratio > importance.low) & (ratio < importance.high)
            with torch.no_grad():
                x = now - logprobs_of(frozen, group, sample.token_ids_T)[mine]
            advantage = advantage if len(set(rewards.tolist())) > 1 else 0.0
            answers.append(Answer(p, advantage, logprobs, log_ratio, x, ratio, kept))
    return answers


def loss_of(answer: Answer, spec: AlgorithmSpec) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss of each token, and which tokens a clip leaves without gradient."""
    change = answer.logprobs - answer.logprobs.detach()
    weight = torch.ones_like(answer.ratio)
    if spec.importance.kind != "none":
        weight = answer.ratio.clamp(max=spec.importance.cap or torch.inf)
    if spec.loss.use == "on_policy":
        loss = -answer.advantage * answer.logprobs * weight
        inert = torch.zeros_like(answer.kept)
    else:
        r = (change + answer.log_ratio).exp()
        loss = -torch.minimum(r * answer.advantage, r.clamp(0.8, 1.2) * answer.advantage)
        inert = (r > 1.2) if answer.advantage > 0 else (r < 0.8)
    if spec.kl is not None:
        x = change + answer.x
        estimate = {"k1": x, "k2": x**2 / 2, "k3": (-x).exp() - 1 + x}
        loss = loss + spec.kl.coef * weight * estimate[spec.kl.estimator]
    return loss, inert


def written_down(model: Path, groups: list[Group], algorithm: dict[str, Any], reference: Path) -> Update:
    """The update of `algorithm`, answer by answer: no rows, no weights that are shifted, no ranks."""
    spec = AlgorithmSpec.model_validate(algorithm)
    policy = exact_model(model)
    answers = answers_of(policy, exact_model(reference), groups, spec)
    prompts = len({answer.prompt for answer in answers})
    total, clipped, advantaged = torch.zeros((), dtype=torch.float64), 0, 0
    for own in answers:
        tokens = {
            "prompt_tokens": prompts * sum(int(other.kept.sum()) for other in answers if other.prompt == own.prompt),
            "batch_tokens": sum(int(other.kept.sum()) for other in answers),
            "sequence_mean": len(answers) * int(own.kept.sum()),
            "constant": len(answers) * MAX_NEW,
        }[spec.aggregation]
        loss, inert = loss_of(own, spec)
        if own.kept.any():
            total = total + loss[own.kept].sum() / tokens
        if own.advantage != 0:
            advantaged += len(own.kept)
            clipped += int((inert & own.kept).sum())
    parameters = dict(policy.named_parameters())
    gradients = torch.autograd.grad(total, list(parameters.values()))
    weights = {
        name: (parameter - LR * gradient / (gradient.abs() + EPS)).detach()
        for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True)
    }
    # Nothing of an answer without advantage is computed where it has no part in the update.
    shared = spec.kl is not None or spec.aggregation in ("prompt_tokens", "batch_tokens")
    computed = [answer for answer in answers if shared or answer.advantage != 0]
    x, kept = (torch.cat([getattr(answer, name) for answer in computed]) for name in ("x", "kept"))
    return Update(
        loss=float(total.detach()),
        weights=weights,
        kl=float(((-x).exp() - 1 + x).mean()),
        masked=float((~kept).double().mean()),
        clipped=clipped / max(1, advantaged),
    )


def settings_for(
    model: Path, algorithm: dict[str, Any], reference: Path | None = None, lr: float = LR, **learner: Any
) -> PolicySettings:
    return PolicySettings(
        model=model,
        dtype="float32",
        learner=LearnerSpec(lr=lr, eps=EPS, max_grad_norm=1e9, **learner),
        algorithm=AlgorithmSpec.model_validate(algorithm),
        temperature=TEMPERATURE,
        banned_token_ids=BANNED,
        seed=0,
        reference=reference,
    )


def started(settings: PolicySettings) -> Learner:
    cluster = Cluster(ClusterSpec(), local=settings.learner.ranks == 1)
    return Learner.start(settings, cluster, total_steps=3, max_new_tokens=MAX_NEW)


def one_step(settings: PolicySettings, groups: list[Group], folder: Path) -> tuple[dict[str, float], dict[str, Any]]:
    learner = started(settings)
    try:
        metrics = learner.step(learner.batch(groups))
        learner.publish(folder)
    finally:
        learner.close()
    return metrics, load_file(folder / "model.safetensors")


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor], origin: Path) -> float:
    """How far two results of an update lie apart, as a share of how far it went."""
    before = load_file(origin / "model.safetensors")
    assert one.keys() == before.keys()
    distance = sum(float((one[name].double() - other[name].double()).square().sum()) for name in before)
    went = sum(float((other[name].double() - before[name].double()).square().sum()) for name in before)
    return (distance / went) ** 0.5


def check(
    groups: list[Group], tiny_model: Path, other_model: Path, folder: Path, algorithm: dict[str, Any], **learner: Any
) -> None:
    """A step of the learner is the update as it is written down."""
    metrics, weights = one_step(settings_for(tiny_model, algorithm, other_model, **learner), groups, folder)
    expected = written_down(tiny_model, groups, algorithm, other_model)
    assert apart(weights, expected.weights, tiny_model) < 1e-5
    assert metrics["learner/loss"] == pytest.approx(expected.loss, rel=1e-5, abs=1e-5)
    assert metrics.get("policy/kl") == (pytest.approx(expected.kl, rel=1e-4) if "kl" in algorithm else None)
    masked = "masked" in str(algorithm)
    assert metrics.get("policy/masked_fraction") == (pytest.approx(expected.masked) if masked else None)
    if algorithm.get("loss") == "ppo_clip":
        assert 0 < expected.clipped < 1
    assert metrics["policy/clip_fraction"] == pytest.approx(expected.clipped)
    if masked:
        assert 0 < expected.masked < 1


@pytest.mark.parametrize("aggregation", AGGREGATIONS)
@pytest.mark.parametrize("level", BOUNDS)
def test_a_mask_takes_tokens_out_of_the_denominators(
    groups, tiny_model: Path, other_model: Path, tmp_path: Path, level: str, aggregation: str
) -> None:
    algorithm = {"importance": masking(level), "aggregation": aggregation}
    check(groups, tiny_model, other_model, tmp_path / "w", algorithm)


@pytest.mark.parametrize(
    "algorithm",
    [
        *({"kl": {"coef": 0.5, "estimator": name}} for name in ("k1", "k2", "k3")),
        {"kl": {"coef": 0.5}, "importance": {"kind": "none"}, "aggregation": "constant"},
        {"kl": {"coef": 0.5}, "loss": "ppo_clip", "aggregation": "batch_tokens"},
        {"loss": "ppo_clip", "importance": masking("geometric")},
        {"importance": {"kind": "truncated", "level": "sequence", "cap": 1.5}},
        {"importance": {"kind": "truncated", "level": "geometric", "cap": 1.1}, "aggregation": "sequence_mean"},
    ],
    ids=str,
)
def test_a_step_is_the_update_as_it_is_written_down(
    groups, tiny_model: Path, other_model: Path, tmp_path: Path, algorithm: dict[str, Any]
) -> None:
    check(groups, tiny_model, other_model, tmp_path / "w", algorithm)


HARDEST = {
    "kl": {"coef": 0.5, "estimator": "k3"},
    "importance": masking("sequence"),
    "aggregation": "batch_tokens",
}


@pytest.mark.parametrize(
    "layout",
    [
        {"tokens_per_microbatch": 1},
        {"share_prefix": False},
        {"share_prefix": False, "tokens_per_microbatch": 64},
        {"zero": 3, "tokens_per_microbatch": 64},
    ],
    ids=str,
)
@pytest.mark.parametrize("aggregation", ["prompt_tokens", "batch_tokens"])
def test_neither_mask_nor_reference_knows_the_layout(
    groups, tiny_model: Path, other_model: Path, tmp_path: Path, aggregation: str, layout: dict[str, Any]
) -> None:
    check(groups, tiny_model, other_model, tmp_path / "w", HARDEST | {"aggregation": aggregation}, **layout)


def test_ranks_share_what_a_mask_frees(
    ray_cluster, groups, tiny_model: Path, other_model: Path, tmp_path: Path
) -> None:
    layout = {"ranks": 2, "zero": 3, "tokens_per_microbatch": 64}
    check(groups, tiny_model, other_model, tmp_path / "w", HARDEST, **layout)


@pytest.mark.parametrize("zero", [0, 3])
def test_without_its_adapters_a_policy_is_its_own_reference(
    groups, tiny_model: Path, tmp_path: Path, zero: int
) -> None:
    """Two steps, so that there is a distance: with the adapters switched off, and with a copy of the base model."""
    algorithm = {"kl": {"coef": 5.0, "estimator": "k3"}, "importance": masking("token")}
    results = []
    for reference in (None, tiny_model):
        settings = settings_for(tiny_model, algorithm, reference, zero=zero, lora={"rank": 4, "alpha": 64})
        learner = started(settings)
        try:
            first = learner.step(learner.batch(groups))
            learner.publish(tmp_path / "first")
            second = learner.step(learner.batch(groups))
            learner.publish(tmp_path / "second")
        finally:
            learner.close()
        results.append((second, load_file(tmp_path / "second" / "model.safetensors")))
        assert first["policy/kl"] == pytest.approx(0, abs=1e-9)
    (switched, weights), (copied, expected) = results
    with torch.no_grad():
        x = [
            logprobs_of(exact_model(tmp_path / "first"), group, sample.token_ids_T)
            - logprobs_of(exact_model(tiny_model), group, sample.token_ids_T)
            for group in groups
            for sample in group.samples_G
        ]
    wrote = [
        torch.tensor(sample.loss_mask_T).bool() & (score.value is not None)
        for group in groups
        for sample, score in zip(group.samples_G, group.scores_G, strict=True)
    ]
    exact = torch.cat([((-own).exp() - 1 + own)[mine] for own, mine in zip(x, wrote, strict=True)]).mean()
    assert float(exact) > 1e-4
    assert switched["policy/kl"] == pytest.approx(float(exact), rel=1e-4)
    assert switched["learner/loss"] == pytest.approx(copied["learner/loss"], rel=1e-5)
    assert apart(weights, expected, tmp_path / "first") < 1e-5


def test_a_resumed_run_keeps_the_reference_it_began_with(groups, tiny_model: Path, tmp_path: Path) -> None:
    settings = settings_for(tiny_model, {"kl": {"coef": 0.1}})
    learner = started(settings)
    learner.step(learner.batch(groups))
    state = learner.save(tmp_path / "state")
    expected = learner.step(learner.batch(groups))
    learner.close()
    learner = started(settings)
    learner.load(tmp_path / "state", state)
    got = learner.step(learner.batch(groups))
    learner.close()
    assert expected["policy/kl"] > 1e-3
    for name in ("policy/kl", "learner/loss", "learner/grad_norm"):
        assert got[name] == expected[name]


def test_a_reference_of_another_vocabulary_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config.from_pretrained(tiny_model)
    config.vocab_size = 400
    Qwen2ForCausalLM(config).save_pretrained(tmp_path / "wider")
    with pytest.raises(UsageError, match=r"algorithm\.kl\.reference: .* has 400 tokens and the policy 384"):
        started(settings_for(tiny_model, {"kl": {}}, tmp_path / "wider"))
