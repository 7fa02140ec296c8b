"""Questions of every kind: from a random stream and a level to question, gold, model answer and image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Any

from morl_mini import charts, clips, draw, scenes, taste, words
from morl_mini.answers import boxed, labelled, listed, place, span
from morl_mini.draw import COLOURS, SHAPES
from morl_mini.scenes import Scene, Thing

Paint = Callable[[Random], Any]


@dataclass(frozen=True, slots=True)
class Draft:
    """A row before its image is drawn."""

    content: Hashable
    """Determines the split: the scene, or the text if there is no scene."""
    question: str
    gold: Any
    answer: str
    """A model answer, scored 1 by its verifier."""
    thought: str
    """The short reasoning that leads to it."""
    paint: Paint | None = None
    """Draws the image, or the frames of the clip."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further columns of the row."""


def math(rng: Random, level: int) -> Draft:
    """Arithmetic and word problems."""
    problem = words.problem(rng, level)
    return Draft(problem.question, problem.question, problem.result, boxed(problem.result), problem.working)


def _scene(rng: Random, level: int, at_least: int = 1) -> Scene:
    count = max(at_least, scenes.things_at(rng, level))
    return scenes.scene(scenes.different_names(rng, count, alike=level == 3), rng, level)


def _about(things: Scene, level: int, question: str, gold: Any, answer: str, thought: str, **extra: Any) -> Draft:
    return Draft(things, question, gold, answer, thought, lambda rng: scenes.paint(things, rng, level), extra)


def _list(things: Scene) -> list[Mapping[str, Any]]:
    return [labelled(thing.name, thing.box) for thing in things]


def caption(rng: Random, level: int) -> Draft:
    """Everything in the image with its box, in reading order."""
    things = _scene(rng, level)
    return _about(things, level, "list everything.", _list(things), listed(_list(things)), _seen(things))


def _seen(things: Scene) -> str:
    return ", ".join(f"{thing.name} at {place(thing.box)}" for thing in things)


def box(rng: Random, level: int) -> Draft:
    """The box of one named thing; at level 3 others look similar."""
    things = _scene(rng, level)
    thing = rng.choice(things)
    answer = listed([labelled(thing.name, thing.box)])
    return _about(things, level, f"box the {thing.name}.", list(thing.box), answer, f"it is at {place(thing.box)}")


def locate(rng: Random, level: int) -> Draft:
    """The place of a thing, in words: which ninth of the image."""
    things = _scene(rng, level)
    thing = rng.choice(things)
    answer = place(thing.box)
    return _about(things, level, f"where is the {thing.name}?", answer, answer, _seen((thing,)))


def _counted(rng: Random, level: int) -> tuple[Scene, str, int]:
    """A scene with repetitions, what to count in it, and the number."""
    total = rng.randint(1, {1: 3, 2: 5, 3: 7}[level])
    colours, shapes = (rng.sample(list(names), 2) for names in (COLOURS, SHAPES))
    names = [(rng.choice(colours), rng.choice(shapes)) for _ in range(total)]
    things = scenes.scene(names, rng, 2 if level == 1 else 3)
    colour, shape = rng.choice(names) if rng.random() < 0.85 else (rng.choice(colours), rng.choice(shapes))
    by = rng.choice(("thing",) if level == 1 else ("colour", "shape") if level == 2 else ("colour", "shape", "both"))
    match by:
        case "thing":
            return things, "things", total
        case "colour":
            return things, f"{colour} things", sum(thing.colour == colour for thing in things)
        case "shape":
            return things, _plural(shape), sum(thing.shape == shape for thing in things)
    return things, f"{colour} {_plural(shape)}", sum((thing.colour, thing.shape) == (colour, shape) for thing in things)


def _plural(shape: str) -> str:
    return "crosses" if shape == "cross" else f"{shape}s"


def count(rng: Random, level: int) -> Draft:
    """The number of things of a colour, a shape, or both."""
    things, what, number = _counted(rng, level)
    return _about(things, level, f"how many {what}?", number, boxed(number), _tally(things))


