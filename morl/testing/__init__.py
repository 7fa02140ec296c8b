"""The conformance kit for authors of rewards, and the adversarial inputs that a reward must survive."""

from __future__ import annotations

from morl.testing.adversarial_inputs import HOSTILE_GOLDS, HOSTILE_RESPONSES
from morl.testing.conformance import RewardCheckError, check_reward

__all__ = ["HOSTILE_GOLDS", "HOSTILE_RESPONSES", "RewardCheckError", "check_reward"]
