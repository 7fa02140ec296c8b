"""Rewards: verifiers, the registry they live in, and the scorer that mixes them.

A reward is a function of the things it names, and its keyword-only parameters are its options:

    @reward("shouting", examples=[Example("HELLO", None, 1.0), Example("hello", None, 0.0)])
    def shouting(response: str, *, share: float = 1.0) -> float:
        "How much of the answer is in capitals."
        return float(sum(c.isupper() for c in response) >= share * len(response))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from morl.registry import REWARDS
from morl.rewards.resource import Resource
from morl.rewards.reward import Example, Verdict, reward
from morl.rewards.reward_input import RewardInput

if TYPE_CHECKING:
    from morl.rewards.scorer import Scorer

__all__ = ["REWARDS", "Example", "Resource", "RewardInput", "Scorer", "Verdict", "reward"]


def __getattr__(name: str) -> Any:
    # Verifiers import this package in every worker; the scorer is only for those who drive them.
    if name == "Scorer":
        from morl.rewards.scorer import Scorer

        return Scorer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
