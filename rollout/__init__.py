"""Rollouts: engines that sample answers from the policy, the pool that supervises them, the collector."""

from morl.rollout.collector import Codec, Collector, Rollout
from morl.rollout.engine import Completion, Engine, EngineInfo, Request, Sampling, choose_engine, engine_info
from morl.rollout.engine_actor import Deadlines
from morl.rollout.engine_pool import EnginePool

__all__ = [
    "Codec",
    "Collector",
    "Completion",
    "Deadlines",
    "Engine",
    "EngineInfo",
    "EnginePool",
    "Request",
    "Rollout",
    "Sampling",
    "choose_engine",
    "engine_info",
]
