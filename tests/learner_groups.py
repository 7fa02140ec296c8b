"""Random groups over the tiny models' vocabulary, with and without images, and a learner in this process."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from morl.cluster import Cluster
from morl.learner.learner import Learner
from morl.learner.policy import PolicySettings
from morl.model.chat_codec import ChatCodec
from morl.recipe.schema.algorithm_section import AlgorithmSpec
from morl.recipe.schema.learner_section import LearnerSpec
from morl.recipe.schema.machine_sections import ClusterSpec
from morl.types import Encoded, Group, Prompt, Sample, Score

WEIGHT = "model.layers.0.mlp.up_proj.weight"
"""A parameter of the tiny model."""


def start_learner(model: Path, dtype: str = "bfloat16", lr: float = 2e-5, **options: object) -> Learner:
    """A learner of one rank in this process; `options` are those of the recipe's section `learner`."""
    settings = PolicySettings(
        model=model,
        dtype=dtype,
        learner=LearnerSpec(lr=lr, eps=1e-12, **options),
        algorithm=AlgorithmSpec(),
        temperature=1.0,
        banned_token_ids=(),
        seed=0,
    )
    return Learner.start(settings, Cluster(ClusterSpec(), local=True), total_steps=50, max_new_tokens=8)


def make_groups(seed: int, prompts: int = 4, samples: int = 4, duplicates: bool = False) -> list[Group]:
    """Random groups over the tiny model's vocabulary; some samples have no score."""
    draw = random.Random(seed)
    groups = []
    for p in range(prompts):
        answers = [tuple(draw.randrange(3, 380) for _ in range(draw.randrange(1, 9))) for _ in range(samples)]
        if duplicates:
            answers = [answers[0], answers[1], *[(*answers[0][:-1], 7)] * (samples - 2)]
        samples_G = [
            Sample(f"o/{p}", g, ids, (1,) * len(ids), tuple(-draw.random() for _ in ids), 0, "stop", "")
            for g, ids in enumerate(answers)
        ]
        scores = [Score(None if draw.random() < 0.1 else draw.random()) for _ in samples_G]
        prompt_ids = tuple(draw.randrange(3, 380) for _ in range(draw.randrange(3, 20)))
        prompt = Prompt(f"o/{p}", "o", ({"role": "user", "content": "?"},))
        groups.append(Group(prompt, Encoded(prompt_ids), tuple(samples_G), tuple(scores)))
    return groups


SIZES = [(100, 60), (28, 28), (90, 140)]


def noise(size: tuple[int, int], seed: int) -> Image.Image:
    """An image of random pixels; `size` is width and height."""
    pixels = torch.randint(0, 256, (*size[::-1], 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def image_prompts(seed: int = 0) -> list[Prompt]:
    """Questions about one image of each size, about two images, and about none."""
    images = [[noise(size, seed * 10 + i)] for i, size in enumerate(SIZES)]
    images += [[noise(SIZES[0], seed * 10 + 7), noise(SIZES[2], seed * 10 + 8)], []]
    prompts = []
    for number, media in enumerate(images):
        content = [*({"type": "image"} for _ in media), {"type": "text", "text": f"What is {number}?"}]
        prompts.append(Prompt(f"o/{number}", "o", ({"role": "user", "content": content},), tuple(media)))
    return prompts


def clip_prompt(seed: int = 0) -> Prompt:
    """A question about four frames."""
    frames = [noise((56, 84), seed * 10 + 20 + i) for i in range(4)]
    content = [{"type": "video"}, {"type": "text", "text": "When?"}]
    return Prompt("o/clip", "o", ({"role": "user", "content": content},), (frames,))


def make_image_groups(codec: ChatCodec, seed: int = 0, samples: int = 3, prompts: Sequence[Prompt] = ()) -> list[Group]:
    """Random answers to `prompts`, by default `image_prompts`."""
    draw = random.Random(seed)
    groups = []
    for prompt in prompts or image_prompts(seed):
        encoded = replace(codec.encode(prompt), pixels=None)
        answers = [tuple(draw.randrange(10, 380) for _ in range(draw.randrange(1, 9))) for _ in range(samples)]
        samples_G = [
            Sample(prompt.id, g, ids, (1,) * len(ids), tuple(-draw.random() for _ in ids), 0, "stop", "")
            for g, ids in enumerate(answers)
        ]
        scores = [Score(draw.random()) for _ in samples_G]
        groups.append(Group(prompt, encoded, tuple(samples_G), tuple(scores)))
    return groups
