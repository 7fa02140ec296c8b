"""The conformance kit for authors of rewards, and the adversarial inputs that a reward must survive."""

from __future__ import annotations

from morl.testing.conformance import RewardCheckError, check_reward

__all__ = ["RewardCheckError", "check_reward"]
