"""Random groups over the tiny model's vocabulary."""

from __future__ import annotations

import random

from morl.types import Group, Prompt, Sample, Score


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
        groups.append(Group(prompt, prompt_ids, tuple(made), tuple(scores)))
    return groups
