"""For authors of rewards: the conformance kit, and inputs that a reward must survive."""

from __future__ import annotations

from morl.testing.conformance import RewardCheckError, check_reward

__all__ = ["RewardCheckError", "check_reward"]
