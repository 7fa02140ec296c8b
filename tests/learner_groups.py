"""Random groups over the tiny models' vocabulary, with images and without."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

import torch
from PIL import Image

from morl.model.chat_codec import ChatCodec
from morl.types import Encoded, Group, Prompt, Sample, Score


def make_groups(seed: int, prompts: int = 4, samples: int = 4, duplicates: bool = False) -> list[Group]:
    """Random groups over the tiny model's vocabulary; some samples have no score."""
    draw = random.Random(seed)
    groups = []
    for p in range(prompts):
        answers = [tuple(draw.randrange(3, 380) for _ in range(draw.randrange(1, 9))) for _ in range(samples)]
        if duplicates:
            answers = [answers[0], answers[1], *[(*answers[0][:-1], 7)] * (samples - 2)]
        made = [
            Sample(f"o/{p}", g, ids, (1,) * len(ids), tuple(-draw.random() for _ in ids), 0, "stop", "")
            for g, ids in enumerate(answers)
        ]
        scores = [Score(None if draw.random() < 0.1 else draw.random()) for _ in made]
        prompt_ids = tuple(draw.randrange(3, 380) for _ in range(draw.randrange(3, 20)))
        prompt = Prompt(f"o/{p}", "o", ({"role": "user", "content": "?"},))
        groups.append(Group(prompt, Encoded(prompt_ids), tuple(made), tuple(scores)))
    return groups


SIZES = [(100, 60), (28, 28), (90, 140)]


def noise(size: tuple[int, int], seed: int) -> Image.Image:
    """An image of random pixels; `size` is width and height."""
    pixels = torch.randint(0, 256, (*size[::-1], 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Image.fromarray(pixels.numpy())


def image_prompts(seed: int = 0) -> list[Prompt]:
    """Questions about one image of each size, about two, and about none."""
    images = [[noise(size, seed * 10 + i)] for i, size in enumerate(SIZES)]
    images += [[noise(SIZES[0], seed * 10 + 7), noise(SIZES[2], seed * 10 + 8)], []]
    prompts = []
    for number, seen in enumerate(images):
        content = [*({"type": "image"} for _ in seen), {"type": "text", "text": f"What is {number}?"}]
        prompts.append(Prompt(f"o/{number}", "o", ({"role": "user", "content": content},), tuple(seen)))
    return prompts


def clip_prompt(seed: int = 0) -> Prompt:
    """A question about four frames."""
    frames = [noise((56, 84), seed * 10 + 20 + i) for i in range(4)]
    content = [{"type": "video"}, {"type": "text", "text": "When?"}]
    return Prompt("o/clip", "o", ({"role": "user", "content": content},), (frames,))


def make_image_groups(codec: ChatCodec, seed: int = 0, samples: int = 3, prompts: Sequence[Prompt] = ()) -> list[Group]:
    """Random answers to `image_prompts`, or to these."""
    draw = random.Random(seed)
    groups = []
    for prompt in prompts or image_prompts(seed):
        encoded = replace(codec.encode(prompt), pixels=None)
        answers = [tuple(draw.randrange(10, 380) for _ in range(draw.randrange(1, 9))) for _ in range(samples)]
        made = [
            Sample(prompt.id, g, ids, (1,) * len(ids), tuple(-draw.random() for _ in ids), 0, "stop", "")
            for g, ids in enumerate(answers)
        ]
        scores = [Score(draw.random()) for _ in made]
        groups.append(Group(prompt, encoded, tuple(made), tuple(scores)))
    return groups
