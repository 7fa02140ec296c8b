"""Images in the learner: encoded once a group, placed by M-RoPE, scored and learnt from as in rows of their own."""

from __future__ import annotations

import pytest
import torch
from learner_groups import make_image_groups
from PIL import Image

from morl.errors import DataError
from morl.learner.packing import build_batch, microbatch
from morl.learner.policy import Policy
from morl.learner.reward_rank import RewardModel, response_batch
from morl.learner.rows import group_rows
from morl.model.chat_codec import ChatCodec
from morl.model.loading import load_policy, load_reward_model
from morl.types import Group


@pytest.fixture(scope="module")
def codec(vision_model) -> ChatCodec:
    return ChatCodec.load(vision_model, 512)


def alone(model, group: Group, answer_T: tuple[int, ...]):
    """What transformers makes of one answer in a row of its own, told which tokens are images."""
    ids = torch.tensor([group.encoded.token_ids_T + answer_T])
    types = (ids == model.config.image_token_id).int()
    tensors = {} if group.encoded.features is None else group.encoded.features.tensors
    return model(input_ids=ids, mm_token_type_ids=types, output_hidden_states=True, **tensors)


@pytest.mark.parametrize("together", [True, False])
def test_shared_rows_with_images_give_what_separate_rows_give(vision_model, codec, together):
    model = load_policy(vision_model, "float32")
    made = make_image_groups(codec)
    advantages = torch.linspace(-1, 2, 15, dtype=torch.float64).view(5, 3)
    batch = build_batch(group_rows(made, advantages, torch.ones_like(advantages)))
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
            start = len(group.encoded.token_ids_T) - 1
            chosen = logits[start : start + sample.length].log_softmax(-1)
            separate = separate + chosen[range(sample.length), sample.token_ids_T].sum() * advantages[p, g]
    want = torch.autograd.grad(separate, list(model.parameters()))
    assert float(loss) == pytest.approx(float(separate), rel=1e-5)
    scale = max(float(gradient.abs().max()) for gradient in want)
    assert all(torch.allclose(a, b, atol=1e-5 * scale) for a, b in zip(got, want, strict=True))
    assert max(float(gradient.abs().max()) for gradient in want[:20]) > 0  # the images matter


def test_a_reward_model_sees(vision_model, codec):
    torch.manual_seed(0)
    model = load_reward_model(vision_model, "float32").eval()
    torch.nn.init.normal_(model.score.weight)
    made = make_image_groups(codec)
    rows = [(g.encoded, [s.token_ids_T for s in g.samples_G]) for g in made]
    with torch.no_grad():
        scores = RewardModel(model)(microbatch(response_batch(rows), range(5))).tolist()
        for score, (group, sample) in zip(scores, ((g, s) for g in made for s in g.samples_G), strict=True):
            last = alone(model, group, sample.token_ids_T).hidden_states[-1][0, -1]
            assert score == pytest.approx(float(model.score(last)), abs=1e-4)


def test_a_trained_head_beside_a_seeing_model_is_found_again(vision_model, tmp_path):
    import shutil

    from morl.learner.merged_weights import full_weights, write_weights

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
        (("nowhere.png",), "no such image: nowhere.png"),
        ((3,), "or a PIL image, not int"),
        ((), "refer to 1 images, but there are 0"),
        ((Image.new("RGB", (4000, 4)),), "more than 200 times the other"),
    ],
)
def test_an_image_that_cannot_be_used_is_said(codec, media, told):
    content = [{"type": "image"}, {"type": "text", "text": "What?"}]
    with pytest.raises(DataError, match=told):
        codec.media.encode([{"role": "user", "content": content}], media)
