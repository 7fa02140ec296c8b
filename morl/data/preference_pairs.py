"""Preference pairs: loading, splitting off held-out ones, and the order of epochs."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from morl.data.prompt_set import load_prompts
from morl.errors import DataError
from morl.recipe import PreferenceSpec
from morl.types import Prompt

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pair:
    """Two answers to one prompt, one of them preferred."""

    prompt: Prompt
    chosen: str
    rejected: str
    where: str
    """The row, as `data/pairs.jsonl:17`."""
    question: str
    """Identifies the question: equal for equal prompts in any row, whatever folder holds the data."""


def load_pairs(spec: PreferenceSpec) -> list[Pair]:
    """All pairs of the data, except those with equal answers and those that `bad_media: skip` leaves out.

    Raises: DataError naming the row that cannot be read.
    """
    prompts = load_prompts(spec, "preference", "preference", "data")
    pairs, equal = [], 0
    for index in range(len(prompts)):
        prompt, where = prompts.usable(index), prompts.where(index)
        if prompt is None:
            continue
        answers = [prompt.gold[side] for side in ("chosen", "rejected")]
        for side, answer in zip(("chosen", "rejected"), answers, strict=True):
            if not isinstance(answer, str) or not answer.strip():
                raise DataError(f"{where}: preference.{side}: should be the text of an answer, not {answer!r:.60}")
        if answers[0].strip() == answers[1].strip():
            equal += 1
        else:
            pairs.append(Pair(prompt, answers[0], answers[1], where, _question(prompt, prompts.folder)))
    if equal:
        logger.warning("%d of %d pairs are left out: their two answers are the same", equal, len(prompts))
    if prompts.skipped:
        logger.warning("%d of %d pairs are left out: their images are bad", prompts.skipped, len(prompts))
    return pairs


def _question(prompt: Prompt, folder: Path | None) -> str:
    # The name of a video of frames holds two paths.
    paths = [item.name.split(" … ") for item in prompt.media]
    names = [[path.removeprefix(f"{folder}/") for path in item_paths] for item_paths in paths]
    return json.dumps([[dict(message) for message in prompt.messages], names], sort_keys=True)


def split(pairs: Sequence[Pair], share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Split into training and held-out pairs; all pairs of one question go to the same side.

    Raises: DataError when either is empty.
    """
    held_out = [pair for pair in pairs if _draw(seed, pair.question) < share]
    training = [pair for pair in pairs if _draw(seed, pair.question) >= share]
    if not held_out or not training:
        raise DataError(
            f"preference.held_out={share:g} leaves {len(training)} pairs to learn from and {len(held_out)} to measure "
            "on; both are needed: add pairs with different prompts, or change the share"
        )
    return training, held_out


def _draw(seed: int, text: str) -> float:
    """A number in [0, 1) that depends only on the arguments."""
    return int(_digest(f"{seed}/{text}".encode()), 16) / 2**64


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def pairs_of_step(step: int, pairs_per_step: int, total: int, seed: int) -> list[int]:
    """Indices of the pairs of step `step`, counted from 1; each epoch shuffles all pairs anew."""
    positions = range((step - 1) * pairs_per_step, step * pairs_per_step)
    orders = {
        epoch: np.random.default_rng([seed, epoch]).permutation(total) for epoch in {p // total for p in positions}
    }
    return [int(orders[p // total][p % total]) for p in positions]
