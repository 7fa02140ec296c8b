"""The mathematics of the update: pure functions of tensors, one algorithm a file.

An advantage or a loss asks for its inputs by parameter name and takes its options as
keyword-only parameters. What can be asked for:

- advantages: `rewards_PG`, float64, NaN where a sample has no score; returns the same shape;
- losses: `logprobs_N`, `rollout_logprobs_N`, `advantages_N`, float32; returns a loss a token.

A loss that asks for `rollout_logprobs_N` corrects for the rollout's distribution itself;
any other is multiplied by the recipe's importance weights.
"""

from __future__ import annotations

from morl.registry import Registry

ADVANTAGES = Registry("advantage", "morl.advantages")
LOSSES = Registry("loss", "morl.losses")

advantage = ADVANTAGES.register
loss = LOSSES.register

__all__ = ["ADVANTAGES", "LOSSES", "advantage", "loss"]
