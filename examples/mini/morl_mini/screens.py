"""Small interfaces: buttons, a form, a list, a menu, a home screen. The centre of every element lies on the grid."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Literal

from PIL import Image

from morl_mini import draw
from morl_mini.draw import SIDE, Box, Colour

BUTTONS = ("save", "open", "send", "close", "back", "next", "edit", "copy", "print", "find", "done", "stop", "add")
FIELDS = ("name", "city", "mail", "phone", "date", "code")
APPS = ("mail", "maps", "music", "notes", "clock", "tasks", "news", "books", "chat", "bank")
MENUS = ("file", "edit", "view", "help")
ITEMS = ("new", "open", "save", "copy", "print", "find", "close", "undo")
TITLES = ("sign up", "order", "profile", "search", "my list", "inbox")

Layout = Literal["buttons", "form", "list", "menu", "home", "busy", "palette"]
Role = Literal["button", "field", "row", "menu", "item", "app"]


@dataclass(frozen=True, slots=True)
class Element:
    """Something to point to."""

    role: Role
    name: str
    box: Box


@dataclass(frozen=True, slots=True)
class Screen:
    """An interface; elements of one role have distinct names."""

    layout: Layout
    title: str
    elements: tuple[Element, ...]

    def of(self, role: Role) -> tuple[Element, ...]:
        """The elements of a role."""
        return tuple(element for element in self.elements if element.role == role)


def screen(rng: Random, layout: Layout, level: int = 2) -> Screen:
    """A random interface; level 1 has fewer and larger elements."""
    elements = _ELEMENTS[layout](rng, level)
    return Screen(layout, rng.choice(TITLES), tuple(elements))


def _box(x: int, y: int, width: int, height: int) -> Box:
    return x, y, x + width, y + height


def _buttons(rng: Random, level: int) -> list[Element]:
    places = [(x, y) for y in ((21, 56) if level == 1 else (21, 49, 77)) for x in (7, 63)]
    count = rng.randint(2, 4) if level == 1 else rng.randint(3, 6)
    down = rng.choice((0, 7, 14))
    names = rng.sample(BUTTONS, count)
    chosen = sorted(rng.sample(places, count), key=lambda at: (at[1], at[0]))
    height = 28 if level == 1 else 14
    return [Element("button", name, _box(x, y + down, 42, height)) for name, (x, y) in zip(names, chosen, strict=True)]


def _form(rng: Random, level: int) -> list[Element]:
    fields = rng.sample(FIELDS, rng.randint(1, {1: 1, 2: 2, 3: 3}[level]))
    left, width = rng.choice(((7, 98), (14, 84), (21, 70)))
    top, gap = rng.choice((21, 28)), 21
    elements = [Element("field", name, _box(left, top + gap * row, width, 14)) for row, name in enumerate(fields)]
    names = rng.sample(BUTTONS, rng.randint(1, 2))
    xs = rng.choice(((7, 63), (14, 63))) if len(names) == 2 else (rng.choice((7, 35, 63)),)
    return elements + [Element("button", name, _box(x, 91, 42, 14)) for name, x in zip(names, xs, strict=True)]


def _list(rng: Random, level: int) -> list[Element]:
    count = rng.randint(2, {1: 3, 2: 4, 3: 5}[level])
    top, gap = rng.choice((14, 21)), 14 if count > 4 else rng.choice((14, 21))
    return [Element("row", name, _box(7, top + gap * row, 98, 14)) for row, name in enumerate(rng.sample(APPS, count))]


def _menu(rng: Random, level: int) -> list[Element]:
    names = rng.sample(MENUS, 3)
    bar = [Element("menu", name, _box(35 * column, 0, 28, 14)) for column, name in enumerate(names)]
    x = rng.choice((0, 35, 56))
    items = rng.sample(ITEMS, rng.randint(2, level + 2))
    return bar + [Element("item", name, _box(x, 14 + 14 * row, 56, 14)) for row, name in enumerate(items)]


def _home(rng: Random, level: int) -> list[Element]:
    places = [(x, y) for y in (7, 63) for x in (7, 42, 77)]
    count = rng.randint(2, {1: 3, 2: 4, 3: 6}[level])
    names = rng.sample(APPS, count)
    chosen = sorted(rng.sample(places, count), key=lambda at: (at[1], at[0]))
    return [Element("app", name, _box(x, y, 28, 42)) for name, (x, y) in zip(names, chosen, strict=True)]


def _busy(rng: Random, level: int) -> list[Element]:
    return [Element("button", rng.choice(BUTTONS), _box(35, 84, 42, 14))]


def _palette(rng: Random, level: int) -> list[Element]:
    """Buttons that differ in colour and have no text."""
    places = [(x, y) for y in (21, 49, 77) for x in (7, 42, 77)]
    count = rng.randint(2, 2 * level + 1)
    chosen = sorted(rng.sample(places, count), key=lambda at: (at[1], at[0]))
    named = zip(rng.sample(tuple(draw.COLOURS), count), chosen, strict=True)
    return [Element("button", name, _box(x, y, 28, rng.choice((14, 21)))) for name, (x, y) in named]


_ELEMENTS = {
    "buttons": _buttons,
    "form": _form,
    "list": _list,
    "menu": _menu,
    "home": _home,
    "busy": _busy,
    "palette": _palette,
}


_WINDOWS: tuple[Colour, ...] = ((250, 250, 250), (238, 241, 245), (245, 240, 230))
_THEMES: tuple[Colour, ...] = ((40, 90, 200), (20, 120, 90), (120, 60, 160), (70, 80, 95), (190, 80, 30))
_WHITE: Colour = (255, 255, 255)
_HINT: Colour = (105, 105, 105)


def paint(shown: Screen, rng: Random) -> Image.Image:
    """The image of an interface."""
    image = Image.new("RGB", (SIDE, SIDE), rng.choice(_WINDOWS))
    theme, face = rng.choice(_THEMES), rng.choice(("sans", "sans", "bold"))
    if shown.layout in ("buttons", "form", "list", "busy", "palette"):
        draw.panel(image, (0, 0, SIDE, 12), theme, edge=None)
        draw.write(image, shown.title, (4, 2), "sans", 10, _WHITE)
    elif shown.layout == "menu":
        draw.panel(image, (0, 0, SIDE, 14), (225, 228, 232), edge=None)
    if shown.layout == "busy":
        draw.write_within(image, "loading", (0, 30, SIDE, 50), face, 14)
        draw.panel(image, (21, 56, 91, 64), _WHITE)
        draw.panel(image, (21, 56, rng.randint(30, 80), 64), theme)
    for element in shown.elements:
        paint_it = _paint_blank if shown.layout == "palette" else _PAINTERS[element.role]
        paint_it(image, element, theme, face, rng)
    return image


def _paint_blank(image: Image.Image, element: Element, theme: Colour, face: str, rng: Random) -> None:
    draw.panel(image, element.box, draw.jitter(draw.COLOURS[element.name], rng), radius=3)


def _paint_button(image: Image.Image, element: Element, theme: Colour, face: str, rng: Random) -> None:
    draw.panel(image, element.box, theme, radius=3)
    draw.write_within(image, element.name, element.box, face, 11, _WHITE)


def _paint_field(image: Image.Image, element: Element, theme: Colour, face: str, rng: Random) -> None:
    draw.panel(image, element.box, _WHITE, edge=theme)
    mask = draw.ink(element.name, face, 10)
    middle = (element.box[1] + element.box[3] - mask.height) // 2
    draw.write(image, element.name, (element.box[0] + 4, middle), face, 10, _HINT)


def _paint_row(image: Image.Image, element: Element, theme: Colour, face: str, rng: Random) -> None:
    x1, y1, x2, y2 = element.box
    draw.line(image, (x1, y2 - 1), (x2 - 1, y2 - 1))
    draw.panel(image, (x1 + 1, y1 + 2, x1 + 10, y2 - 3), draw.jitter(rng.choice(_THEMES), rng), edge=None)
    mask = draw.ink(element.name, face, 11)
    draw.write(image, element.name, (x1 + 16, (y1 + y2 - mask.height) // 2), face, 11)


def _paint_menu(image: Image.Image, element: Element, theme: Colour, face: str, rng: Random) -> None:
    draw.write_within(image, element.name, element.box, face, 11)


def _paint_item(image: Image.Image, element: Element, theme: Colour, face: str, rng: Random) -> None:
    draw.panel(image, element.box, _WHITE)
    mask = draw.ink(element.name, face, 11)
    middle = (element.box[1] + element.box[3] - mask.height) // 2
    draw.write(image, element.name, (element.box[0] + 5, middle), face, 11)


def _paint_app(image: Image.Image, element: Element, theme: Colour, face: str, rng: Random) -> None:
    x1, y1, x2, y2 = element.box
    draw.panel(image, (x1 + 2, y1, x2 - 2, y1 + 24), draw.jitter(rng.choice(_THEMES), rng, 40), edge=None, radius=5)
    draw.shape(image, rng.choice(draw.SHAPES), (x1 + 8, y1 + 6, x1 + 20, y1 + 18), _WHITE)
    draw.write_within(image, element.name, (x1, y1 + 27, x2, y2), "sans", 10)


_PAINTERS = {
    "button": _paint_button,
    "field": _paint_field,
    "row": _paint_row,
    "menu": _paint_menu,
    "item": _paint_item,
    "app": _paint_app,
}
