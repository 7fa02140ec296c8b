"""`box` in a worker process; a separate module, because workers import what they call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from morl.rewards import reward
from morl.rewards.reward import Verdict
from morl.rewards.verifiers.box import box

EXAMPLES = box.__morl_reward__.examples  # type: ignore[attr-defined]


@reward("box_in_worker", examples=EXAMPLES)
def box_in_worker(response: str, gold: Any, media: Sequence[Any], meta: Mapping[str, Any]) -> Verdict:
    return box(response, gold, media, meta)
