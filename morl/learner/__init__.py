"""The learner: DeepSpeed ranks behind one object for the training loop."""

from __future__ import annotations

from morl.learner.critic import critic_settings
from morl.learner.learner import Learner
from morl.learner.lm_head import CHUNK_BYTES
from morl.learner.master_weights import shapes_of
from morl.learner.merged_weights import adapter_weights, full_weights, write_adapter, write_weights
from morl.learner.policy import Policy, PolicySettings
from morl.learner.rank import Rank, RankSettings, prepare, zero_stage
from morl.learner.rank_group import LearnerDiedError, LearnerMemoryError, RankGroup, start_rank_group
from morl.learner.rank_metrics import M
from morl.learner.reward_model_server import ServerSettings
from morl.learner.reward_rank import RewardMetrics, RewardRank, RewardSettings, TokenPair, pair_batch
from morl.learner.shards import Shards
from morl.learner.supervised_rank import Example, SupervisedMetrics, SupervisedRank, example_batch

__all__ = [
    "CHUNK_BYTES",
    "Example",
    "Learner",
    "LearnerDiedError",
    "LearnerMemoryError",
    "M",
    "Policy",
    "PolicySettings",
    "Rank",
    "RankGroup",
    "RankSettings",
    "RewardMetrics",
    "RewardRank",
    "RewardSettings",
    "ServerSettings",
    "Shards",
    "SupervisedMetrics",
    "SupervisedRank",
    "TokenPair",
    "adapter_weights",
    "critic_settings",
    "example_batch",
    "full_weights",
    "pair_batch",
    "prepare",
    "shapes_of",
    "start_rank_group",
    "write_adapter",
    "write_weights",
    "zero_stage",
]
