"""A world of small images, interfaces, charts and clips: data source `mini` and reward `mini_taste` for morl."""

from morl_mini.taste import mini_taste
from morl_mini.world import KINDS, LEVELS, World, mini

__all__ = ["KINDS", "LEVELS", "World", "mini", "mini_taste"]
