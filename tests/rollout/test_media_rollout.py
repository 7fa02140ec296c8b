"""Images and videos through every engine: tokens and log-probs agree with the learner's."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import PIL.Image
import pytest
import torch
from learner_groups import noise
from tiny import make_tiny_vision_model

from morl.errors import DataError, UsageError
from morl.learner.packing import build_batch, microbatch
from morl.learner.policy import Policy
from morl.learner.rows import group_rows
from morl.media.items import Image, Limits, Video
from morl.model.chat_codec import ChatCodec
from morl.model.loading import load_policy
from morl.model.media_processor import engine_options
from morl.preflight.recipe_check import check
from morl.recipe.load import load_recipe
from morl.registry import ENGINES
from morl.rollout.collector import Collector
from morl.rollout.engine import Request, Sampling
from morl.rollout.engine_actor import EngineSpec
from morl.rollout.engine_pool import EnginePool
from morl.run.evaluation_run import evaluate_models
from morl.track.jsonl_files import read_samples
from morl.train import train
from morl.types import Group, Prompt, Score

from .conftest import publish

LONG = Limits(fps=1.0, max_tokens=24)


def clip(frames: int, seed: int, size: tuple[int, int] = (60, 40)) -> list:
    return [noise(size, seed + i) for i in range(frames)]


def prompt(number: int, *parts: str | Image | Video) -> Prompt:
    kinds = {Image: "image", Video: "video"}
    content = [{"type": "text", "text": p} if isinstance(p, str) else {"type": kinds[type(p)]} for p in parts]
    media = tuple(part for part in parts if not isinstance(part, str))
    return Prompt(f"o/{number}", "o", ({"role": "user", "content": content},), media)


PROMPTS = {
    "text": [
        Prompt("o/0", "o", ({"role": "user", "content": "What is 2 + 3?"},)),
        Prompt("o/1", "o", ({"role": "user", "content": "Say yes or no to 4 + 5 is 9, and why it is so."},)),
    ],
    "image": [
        prompt(2, Image.of(noise((100, 60), 1)), "What is it?"),
        # Larger than the checkpoint's limit, but not than vLLM's.
        prompt(8, Image.of(noise((400, 300), 6)), "And that?"),
        prompt(3, "Which is larger, ", Image.of(noise((28, 28), 2)), " or ", Image.of(noise((90, 200), 3)), "?"),
        prompt(4, Image.of(noise((300, 200), 4), limits=Limits(max_tokens=20)), "And this?"),
    ],
    "video": [
        # Few tokens high and wide, but long: the next position follows from its duration, not its size.
        prompt(5, Video.of({"frames": clip(12, 10, (30, 30)), "fps": 0.5}, limits=LONG), "What happens?"),
        prompt(6, "First ", Video.of(clip(5, 30)), "then ", Image.of(noise((60, 90), 5)), "what?"),
        # 0.7 s per time step: a position that is whole only up to rounding.
        prompt(7, Video.of({"frames": clip(14, 50), "fps": 2 / 0.7}, limits=Limits(fps=2 / 0.7)), "And here?"),
    ],
}
SAMPLES = 4


@pytest.fixture(scope="module")
def codec(vision_model) -> ChatCodec:
    return ChatCodec.load(vision_model, 1024)


@pytest.fixture(scope="module", params=["hf", "vllm"])
def multimodal_engine(request, vision_model, run):
    """The transformers engine in this process; the vLLM engine in a Ray actor."""
    name: str = request.param
    options = {"hf": {"max_sequences": 16}, "vllm": {"max_model_len": 1024, "kv_cache_gb": 0.25}}[name]
    if name == "vllm":
        request.getfixturevalue("ray_cluster")
        options |= {"images_per_prompt": 2, "videos_per_prompt": 1, "image_pixels": 100352, "video_pixels": 100352}
    start = EnginePool.start(
        name, str(vision_model), dtype="float32", options=options, local=name == "hf", max_restarts=0
    )
    pool = run(start)
    yield pool
    run(pool.close())


async def half(prompt, sample) -> Score:
    await asyncio.sleep(0)
    return Score(0.5)


def collect(engine, codec, run, prompts, temperature: float = 0.8, new: int = 12, version: int = 0) -> list[Group]:
    sampling = Sampling(temperature, new, stop_token_ids=codec.stop_token_ids, banned_token_ids=codec.banned_token_ids)
    collector = Collector(engine, codec, half, seed=1)
    return run(collector.collect(prompts, key="step-1", samples=SAMPLES, sampling=sampling, version=version)).groups


def mismatch(model, codec, groups: list[Group], temperature: float = 0.8) -> float:
    """Largest difference of a token's log-prob between engine and learner."""
    ones = torch.ones(len(groups), SAMPLES, dtype=torch.float64)
    batch = build_batch(group_rows(groups, ones, ones))
    policy = Policy(model, temperature=temperature, banned_token_ids=codec.banned_token_ids)
    micro = microbatch(batch, range(batch.rows))
    with torch.no_grad():
        logprobs_N, _ = policy(micro)
    return float((logprobs_N - micro.rollout_logprobs_N).abs().max())


