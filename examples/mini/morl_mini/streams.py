"""Random streams determined by a key, and the split of all content into training and held-out."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Hashable
from typing import Literal

Split = Literal["train", "held_out"]

HELD_OUT = 8
"""One in this many contents is held out."""


def stream(*key: Hashable) -> random.Random:
    """Random draws determined by `key` alone: the same in any process and any order."""
    return random.Random(_digest(key))


def split_of(content: Hashable) -> Split:
    """The split of a content, for every kind of question and every seed.

    So a scene in a row of `train` is never in a row of `held_out`.
    """
    return "train" if _digest(content) % HELD_OUT else "held_out"


def _digest(value: Hashable) -> int:
    return int.from_bytes(hashlib.blake2b(repr(value).encode(), digest_size=8).digest(), "big")
