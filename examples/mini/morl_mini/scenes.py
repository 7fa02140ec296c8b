"""Scenes: things with a colour and a shape, placed on a grid without touching."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from PIL import Image

from morl_mini import draw
from morl_mini.draw import COLOURS, SHAPES, SIDE, STEP, Box


@dataclass(frozen=True, slots=True)
class Thing:
    """One object in a scene."""

    colour: str
    shape: str
    box: Box

    @property
    def name(self) -> str:
        """`red star`."""
        return f"{self.colour} {self.shape}"


Scene = tuple[Thing, ...]
"""Things in reading order: by rows, then from the left."""
Name = tuple[str, str]
"""Colour and shape."""

SIZES = {1: (28, 42), 2: (21, 28, 35), 3: (21, 28)}
"""Sides of things by level, in pixels."""


def scene(names: Sequence[Name], rng: Random, level: int) -> Scene:
    """Place things with these names. Level 1 uses every second line of the grid."""
    while True:
        boxes: list[Box] = []
        for _ in names:
            box = _free(boxes, rng, level)
            if box is None:
                break
            boxes.append(box)
        else:
            things = (Thing(colour, shape, box) for (colour, shape), box in zip(names, boxes, strict=True))
            return tuple(sorted(things, key=lambda thing: (thing.box[1], thing.box[0])))


def _free(taken: Sequence[Box], rng: Random, level: int) -> Box | None:
    step = 2 * STEP if level == 1 else STEP
    for _ in range(40):
        size = rng.choice(SIZES[level])
        x, y = (step * rng.randrange((SIDE - size) // step + 1) for _ in "xy")
        box = (x, y, x + size, y + size)
        if not any(_near(box, other) for other in taken):
            return box
    return None


def _near(a: Box, b: Box) -> bool:
    return a[0] < b[2] + STEP and b[0] < a[2] + STEP and a[1] < b[3] + STEP and b[1] < a[3] + STEP


def any_name(rng: Random) -> Name:
    """A colour and a shape."""
    return rng.choice(tuple(COLOURS)), rng.choice(SHAPES)


def different_names(rng: Random, count: int, alike: bool = False) -> list[Name]:
    """Distinct names; if `alike`, most share colour or shape with the first."""
    names = [any_name(rng)]
    while len(names) < count:
        colour, shape = any_name(rng)
        if alike and rng.random() < 0.7:
            colour, shape = (names[0][0], shape) if rng.random() < 0.5 else (colour, names[0][1])
        if (colour, shape) not in names:
            names.append((colour, shape))
    return names


def things_at(rng: Random, level: int) -> int:
    """The number of things in a scene of a level."""
    return rng.randint(*{1: (1, 2), 2: (2, 3), 3: (3, 5)}[level])


def paint(things: Scene, rng: Random, level: int) -> Image.Image:
    """The image of a scene."""
    image = draw.paper(rng, level)
    for thing in things:
        draw.shape(image, thing.shape, thing.box, draw.jitter(COLOURS[thing.colour], rng))
    return image
