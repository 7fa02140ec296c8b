"""Rollouts: engines that sample answers from the policy, the pool that supervises them, the collector."""

from morl.rollout.collector import Codec, Collector, Rollout
from morl.rollout.engine import Completion, Engine, Request, Sampling, choose_engine
from morl.rollout.engine_actor import Deadlines
from morl.rollout.engine_pool import EnginePool

__all__ = [
    "Codec",
    "Collector",
    "Completion",
    "Deadlines",
    "Engine",
    "EnginePool",
    "Request",
    "Rollout",
    "Sampling",
    "choose_engine",
]
