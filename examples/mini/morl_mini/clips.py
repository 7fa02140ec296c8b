"""Short clips at one frame per second, in which an event lasts for a while."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal

from PIL import Image

from morl_mini import draw
from morl_mini.draw import COLOURS, Box
from morl_mini.scenes import Name, different_names

SIDE = 56
"""Width and height of a frame; two frames make 4 visual tokens."""
FPS = 1.0

Event = Literal["there", "changed", "moving"]
EVENTS: tuple[Event, ...] = ("there", "changed", "moving")
"""The kinds of event; level 1 has the first, level 2 the first two."""


@dataclass(frozen=True, slots=True)
class Clip:
    """An event from second `start` to second `end`, and its surroundings."""

    event: Event
    actor: Name
    start: int
    end: int
    frames: int
    box: Box
    changed: str = ""
    """The actor's colour during the event."""
    beside: Name | None = None
    """An object that is there all the time."""


def clip(rng: Random, level: int) -> Clip:
    """Level 1: 4 frames, even times. Level 2: 8 frames, even times. Level 3: 8 frames, any times."""
    frames, step = {1: (4, 2), 2: (8, 2), 3: (8, 1)}[level]
    start, end = sorted(rng.sample(range(0, frames + 1, step), 2))
    if level > 1 and end - start == frames:  # an event must begin or end within the clip
        start, end = rng.choice(((0, frames // 2), (frames // 2, frames)))
    event = rng.choice(EVENTS[:level])
    actor, beside = different_names(rng, 2)
    size = rng.choice((21, 28))
    x = rng.choice((0, 28 - size, 7))
    y = draw.STEP * rng.randrange((SIDE - size) // draw.STEP + 1)
    changed = rng.choice([colour for colour in COLOURS if colour != actor[0]]) if event == "changed" else ""
    return Clip(event, actor, start, end, frames, (x, y, x + size, y + size), changed, beside if level > 1 else None)


def question(shown: Clip) -> str:
    """The question about a clip."""
    name = " ".join(shown.actor)
    match shown.event:
        case "there":
            return f"when is the {name} there?"
        case "changed":
            return f"when is the {shown.actor[1]} {shown.changed}?"
        case "moving":
            return f"when does the {name} move?"


def paint(shown: Clip, rng: Random) -> list[Image.Image]:
    """The frames of a clip."""
    ground = draw.paper(rng, 1, SIDE)
    if shown.beside:
        colour, shape = shown.beside
        draw.shape(ground, shape, (35, 28, 56, 49), draw.jitter(COLOURS[colour], rng))
    usual = draw.jitter(COLOURS[shown.actor[0]], rng)
    changed = draw.jitter(COLOURS[shown.changed], rng) if shown.changed else usual
    frames = []
    for second in range(shown.frames):
        frame = ground.copy()
        during = shown.start <= second < shown.end
        if during or shown.event != "there":
            x1, y1, x2, y2 = shown.box
            # While moving it is never at its resting place, nor in one place for two frames.
            down = (7, 14)[(second - shown.start) % 2] if shown.event == "moving" and during else 0
            down = -down if y2 + 14 > SIDE else down
            draw.shape(frame, shown.actor[1], (x1, y1 + down, x2, y2 + down), changed if during else usual)
        frames.append(frame)
    return frames