def _tally(things: Scene) -> str:
    return ", ".join(f"{number} {name}" for name, number in Counter(thing.name for thing in things).items())


def choice(rng: Random, level: int) -> Draft:
    """A question about colour, shape or place, with 2 to 4 options."""
    things = _scene(rng, level, at_least=2)
    thing = rng.choice(things)
    question, right, rest = _asked(things, thing, rng, level)
    options = [right, *rng.sample(rest, min(len(rest), level))]
    rng.shuffle(options)
    letter = "ABCD"[options.index(right)]
    shown = " ".join(f"{'ABCD'[index]}) {option}" for index, option in enumerate(options))
    return _about(things, level, f"{question} {shown}", letter, letter, right, options=options)


def _asked(things: Scene, thing: Thing, rng: Random, level: int) -> tuple[str, str, list[str]]:
    """A question about a thing, its answer, and the wrong options."""
    same_shape = sum(other.shape == thing.shape for other in things)
    same_colour = sum(other.colour == thing.colour for other in things)
    kinds = ["colour"] * (same_shape == 1) + ["shape"] * (same_colour == 1) + ["there"] + ["side"] * (level > 1)
    match rng.choice(kinds):
        case "colour":
            return f"what colour is the {thing.shape}?", thing.colour, [c for c in COLOURS if c != thing.colour]
        case "shape":
            return f"what is {thing.colour}?", thing.shape, [shape for shape in SHAPES if shape != thing.shape]
        case "side":
            right = place(thing.box)
            sides = ["top left", "top right", "bottom left", "bottom right", "middle", "left", "right", "top", "bottom"]
            return f"where is the {thing.name}?", right, [side for side in sides if side != right]
    seen = {other.name for other in things}
    others = (f"{colour} {shape}" for colour, shape in scenes.different_names(rng, 9))
    return "what is there?", thing.name, [name for name in others if name not in seen]


OCR_WORDS = (
    "apple", "bank", "bird", "book", "bread", "bus", "cafe", "cake", "chair", "city", "cold", "door", "exit", "farm",
    "fish", "food", "gate", "gold", "green", "hall", "home", "hotel", "ice", "juice", "king", "lake", "lamp", "milk",
    "moon", "music", "north", "open", "park", "pizza", "queen", "rain", "river", "road", "sale", "salt", "school",
    "shop", "snow", "south", "stop", "sugar", "sun", "taxi", "tea", "train", "tree", "water", "wind", "zoo",
)  # fmt: skip


_DARK = ("red", "green", "blue", "purple", "black")
"""Colours that are readable on the background."""


def ocr(rng: Random, level: int) -> Draft:
    """A word in a random face and size; level 2 asks for one of two by its colour, level 3 for a code."""
    face = rng.choice(draw.FACES)
    size = 22 if face == "mono" else rng.randint(*{1: (22, 28), 2: (16, 24), 3: (18, 24)}[level])
    texts = rng.sample(OCR_WORDS, 2 if level == 2 else 1)
    if level == 3:
        texts = ["".join(rng.choice("abcdefhkmnprtuvwxyz234679") for _ in range(rng.randint(3, 4)))]
    colours = rng.sample(_DARK, len(texts))
    masks = [draw.ink(text, face, size) for text in texts]
    rows = [rng.randint(*rows) for rows in (((10, 28), (62, 80)) if level == 2 else ((14, 76),))]
    spots = [(rng.randint(2, max(2, draw.SIDE - mask.width - 2)), row) for mask, row in zip(masks, rows, strict=True)]

    def paint(rng: Random) -> Any:
        image = draw.paper(rng, level)
        for text, colour, spot in zip(texts, colours, spots, strict=True):
            draw.write(image, text, spot, face, size, draw.jitter(COLOURS[colour], rng))
        return image

    question = f"read the {colours[0]} word." if level == 2 else "read the text."
    content = tuple(sorted(texts)) if level == 3 else tuple(zip(texts, colours, spots, strict=True))
    ink = [[x, y, x + mask.width, y + mask.height] for (x, y), mask in zip(spots, masks, strict=True)]
    return Draft(content, question, texts[0], texts[0], f"it says {texts[0]}", paint, {"ink": ink})


