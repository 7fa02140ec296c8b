"""Pictures in the learner: encoded once a group, placed by M-RoPE, scored and learnt from as in rows of their own."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import make_tiny_vision_model

from morl.errors import DataError
from morl.learner.packing import build_batch, microbatch
from morl.learner.policy import Policy
from morl.learner.reward import RewardModel, answer_batch
from morl.model import ChatCodec, load_policy, load_reward_model
from morl.types import Encoded, Group, Prompt, Sample, Score

SIZES = [(100, 60), (28, 28), (90, 140)]


@pytest.fixture(scope="module")
def vision_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_vision_model(tmp_path_factory.mktemp("models") / "vision", seed=0)


@pytest.fixture(scope="module")
def codec(vision_model) -> ChatCodec:
    return ChatCodec.load(vision_model, 512)


def noise(size: tuple[int, int], seed: int) -> Image.Image:
    pixels = torch.randint(0, 256, (*size[::-1], 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def asked(pictures: list[Image.Image], text: str) -> Prompt:
    content = [*({"type": "image"} for _ in pictures), {"type": "text", "text": text}]
    return Prompt("o/0", "o", ({"role": "user", "content": content},), tuple(pictures))


def prompts() -> list[Prompt]:
    seen = [asked([noise(size, i)], f"What is {i}?") for i, size in enumerate(SIZES)]
    both = asked([noise(SIZES[0], 7), noise(SIZES[2], 8)], "Which?")
    return [*seen, both, Prompt("o/4", "o", ({"role": "user", "content": "No picture."},))]


def groups(codec: ChatCodec) -> list[Group]:
    draw = torch.Generator().manual_seed(0)
    made = []
    for prompt in prompts():
        encoded = codec.encode(prompt)
        samples = []
        for index in range(3):
            length = int(torch.randint(1, 9, (), generator=draw))
            ids = tuple(torch.randint(10, 380, (length,), generator=draw).tolist())
            samples.append(Sample(prompt.id, index, ids, (1,) * length, (-1.0,) * length, 0, "stop", ""))
        scores = tuple(Score(index / 2) for index in range(3))
        made.append(Group(prompt, encoded.token_ids_T, tuple(samples), scores, encoded.features))
    return made


def alone(model, group: Group, answer_T: tuple[int, ...]):
    """What transformers makes of one answer in a row of its own, told which tokens are pictures."""
    ids = torch.tensor([group.prompt_ids_T + answer_T])
    types = (ids == model.config.image_token_id).int()
    tensors = {} if group.features is None else group.features.tensors
    return model(input_ids=ids, mm_token_type_ids=types, output_hidden_states=True, **tensors)


@pytest.mark.parametrize("together", [True, False])
def test_shared_rows_with_pictures_give_what_separate_rows_give(vision_model, codec, together):
    model = load_policy(vision_model, "float32")
    made = groups(codec)
    advantages = torch.linspace(-1, 2, 15, dtype=torch.float64).view(5, 3)
    batch = build_batch(made, advantages, torch.ones_like(advantages))
    policy = Policy(model, temperature=1.0, banned_token_ids=codec.banned_token_ids)
    loss = torch.zeros(())
    for rows in [[0, 1, 2, 3, 4]] if together else [[0], [1], [2], [3], [4]]:
        micro = microbatch(batch, rows)
        logprobs_N, _ = policy(micro)
        loss = loss + (logprobs_N * micro.advantages_N).sum()
    got = torch.autograd.grad(loss, list(model.parameters()))

    separate = torch.zeros(())
    for p, group in enumerate(made):
        for g, sample in enumerate(group.samples_G):
            logits = (
                alone(model, group, sample.token_ids_T)
                .logits[0]
                .index_fill(1, torch.tensor(codec.banned_token_ids), -torch.inf)
            )
            start = len(group.prompt_ids_T) - 1
            chosen = logits[start : start + sample.length].log_softmax(-1)
            separate = separate + chosen[range(sample.length), sample.token_ids_T].sum() * advantages[p, g]
    want = torch.autograd.grad(separate, list(model.parameters()))
    assert float(loss) == pytest.approx(float(separate), rel=1e-5)
    scale = max(float(gradient.abs().max()) for gradient in want)
    assert all(torch.allclose(a, b, atol=1e-5 * scale) for a, b in zip(got, want, strict=True))
    assert max(float(gradient.abs().max()) for gradient in want[:20]) > 0  # the pictures matter


def test_a_reward_model_sees(vision_model, codec):
    torch.manual_seed(0)
    model = load_reward_model(vision_model, "float32").eval()
    torch.nn.init.normal_(model.score.weight)
    made = groups(codec)
    rows = [(Encoded(g.prompt_ids_T, g.features), [s.token_ids_T for s in g.samples_G]) for g in made]
    with torch.no_grad():
        scores = RewardModel(model)(microbatch(answer_batch(rows), range(5))).tolist()
        for score, (group, sample) in zip(scores, ((g, s) for g in made for s in g.samples_G), strict=True):
            last = alone(model, group, sample.token_ids_T).hidden_states[-1][0, -1]
            assert score == pytest.approx(float(model.score(last)), abs=1e-4)


def test_a_trained_head_beside_a_seeing_model_is_found_again(vision_model, tmp_path):
    import shutil

    from morl.learner.weights import full_weights, write_weights

    shutil.copytree(vision_model, tmp_path / "base")
    model = load_reward_model(vision_model, "float32")
    assert not model.score.weight.any()
    torch.nn.init.normal_(model.score.weight)
    write_weights(model, full_weights(model, sharded=False, keep=True), vision_model, tmp_path / "rm", 1)
    again = load_reward_model(tmp_path / "rm", "float32")
    assert again.score.weight.equal(model.score.weight)
    assert again.model.language_model.norm.weight.equal(model.model.language_model.norm.weight)


@pytest.mark.parametrize(
    ("media", "told"),
    [
        (("nowhere.png",), "nowhere.png.*cannot be read"),
        ((3,), "a path or a PIL image, not int"),
        ((), "name 1 pictures, and there are 0"),
        ((Image.new("RGB", (4000, 4)),), "cannot be used"),
    ],
)
def test_a_picture_that_cannot_be_used_is_said(codec, media, told):
    content = [{"type": "image"}, {"type": "text", "text": "What?"}]
    with pytest.raises(DataError, match=told):
        codec.media.encode([{"role": "user", "content": content}], media)
