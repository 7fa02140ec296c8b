"""The mathematics of the update: pure functions of tensors, one algorithm a file.

An advantage or a loss asks for its inputs by parameter name and takes its options as
keyword-only parameters. What can be asked for:

- advantages:
    - `rewards_PG`: float64, NaN where a sample has no score;
    - `objectives_P`: int64, the number of each prompt's objective, the same in every step;
    - `terms_PGK`: float64, the values of the objective's terms as they enter the mixture, after scale and gate;
      NaN where a term gave none, or where the objective has fewer terms;
    - `term_weights_PK`: float64, their weights; 0 or NaN where the objective has fewer terms;
    - `state`: a mapping of plain JSON that the function returned last, empty at first.

  It returns advantages_PG, float64 and finite, 0 where a sample has no score; one that asks for
  `state` returns `(advantages_PG, new state)`.
- advantages that work token by token, with a critic; of the B responses that have a score, the T tokens that the policy
  wrote:
    - `values_BT`: float64, what the critic says the response is worth before each token; to ask for it is what gives a
      recipe its critic;
    - `rewards_BT`: float64, the response's reward at its last token, else 0;
    - `mask_BT`: bool, True up to the response's last token;
    - `prompts_B`, `objectives_B`: int64, which of the P prompts each response belongs to, and the objective's number;
    - all of the above, `state` included.

  It returns `(advantages_BT, returns_BT)`, finite under the mask, the second being what the critic should have
  said; one that asks for `state` returns `(advantages_BT, returns_BT, new state)`.
- losses, all float32 unless said otherwise:
    - `logprobs_N`, with gradient; `rollout_logprobs_N`; `advantages_N`;
    - `sequence_N`: int64, which response each token belongs to: 0, 1, … within a microbatch, which has whole
      responses only.

  It returns loss_N, to be weighted (`aggregation`), summed and minimised.

A loss that asks for `rollout_logprobs_N` corrects for the rollout's distribution itself; any other is multiplied
by the recipe's importance weights. A mask among these, which leaves tokens out, holds for both: no clip makes a
token worth learning from that engine and learner disagree on.
"""

from __future__ import annotations

from morl.algorithms.aggregation import Aggregation, token_weights, without_masked
from morl.algorithms.importance import masked, truncated
from morl.algorithms.kl_estimators import kl
from morl.registry import ADVANTAGES, LOSSES

advantage = ADVANTAGES.register

loss = LOSSES.register

__all__ = [
    "Aggregation",
    "advantage",
    "kl",
    "loss",
    "masked",
    "token_weights",
    "truncated",
    "without_masked",
]
