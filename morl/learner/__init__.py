"""The learner: DeepSpeed ranks behind one object that the training loop talks to."""

from __future__ import annotations

from morl.learner.learner import Learner

__all__ = ["Learner"]
