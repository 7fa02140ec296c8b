"""Draws backgrounds, shapes that fill their box exactly, and text in several faces."""

from __future__ import annotations

import functools
import math
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageFont

Box = tuple[int, int, int, int]
"""x1, y1, x2, y2 in pixels; x2 and y2 are exclusive."""
Colour = tuple[int, int, int]

SIDE = 112
"""Width and height of an image: 16 visual tokens at patch 14, merged 2 by 2."""
STEP = 7
"""Coordinates are multiples of this."""

COLOURS: dict[str, Colour] = {
    "red": (220, 30, 35),
    "orange": (255, 135, 0),
    "yellow": (242, 205, 0),
    "green": (30, 150, 60),
    "blue": (35, 85, 225),
    "purple": (140, 40, 190),
    "pink": (255, 130, 190),
    "black": (25, 25, 25),
}
PAPERS: tuple[Colour, ...] = (
    (255, 255, 255),
    (250, 247, 238),
    (232, 236, 242),
    (226, 240, 228),
    (240, 230, 240),
    (222, 222, 222),
)
INKS: tuple[Colour, ...] = ((20, 20, 20), (20, 40, 120), (120, 20, 30), (10, 80, 50))
GREY: Colour = (150, 150, 150)

_STAR = [
    (math.sin(i * math.pi / 5) * (1.0, 0.42)[i % 2], -math.cos(i * math.pi / 5) * (1.0, 0.42)[i % 2]) for i in range(10)
]
_HEART = [
    (16 * math.sin(t) ** 3, -13 * math.cos(t) + 5 * math.cos(2 * t) + 2 * math.cos(3 * t) + math.cos(4 * t))
    for t in (i * math.tau / 36 for i in range(36))
]
_CROSS = ((1, 0), (2, 0), (2, 1), (3, 1), (3, 2), (2, 2), (2, 3), (1, 3), (1, 2), (0, 2), (0, 1), (1, 1))
_POLYGONS = {
    "triangle": [(0.5, 0.0), (1.0, 1.0), (0.0, 1.0)],
    "diamond": [(0.5, 0.0), (1.0, 0.5), (0.5, 1.0), (0.0, 0.5)],
    "star": _STAR,
    "heart": _HEART,
    "cross": [(a / 3, b / 3) for a, b in _CROSS],
}
SHAPES = ("circle", "square", "ring", *_POLYGONS)

FACES = ("sans", "bold", "slant", "mono")
"""All derive from Pillow's two built-in fonts, so that pixels do not depend on the machine."""


def paper(rng: Random, level: int = 1, side: int = SIDE) -> Image.Image:
    """A light background; grainy from level 2 on, with grey scribbles at level 3."""
    image = Image.new("RGB", (side, side), rng.choice(PAPERS))
    if level >= 2:
        grain = Image.frombytes("L", (side, side), rng.randbytes(side * side)).point(_FAINT)
        image = ImageChops.subtract(image, Image.merge("RGB", (grain, grain, grain)))
    if level >= 3:
        pen = ImageDraw.Draw(image)
        for _ in range(rng.randint(2, 5)):
            ends = [rng.randrange(side) for _ in range(4)]
            pen.line(ends, fill=GREY)
    return image


_FAINT = [value // 22 for value in range(256)]


def jitter(colour: Colour, rng: Random, by: int = 12) -> Colour:
    """A random colour close enough to keep its name."""
    r, g, b = (min(255, max(0, value + rng.randint(-by, by))) for value in colour)
    return r, g, b


def shape(image: Image.Image, name: str, box: Box, colour: Colour) -> None:
    """Draw one of `SHAPES`, touching all four sides of its box."""
    pen = ImageDraw.Draw(image)
    x1, y1, x2, y2 = box[0], box[1], box[2] - 1, box[3] - 1
    if name == "square":
        pen.rectangle((x1, y1, x2, y2), fill=colour)
    elif name == "circle":
        pen.ellipse((x1, y1, x2, y2), fill=colour)
    elif name == "ring":
        pen.ellipse((x1, y1, x2, y2), outline=colour, width=max(3, (x2 - x1) // 5))
    else:
        corners = _unit(name)
        pen.polygon([(x1 + round(u * (x2 - x1)), y1 + round(v * (y2 - y1))) for u, v in corners], fill=colour)


@functools.cache
def _unit(name: str) -> list[tuple[float, float]]:
    """Corners of a polygon, stretched to fill the unit square."""
    xs, ys = zip(*_POLYGONS[name], strict=True)
    wide, high = max(xs) - min(xs), max(ys) - min(ys)
    return [((x - min(xs)) / wide, (y - min(ys)) / high) for x, y in _POLYGONS[name]]


def panel(image: Image.Image, box: Box, fill: Colour, edge: Colour | None = GREY, radius: int = 0) -> None:
    """A filled rectangle with corners rounded by `radius`."""
    x1, y1, x2, y2 = box
    ImageDraw.Draw(image).rounded_rectangle((x1, y1, x2 - 1, y2 - 1), radius, fill=fill, outline=edge)


def line(image: Image.Image, start: tuple[int, int], end: tuple[int, int], colour: Colour = GREY) -> None:
    """A line one pixel wide."""
    ImageDraw.Draw(image).line((*start, *end), fill=colour)


@functools.lru_cache(maxsize=8192)
def ink(words: str, face: str, size: int) -> Image.Image:
    """The mask of a text, cropped to its ink. `size` is in pixels; `mono` exists in multiples of 11."""
    if face == "mono":
        bitmap = ImageFont.load_default_imagefont()
        mask = Image.new("L", (len(words) * 6 + 2, 12))
        ImageDraw.Draw(mask).text((0, 0), words, font=bitmap, fill=255)
        scale = max(1, size // 11)
        mask = mask.resize((mask.width * scale, mask.height * scale), Image.Resampling.NEAREST)
    else:
        font = _sans(size)
        left, top, right, bottom = font.getbbox(words)
        mask = Image.new("L", (int(right - left) + size, int(bottom - top) + 4))
        for shift in (0, 1) if face == "bold" else (0,):
            pen = ImageDraw.Draw(mask)
            pen.text((2 - left + shift, 2 - top), words, font=font, fill=255)
        if face == "slant":
            lean = 0.25
            mask = mask.transform(
                mask.size, Image.Transform.AFFINE, (1, lean, -lean * mask.height, 0, 1, 0), Image.Resampling.BILINEAR
            )
    return mask.crop(mask.point(_VISIBLE).getbbox())


_VISIBLE = [0] * 64 + [255] * 192


@functools.cache
def _sans(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise RuntimeError("Pillow was built without FreeType; install a wheel: pip install --force-reinstall pillow")
    return font


def write(
    image: Image.Image, words: str, at: tuple[int, int], face: str = "sans", size: int = 10, colour: Colour = INKS[0]
) -> Box:
    """Write with the ink's top left corner at `at`; returns the box of the ink."""
    mask = ink(words, face, size)
    image.paste(colour, at, mask)
    return at[0], at[1], at[0] + mask.width, at[1] + mask.height


def write_within(
    image: Image.Image, words: str, box: Box, face: str = "sans", size: int = 10, colour: Colour = INKS[0]
) -> Box:
    """Write centred in a box; returns the box of the ink."""
    mask = ink(words, face, size)
    x = (box[0] + box[2] - mask.width) // 2
    return write(image, words, (x, (box[1] + box[3] - mask.height) // 2), face, size, colour)