@pytest.mark.parametrize("kind", PROMPTS)
def test_engine_and_learner_agree(multimodal_engine, codec, run, vision_model, kind):
    groups = collect(multimodal_engine, codec, run, PROMPTS[kind])
    model = load_policy(vision_model, "float32").eval()
    assert mismatch(model, codec, groups) < 1e-4
    drawn = [token for group in groups for sample in group.samples_G for token in sample.token_ids_T]
    assert len(codec.banned_token_ids) == 5
    assert not set(drawn) & set(codec.banned_token_ids)
    assert all(group.encoded.token_ids_T == codec.encode(group.prompt).token_ids_T for group in groups)


def test_all_kinds_in_one_step(multimodal_engine, codec, run, vision_model):
    prompts = [prompt for prompts in PROMPTS.values() for prompt in prompts]
    together = collect(multimodal_engine, codec, run, prompts)
    assert mismatch(load_policy(vision_model, "float32").eval(), codec, together) < 1e-4
    again = collect(multimodal_engine, codec, run, prompts)
    tokens = [[sample.token_ids_T for sample in group.samples_G] for group in together]
    assert tokens == [[sample.token_ids_T for sample in group.samples_G] for group in again]


def test_new_weights_see_as_the_learner_does(multimodal_engine, codec, run, vision_model, tmp_path):
    other = make_tiny_vision_model(tmp_path / "other", seed=1)
    prompts = [prompts[0] for prompts in PROMPTS.values()]
    collect(multimodal_engine, codec, run, prompts)  # fills the caches, which must be dropped with the weights
    try:
        run(multimodal_engine.load_weights(publish(other, tmp_path / "v1", 1)))
        groups = collect(multimodal_engine, codec, run, prompts, version=1)
        assert mismatch(load_policy(other, "float32").eval(), codec, groups) < 1e-4
        assert mismatch(load_policy(vision_model, "float32").eval(), codec, groups) > 0.1
    finally:
        run(multimodal_engine.load_weights(publish(vision_model, tmp_path / "v0", 0)))


def test_what_is_seen_matters(codec, run, multimodal_engine):
    """Greedy answers to the same question about different images differ."""
    prompts = [prompt(n, Image.of(noise((60, 60), 100 + n)), "What is it?") for n in range(4)]
    groups = collect(multimodal_engine, codec, run, prompts, temperature=0.0, new=6)
    assert len({group.encoded.token_ids_T for group in groups}) == 1
    assert len({group.samples_G[0].logprobs_T for group in groups}) == 4


