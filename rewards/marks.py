"""What an answer and its gold point at in a picture, for people to look at."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from morl.rewards.parsing.coordinates import Frame, transfer
from morl.rewards.parsing.image_size import Resize

Side = Literal["gold", "answer"]


@dataclass(frozen=True, slots=True)
class Mark:
    """A point or a box in the first picture of a prompt.

    >>> Mark("gold", (0.1, 0.1, 0.5, 0.5), "cat").is_box
    True
    """

    side: Side
    at: tuple[float, ...]
    """`(x, y)` or `(x1, y1, x2, y2)`, in parts of the picture's width and height."""
    label: str = ""

    @property
    def is_box(self) -> bool:
        """Whether it is a box, and not a point."""
        return len(self.at) == 4


def into_parts(
    frame: Frame,
    media: Sequence[Any],
    meta: Mapping[str, Any],
    size_from: str | list[str] | None,
    resize: Resize,
) -> Callable[[Sequence[float]], tuple[float, ...]]:
    """From a frame to parts of the picture. Raises: ValueError when its size is needed and nothing tells it."""
    return transfer(frame, "relative_1", media, meta, size_from, resize)


def call_with(function: Callable[..., Any], available: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """Call a function with those of the values and options that it names."""
    parameters = inspect.signature(function).parameters.values()
    given = {p.name: available[p.name] for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD}
    given |= {p.name: options[p.name] for p in parameters if p.kind is p.KEYWORD_ONLY and p.name in options}
    return function(**given)
