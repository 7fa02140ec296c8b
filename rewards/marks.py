"""Points and boxes that a response and its gold name in an image, for reports."""

from __future__ import annotations

from dataclasses import dataclass

from morl.rewards.parsing.coordinates import Side


@dataclass(frozen=True, slots=True)
class Mark:
    """A point or a box in the first image of a prompt.

    >>> Mark("gold", (0.1, 0.1, 0.5, 0.5), "cat").is_box
    True
    """

    side: Side
    at: tuple[float, ...]
    """`(x, y)` or `(x1, y1, x2, y2)`, as fractions of the image's width and height."""
    label: str = ""

    @property
    def is_box(self) -> bool:
        """Whether it is a box rather than a point."""
        return len(self.at) == 4
