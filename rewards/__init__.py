"""Rewards: verifiers, the decorator that registers them, and the scorer that combines them.

A reward is a function. It receives the arguments that it names; its keyword-only parameters are its options:

    @reward("shouting", examples=[Example("HELLO", None, 1.0), Example("hello", None, 0.0)])
    def shouting(response: str, *, share: float = 1.0) -> float:
        "1 when at least `share` of the response is in capitals, else 0."
        return float(sum(c.isupper() for c in response) >= share * len(response))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from morl.registry import REWARDS
from morl.rewards.resource import Resource
from morl.rewards.reward import Example, Verdict, reward
from morl.rewards.reward_input import RewardInput

if TYPE_CHECKING:
    from morl.rewards.adapters import as_trl, as_verl, score
    from morl.rewards.bound_reward import BoundReward, checked_options
    from morl.rewards.checks import TOLERANCE, check_examples, score_golds, written_gold
    from morl.rewards.compose import checked, combine_terms
    from morl.rewards.marks import Mark
    from morl.rewards.parsing.answer import boxes, final_text, formulas, numbers, stated
    from morl.rewards.parsing.coordinates import CoordinateFrames
    from morl.rewards.parsing.image_size import image_size
    from morl.rewards.pool.worker_pool import WorkerPool, usable_cores
    from morl.rewards.reward_input import call_with
    from morl.rewards.scorer import Scorer
    from morl.rewards.verdict import clip, describe, failure, to_term_score

# Every worker process imports this package. Names that only callers need are imported on first use.
_ON_DEMAND = {
    "adapters": ("as_trl", "as_verl", "score"),
    "bound_reward": ("BoundReward", "checked_options"),
    "checks": ("TOLERANCE", "check_examples", "score_golds", "written_gold"),
    "compose": ("checked", "combine_terms"),
    "marks": ("Mark",),
    "parsing.answer": ("boxes", "final_text", "formulas", "numbers", "stated"),
    "parsing.coordinates": ("CoordinateFrames",),
    "parsing.image_size": ("image_size",),
    "pool.worker_pool": ("WorkerPool", "usable_cores"),
    "reward_input": ("call_with",),
    "scorer": ("Scorer",),
    "verdict": ("clip", "describe", "failure", "to_term_score"),
}
_MODULE_OF = {name: module for module, names in _ON_DEMAND.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


__all__ = [
    "REWARDS",
    "TOLERANCE",
    "BoundReward",
    "CoordinateFrames",
    "Example",
    "Mark",
    "Resource",
    "RewardInput",
    "Scorer",
    "Verdict",
    "WorkerPool",
    "as_trl",
    "as_verl",
    "boxes",
    "call_with",
    "check_examples",
    "checked",
    "checked_options",
    "clip",
    "combine_terms",
    "describe",
    "failure",
    "final_text",
    "formulas",
    "image_size",
    "numbers",
    "reward",
    "score",
    "score_golds",
    "stated",
    "to_term_score",
    "usable_cores",
    "written_gold",
]
