"""Chance that is a function of its key, and the split of all content into what is trained on and what is not."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Hashable
from typing import Literal

Split = Literal["train", "held_out"]

HELD_OUT = 8
"""One in so many contents is held out."""


def stream(*key: Hashable) -> random.Random:
    """Draws that depend on `key` alone: the same in any process and in any order."""
    return random.Random(_digest(key))


def split_of(content: Hashable) -> Split:
    """Where a content belongs, whatever kind of question is asked about it, and under whatever seed.

    A scene that some row of `train` shows can so never be in a row of `held_out`.
    """
    return "train" if _digest(content) % HELD_OUT else "held_out"


def _digest(value: Hashable) -> int:
    return int.from_bytes(hashlib.blake2b(repr(value).encode(), digest_size=8).digest(), "big")