def test_an_engine_is_sent_what_it_takes_and_nothing_twice(codec):
    encoded = codec.encode(PROMPTS["image"][0])
    sampling = Sampling(1.0, 4)
    request = Request("r", encoded, 2, 0, sampling)
    sent = {name: EngineSpec(ENGINES.entry(name), "m", "float32", 0, {}).sent(request) for name in ("hf", "vllm")}
    assert sent["hf"].prompt == replace(encoded, pixels=None)
    assert sent["vllm"].prompt == replace(encoded, features=None)
    assert encoded.pixels.prompt_ids_T.count(codec.media.placeholder_ids["image"]) == 1


@pytest.mark.parametrize("word", ["<|image_pad|>", "<|video_pad|>"])
def test_placeholders_in_the_text_of_a_row_are_refused(codec, word):
    with pytest.raises(DataError, match="o/9"):
        codec.encode(Prompt("o/9", "o", ({"role": "user", "content": f"Ignore {word} this"},)))
    with pytest.raises(DataError, match="o/9"):
        codec.encode(prompt(9, f"Ignore {word} this", Image.of(noise((60, 60), 1))))


def test_limits_decide_how_many_tokens_there_are(codec):
    def tokens(part) -> int:
        ids = codec.encode(prompt(0, part, "?")).token_ids_T
        return sum(ids.count(placeholder) for placeholder in codec.media.placeholder_ids.values())

    image = noise((280, 280), 0)
    assert tokens(Image.of(image)) == 64  # the checkpoint's own limit
    assert tokens(Image.of(image, limits=Limits(max_tokens=30))) == 25
    assert tokens(Image.of(image, limits=Limits(max_pixels=30 * 28 * 28))) == 25
    assert tokens(Image.of(noise((28, 28), 0), limits=Limits(min_pixels=28 * 28 * 9))) == 9
    assert tokens(Video.of(clip(8, 0, (280, 280)), limits=Limits(max_tokens=36))) == 36
    with pytest.raises(DataError, match=r"takes at least 4 tokens, more than media\.max_tokens=3"):
        tokens(Video.of(clip(8, 0), limits=Limits(max_tokens=3)))


PLUGIN = """
from morl.rewards import reward
from morl.rewards.parsing.image_size import image_size, smart_resize


@reward("seen_width")
def seen_width(response: str, media: list) -> float:
    return smart_resize(image_size(media, {}), min_pixels=784, max_pixels=12544).width / 1000


@reward("letters")
def letters(response: str) -> float:
    return sum(c.isalpha() for c in response) / max(1, len(response))
"""

RECIPE = """
run: {{name: seeing, steps: 2, dir: {folder}/runs}}
model: {{path: {model}}}
plugins: [{folder}/seeing_rewards.py]
objectives:
  find:
    share: 1
    data: {{source: jsonl, path: {folder}/rows.jsonl, media: {{max_pixels: 12544}}, bad_media: skip}}
    prompt: [{{image: "{{{{ image }}}}"}}, "Where is {{{{ what }}}}?"]
    gold: "{{{{ box }}}}"
    rewards:
      - {{use: box, frame: absolute_resized, gold_frame: absolute, min_pixels: 784, max_pixels: 12544}}
      - {{use: seen_width}}
      - {{use: letters}}
  clips:
    share: 1
    data: {{source: jsonl, path: {folder}/rows.jsonl, media: {{max_tokens: 12}}, take: 2}}
    prompt: [{{video: "{{{{ clip }}}}"}}, "What happens?"]
    rewards: [{{use: letters}}]
rollout: {{engine: hf, prompts_per_step: 4, samples_per_prompt: 4, max_new_tokens: 6, temperature: 0.9}}
learner: {{lr: 1.0e-3}}
scoring: {{workers: 1}}
eval:
  sets:
    find:
      data: {{source: jsonl, path: {folder}/rows.jsonl, media: {{max_pixels: 12544}}, bad_media: skip}}
"""
SIZES = [(200, 100), (100, 200), (64, 64)]


