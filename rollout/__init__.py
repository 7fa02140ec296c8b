"""Rollouts: engines that sample answers from the policy, the pool that supervises them, the collector."""

from morl.rollout.actor import Deadlines
from morl.rollout.collector import Codec, Collector, Rollout
from morl.rollout.engine import (
    ENGINES,
    Completion,
    Engine,
    EngineInfo,
    Request,
    Sampling,
    choose_engine,
    engine_info,
)
from morl.rollout.pool import EnginePool

__all__ = [
    "ENGINES",
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