def chart(rng: Random, level: int) -> Draft:
    """The largest or smallest bar, the value of one, the sum or difference of two."""
    shown = charts.chart(rng, level)
    bars = list(zip(shown.labels, shown.values, shown.colours, strict=True))
    one, other = rng.sample(bars, 2)
    thought = ", ".join(f"{label} {value}" for label, value, _ in bars)
    questions = {1: ("most", "least", "colour"), 2: ("most", "least", "value"), 3: ("value", "sum", "more")}[level]
    match rng.choice(questions):
        case "most":
            question, gold = "which is the largest?", max(bars, key=lambda bar: bar[1])[0]
        case "least":
            question, gold = "which is the smallest?", min(bars, key=lambda bar: bar[1])[0]
        case "colour":
            question, gold = f"which is {one[2]}?", one[0]
        case "value":
            question, gold = f"how much is {one[0]}?", str(one[1])
        case "sum":
            question, gold = f"how much are {one[0]} and {other[0]}?", str(one[1] + other[1])
        case _:
            one, other = sorted((one, other), key=lambda bar: -bar[1])
            question, gold = f"how much more is {one[0]} than {other[0]}?", str(one[1] - other[1])
    return Draft(shown, question, gold, gold, thought, lambda rng: charts.paint(shown, rng, level))


def temporal(rng: Random, level: int) -> Draft:
    """The start and end of an event in a clip."""
    shown = clips.clip(rng, level)
    answer = span(shown.start, shown.end)
    thought = f"it starts at {shown.start} and ends at {shown.end}"
    gold = [shown.start, shown.end]

    def paint(rng: Random) -> Any:
        return {"frames": clips.paint(shown, rng), "fps": clips.FPS}

    return Draft(shown, clips.question(shown), gold, answer, thought, paint)


def _names(rng: Random, level: int) -> Scene:
    return scenes.scene(scenes.different_names(rng, level), rng, level)


def describe(rng: Random, level: int) -> Draft:
    """The preferred sentence about 1 to 3 things; with a better and a worse answer for a reward model."""
    things = _names(rng, level)
    names = [(thing.colour, thing.shape) for thing in things]
    chosen, rejected = taste.pair(names, rng)
    answer = taste.describe(names, rng.choice(taste.POLITE))
    gold = [list(name) for name in names]
    return _about(things, level, "what do you see?", gold, answer, _seen(things), chosen=chosen, rejected=rejected)


def retell(rng: Random, level: int) -> Draft:
    """Like `describe`, but of a scene in words: for a text-only policy or reward model."""
    draft = describe(rng, level)
    question = f"there is {', '.join(f'{colour} {shape}' for colour, shape in draft.gold)}. what do you see?"
    return Draft(draft.content, question, draft.gold, draft.answer, draft.thought, None, draft.extra)


def read(rng: Random, level: int) -> Draft:
    """Questions about a scene given as a list: the same phrases without an image, to learn the language."""
    things = _scene(rng, level)
    thing = rng.choice(things)
    scene = listed(_list(things))
    match rng.choice(("copy", "box", "where", "how many", "colour")):
        case "copy":
            question, answer = "list everything.", scene
        case "box":
            question, answer = f"box the {thing.name}.", listed([labelled(thing.name, thing.box)])
        case "where":
            question, answer = f"where is the {thing.name}?", place(thing.box)
        case "how many":
            question, answer = "how many things?", boxed(len(things))
        case _:
            same = sorted({other.colour for other in things if other.shape == thing.shape})
            question, answer = f"what colour is the {thing.shape}?", " and ".join(same)
    gold = answer.removeprefix("\\boxed{").removesuffix("}") if answer.startswith("\\") else answer
    return Draft(things, f"{scene} {question}", gold, answer, _seen(things))