@pytest.fixture(scope="module")
def recipe(vision_model, tmp_path_factory) -> Path:
    """Boxes in images beside the data file, one rotated by its metadata, one truncated; and short clips."""
    folder = tmp_path_factory.mktemp("seeing")
    (folder / "seeing_rewards.py").write_text(PLUGIN)
    turned = PIL.Image.Exif()
    turned[0x0112] = 6
    for i, size in enumerate(SIZES):
        noise(size, i).save(folder / f"{i}.jpg", exif=turned if i == 0 else PIL.Image.Exif())
    (folder / "3.jpg").write_bytes((folder / "1.jpg").read_bytes()[:900])
    row = {"what": "the dog", "box": [10, 20, 50, 60], "clip": ["2.jpg", "2.jpg", "2.jpg"]}
    rows = (json.dumps({"image": f"{i}.jpg", **row}) + "\n" for i in range(4))
    (folder / "rows.jsonl").write_text("".join(rows))
    path = folder / "seeing.yaml"
    path.write_text(RECIPE.format(folder=folder, model=vision_model))
    return path


def test_a_run_on_images_and_clips(recipe):
    assert check(recipe).exit_code == 0  # boxes survive the conversion to the resized image and back
    run = subprocess.run(
        [sys.executable, "-m", "morl", "train", str(recipe), "--local"], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    folder = recipe.parent / "runs" / "seeing"
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert len(metrics) == 2
    assert all(row["policy/logprob_mismatch"] < 1e-4 and row["learner/grad_norm"] > 0 for row in metrics)
    assert metrics[-1]["objective/find/skipped_rows"] >= 1
    samples = [row for row in read_samples(folder / "samples") if row["objective"] == "find"]
    # 0 is rotated: 100 wide and 200 high. At most 16 patches of 28 pixels a side.
    widths = {"0.jpg": 0.056, "1.jpg": 0.056, "2.jpg": 0.056}
    for row in samples:
        (name,) = row["media"]
        assert row["terms"]["seen_width"]["value"] == widths[Path(name).name]
    assert "3.jpg" not in {Path(row["media"][0]).name for row in samples}
    evaluations = [json.loads(line) for line in (folder / "eval.jsonl").read_text().splitlines()]
    assert [row["n"] for row in evaluations] == [3, 3]


def test_evaluation_by_portions_asks_the_same(recipe, vision_model, monkeypatch):
    loaded = load_recipe(recipe)
    (whole,) = evaluate_models(loaded, [str(vision_model)], local=True)
    monkeypatch.setattr("morl.evaluation.held_out.PROMPTS_AT_ONCE", 2)
    (portions,) = evaluate_models(loaded, [str(vision_model)], local=True)
    assert whole[0]["values"] == portions[0]["values"]
    assert whole[0]["n"] == 3


def test_boxes_in_another_resize_than_the_models_are_refused(recipe, vision_model):
    wrong = load_recipe(recipe, ["objectives.find.rewards.0.max_pixels=100352"])
    with pytest.raises(UsageError, match=r"eval\.sets\.find\.rewards\.0: .* set max_pixels: 12544"):
        evaluate_models(wrong, [str(vision_model)], local=True)


def test_a_run_refuses_another_resize_in_what_it_measures(recipe, vision_model):
    wrong = ["run.name=refused", "eval.sets.find.data.media={max_pixels: 50176}"]
    with pytest.raises(UsageError, match=r"eval\.sets\.find\.rewards\.0: .* set max_pixels: 50176"):
        train(load_recipe(recipe, wrong), local=True)


def test_vllm_is_started_for_what_the_recipe_asks(recipe, codec):
    specs = load_recipe(recipe).objectives.values()
    options = engine_options("vllm", codec.media, specs)
    assert options == {
        "images_per_prompt": 1,
        "image_pixels": 12544,
        "videos_per_prompt": 1,
        "video_pixels": 12 * 28 * 28,
    }
    assert engine_options("vllm", None, specs) == engine_options("hf", codec.media, specs) == {}
