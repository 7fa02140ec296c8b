"""A contact sheet of rows to look at: `python -m morl_mini.sheet out.png --kind box --level 2`."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any, get_args

from PIL import Image, ImageDraw, ImageFont

from morl_mini.draw import SIDE
from morl_mini.streams import Split
from morl_mini.world import KINDS, LEVELS, World

_CELL, _TEXT, _COLUMNS = SIDE * 2, 64, 6


def cell(row: Mapping[str, Any]) -> Image.Image:
    """A row: its image at twice the size, or its frames side by side, with question and answer below."""
    image = Image.new("RGB", (_CELL, _CELL + _TEXT), (255, 255, 255))
    if "image" in row:
        image.paste(row["image"].resize((_CELL, _CELL), Image.Resampling.NEAREST))
    for index, frame in enumerate(row["video"]["frames"] if "video" in row else ()):
        image.paste(frame, (index % 4 * SIDE // 2, index // 4 * SIDE // 2))
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(11)
    for box in _boxes(row):
        pen.rectangle([2 * side for side in box], outline=(255, 0, 255))
    lines = [*textwrap.wrap(row["question"], 42)[:3], *textwrap.wrap(row["answer"], 42)[:3]]
    pen.multiline_text((2, _CELL + 1), "\n".join(lines), fill=(0, 0, 0), font=font, spacing=0)
    return image


def _boxes(row: Mapping[str, Any]) -> list[list[int]]:
    """The boxes that a row states."""
    match row["kind"]:
        case "box":
            return [row["gold"]]
        case "caption" | "elements" | "element":
            return [item["bbox_2d"] for item in row["gold"]]
        case "ocr":
            return list(row["ink"])
    return [row["target"]] if "target" in row else []


def sheet(rows: Sequence[Mapping[str, Any]]) -> Image.Image:
    """Rows laid out in six columns."""
    lines = -(-len(rows) // _COLUMNS)
    image = Image.new("RGB", (_COLUMNS * (_CELL + 6), lines * (_CELL + _TEXT + 6)), (190, 190, 190))
    for index, row in enumerate(rows):
        image.paste(cell(row), (index % _COLUMNS * (_CELL + 6), index // _COLUMNS * (_CELL + _TEXT + 6)))
    return image


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a sheet of 36 rows: of one kind, or of all kinds in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kind", choices=list(KINDS))
    parser.add_argument("--level", type=int, choices=LEVELS)
    parser.add_argument("--split", choices=get_args(Split), default="train")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    kinds = [options.kind] if options.kind else list(KINDS)
    levels = [options.level] if options.level else list(LEVELS)
    worlds = [World(kind, options.split, level, options.seed) for level, kind in product(levels, kinds)]
    sheet([worlds[index % len(worlds)][index // len(worlds)] for index in range(36)]).save(options.out)


if __name__ == "__main__":
    main()
