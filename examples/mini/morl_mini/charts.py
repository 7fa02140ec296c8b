"""Bar charts with labels, vertical or horizontal."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from PIL import Image

from morl_mini import draw
from morl_mini.draw import COLOURS, SIDE, Box

GROUPS = (
    ("mon", "tue", "wed", "thu", "fri", "sat", "sun"),
    ("jan", "feb", "mar", "apr", "may", "jun", "jul"),
    ("ann", "ben", "eva", "tom", "zoe", "max", "kim"),
    ("cat", "dog", "cow", "pig", "hen", "fox", "bee"),
)
HIGHEST = {1: 9, 2: 12, 3: 20}
"""The largest value by level; the smallest is 1."""


@dataclass(frozen=True, slots=True)
class Chart:
    """Bars with distinct labels, values and colours."""

    labels: tuple[str, ...]
    values: tuple[int, ...]
    colours: tuple[str, ...]
    lying: bool


def chart(rng: Random, level: int) -> Chart:
    """A chart of 2 to 5 bars."""
    bars = rng.randint(*{1: (2, 3), 2: (3, 4), 3: (4, 5)}[level])
    return Chart(
        tuple(rng.sample(rng.choice(GROUPS), bars)),
        tuple(rng.sample(range(1, HIGHEST[level] + 1), bars)),
        tuple(rng.sample(tuple(COLOURS), bars)),
        rng.random() < 0.5 or bars > 4,  # the labels of five vertical bars would touch
    )


def bar_boxes(shown: Chart, level: int) -> list[Box]:
    """The boxes of the bars; values stand beside the bars, labels below or left of them."""
    slot = 96 // len(shown.values)
    thick = min(20, slot - 4)
    boxes: list[Box] = []
    for index, value in enumerate(shown.values):
        length = max(3, value * (62 if shown.lying else 78) // HIGHEST[level])
        start = 10 + index * slot + (slot - thick) // 2
        if shown.lying:
            boxes.append((28, start, 28 + length, start + thick))
        else:
            boxes.append((start, 97 - length, start + thick, 97))
    return boxes


def paint(shown: Chart, rng: Random, level: int) -> Image.Image:
    """The image of a chart."""
    image = draw.paper(rng, min(level, 2))
    face, ink = rng.choice(("sans", "bold", "mono")), rng.choice(draw.INKS)
    bars = zip(shown.labels, shown.values, shown.colours, bar_boxes(shown, level), strict=True)
    for label, value, colour, box in bars:
        draw.panel(image, box, draw.jitter(COLOURS[colour], rng), edge=None)
        x1, y1, x2, y2 = box
        if shown.lying:
            draw.write_within(image, label, (2, y1, 26, y2), face, 11, ink)
            number = draw.ink(str(value), face, 11)
            draw.write(image, str(value), (x2 + 2, (y1 + y2 - number.height) // 2), face, 11, ink)
        else:
            middle = (x1 + x2) // 2
            draw.write_within(image, label, (middle - 12, 98, middle + 12, SIDE), face, 11, ink)
            draw.write_within(image, str(value), (middle - 9, y1 - 11, middle + 9, y1 - 1), face, 11, ink)
    if shown.lying:
        draw.line(image, (27, 6), (27, SIDE - 6), ink)
    else:
        draw.line(image, (6, 97), (SIDE - 6, 97), ink)
    return image
