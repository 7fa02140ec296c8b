"""The mathematics of the update: pure functions of tensors, one algorithm per file.

An advantage or a loss names its inputs as parameters and takes its options as keyword-only
parameters. The inputs:

- of an advantage:
    - `rewards_PG`: float64, NaN where a sample has no score;
    - `objectives_P`: int64, the number of each prompt's objective, the same in every step;
    - `terms_PGK`: float64, the values of the objective's terms in the mixture, after scale and gate;
      NaN where a term gave none, or where the objective has fewer terms;
    - `term_weights_PK`: float64, their weights; 0 or NaN where the objective has fewer terms;
    - `state`: the plain JSON mapping that the function returned last, empty at first.

  It returns advantages_PG, float64 and finite, 0 where a sample has no score; with `state` as an
  input it returns `(advantages_PG, new state)`.
- of a token-level advantage, over the B responses that have a score and the T tokens that the policy wrote:
    - `values_BT`: float64, the critic's value before each token; a recipe has a critic if its advantage takes this;
    - `rewards_BT`: float64, the response's reward at its last token, else 0;
    - `mask_BT`: bool, True up to the response's last token;
    - `prompts_B`, `objectives_B`: int64, which of the P prompts each response belongs to, and the objective's number;
    - all of the above, `state` included.

  It returns `(advantages_BT, returns_BT)`, finite under the mask; the returns are the critic's targets. With
  `state` as an input it returns `(advantages_BT, returns_BT, new state)`.
- of a loss, all float32 unless stated otherwise:
    - `logprobs_N`, with gradient; `rollout_logprobs_N`; `advantages_N`;
    - `sequence_N`: int64, the response that each token belongs to: 0, 1, … within a micro-batch, which holds whole
      responses only.

  It returns loss_N, to be weighted (`aggregation`), summed and minimised.

A loss that takes `rollout_logprobs_N` corrects for the rollout's distribution itself; any other is multiplied
by the recipe's importance weights. The importance mask applies to both: no clip makes up for a token on which
engine and learner disagree.
"""

from __future__ import annotations

from morl.algorithms.aggregation import Aggregation, token_weights, without_masked
from morl.algorithms.importance import masked, truncated
from morl.algorithms.kl_estimators import kl
from morl.registry import ADVANTAGES, LOSSES

advantage = ADVANTAGES.register

loss = LOSSES.register

__all__ = [
    "ADVANTAGES",
    "LOSSES",
    "Aggregation",
    "advantage",
    "kl",
    "loss",
    "masked",
    "token_weights",
    "truncated",
    "without_masked",
]
