"""Rollouts: engines that sample responses from the policy, the pool that supervises them, the collector."""

from __future__ import annotations

from morl.registry import ENGINES
from morl.rollout.collector import Codec, Collector, Rollout
from morl.rollout.engine import Completion, Engine, EngineInfo, Request, Sampling, choose_engine, engine_info
from morl.rollout.engine_actor import Deadlines
from morl.rollout.engine_pool import EnginePool, start_engines

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
    "start_engines",
]
