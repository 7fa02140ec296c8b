"""The miniature world as a source of rows: `data: {source: mini, kind: box, split: train, level: 2}`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Annotated, Any, Literal

from pydantic import Field

from morl.registry import SOURCES
from morl_mini import gui, tasks
from morl_mini.draw import SIDE
from morl_mini.streams import Split, split_of, stream
from morl_mini.tasks import Draft

LEVELS = (1, 2, 3)
"""From easy to hard."""
Level = Annotated[int, Field(ge=1, le=3)]


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of question."""

    draft: Callable[[Random, int], Draft]
    media: Literal["", "image", "video"]
    """The column with the image or the frames."""
    reward: str
    """The verifier of its answers."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The verifier's options."""


_PIXELS = {"frame": "absolute_resized", "gold_frame": "absolute", "max_pixels": 4 * SIDE * SIDE}

KINDS: dict[str, Kind] = {
    "math": Kind(tasks.math, "", "math"),
    "read": Kind(tasks.read, "", "text"),
    "retell": Kind(tasks.retell, "", "mini_taste"),
    "caption": Kind(tasks.caption, "image", "box", {**_PIXELS, "match_labels": True, "metric": "iou"}),
    "box": Kind(tasks.box, "image", "box", {**_PIXELS, "metric": "iou"}),
    "locate": Kind(tasks.locate, "image", "text"),
    "count": Kind(tasks.count, "image", "count"),
    "choice": Kind(tasks.choice, "image", "choice", {"options_from": "options"}),
    "ocr": Kind(tasks.ocr, "image", "text"),
    "chart": Kind(tasks.chart, "image", "text"),
    "describe": Kind(tasks.describe, "image", "mini_taste"),
    "elements": Kind(gui.elements, "image", "box", {**_PIXELS, "match_labels": True, "metric": "iou"}),
    "element": Kind(gui.element, "image", "box", {**_PIXELS, "match_labels": True, "metric": "iou"}),
    "point": Kind(gui.point, "image", "point", _PIXELS),
    "point_colour": Kind(gui.point_colour, "image", "point", _PIXELS),
    "gui_action": Kind(gui.gui_action, "image", "gui_action", _PIXELS),
    "act_colour": Kind(gui.act_colour, "image", "gui_action", _PIXELS),
    "temporal": Kind(tasks.temporal, "video", "temporal"),
}

KindName = Literal[
    "math", "read", "retell", "caption", "box", "locate", "count", "choice", "ocr", "chart", "describe", "elements",
    "element", "point", "point_colour", "gui_action", "act_colour", "temporal",
]  # fmt: skip


class World:
    """Endless rows of one kind: `world[index]` for any index from 0, the same in every process and order."""

    def __init__(self, kind: KindName, split: Split = "train", level: int = 1, seed: int = 0) -> None:
        self._kind, self._split, self._level, self._seed = kind, split, level, seed

    def draft(self, index: int) -> Draft:
        """A row without its image."""
        return self._draft(index)[0]

    def _draft(self, index: int) -> tuple[Draft, Random]:
        if index < 0:
            raise IndexError(f"rows are numbered from 0, not {index}")
        rng = stream(self._seed, self._kind, self._split, self._level, index)
        while True:
            draft = KINDS[self._kind].draft(rng, self._level)
            if split_of(draft.content) == self._split:
                return draft, rng

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """Row `index`: `question`, `gold`, `answer`, `thought`, `reasoned`, and `image` or `video`.

        `answer` is a perfect model's answer, `reasoned` the same after its `thought`. A video is
        `{"frames": [...], "fps": 1.0}`. Rows of `describe` and `retell` also have a `chosen` and a `rejected` answer.
        """
        draft, rng = self._draft(index)
        row = {
            "kind": self._kind,
            "question": draft.question,
            "gold": draft.gold,
            "answer": draft.answer,
            "thought": draft.thought,
            "reasoned": f"<think>{draft.thought}</think>{draft.answer}",
            **draft.extra,
        }
        if draft.paint is not None:
            row[KINDS[self._kind].media] = draft.paint(rng)
        return row

    def where(self, index: int) -> str:
        """The row's origin: `mini(box, train, level 2, seed 0)[17]`."""
        return f"mini({self._kind}, {self._split}, level {self._level}, seed {self._seed})[{index}]"


class Rows:
    """The first `count` rows of a world, or of several in turn, each made on access."""

    def __init__(self, worlds: Sequence[World], count: int) -> None:
        self._worlds, self._count = worlds, count

    def _world(self, index: int) -> World:
        return self._worlds[index % len(self._worlds)]

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> Mapping[str, Any]:
        """See `World`. Raises: IndexError beyond the last row."""
        if index >= self._count:
            raise IndexError(f"row {index} of {self._count}")
        return self._world(index)[index]

    def where(self, index: int) -> str:
        """See `World.where`."""
        return self._world(index).where(index)


@SOURCES.register("mini")
def mini(
    *,
    kind: Annotated[KindName, Field(description="The kind of question.")],
    split: Annotated[Split, Field(description="The splits share no scene.")] = "train",
    count: Annotated[int, Field(ge=1, description="Rows.")] = 100_000,
    level: Annotated[
        Level | Annotated[list[Level], Field(min_length=1)],
        Field(description="1 is easy; rows of several levels alternate."),
    ] = 1,
    seed: Annotated[int, Field(ge=0, description="Determines the rows.")] = 0,
) -> Rows:
    """Generated rows of the miniature world: images, interfaces, charts and clips, with questions and answers."""
    levels = level if isinstance(level, list) else [level]
    return Rows([World(kind, split, one, seed) for one in levels], count)
