"""One policy-gradient step on a rank: the loss of its micro-batches, and its metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from morl.algorithms import kl
from morl.learner.frozen_reference import frozen_copy
from morl.learner.importance_correction import importance_weights, without_outliers
from morl.learner.packing import Microbatch
from morl.learner.policy import Policy, PolicySettings
from morl.learner.rank import Rank
from morl.learner.rank_metrics import RankMetrics, largest
from morl.model import load_policy
from morl.recipe import AlgorithmSpec
from morl.registry import LOSSES, call_by_name, wanted_arguments
from morl.types import Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyMetrics(RankMetrics):
    """Metrics of a policy rank: sums over the tokens of the step."""

    tokens: float = 0.0
    entropy: float = 0.0
    mismatch: float = 0.0
    """Of `|log pi_learner - log pi_rollout|`."""
    mismatch_max: float = largest()
    importance: float = 0.0
    """Of the importance weights."""
    advantaged: float = 0.0
    """Number of tokens with an advantage other than 0."""
    clipped: float = 0.0
    """Number of those that get no gradient because the loss clips them."""
    kl: float = 0.0
    """Of the estimates of KL(policy || reference); 0 without a reference."""
    masked: float = 0.0
    """Number of tokens that the importance mask leaves out; 0 without a mask."""


class PolicyRank(Rank[PolicyMetrics]):
    """A rank that learns from advantages."""

    settings: PolicySettings
    metrics = PolicyMetrics

    def __init__(self, settings: PolicySettings) -> None:
        super().__init__(settings)
        algorithm = settings.algorithm
        self.loss = LOSSES.load(algorithm.loss.use)
        self.masks = algorithm.importance.kind == "masked"
        self.frozen: Any = None
        """The reference; None if it is the policy with its adapters disabled."""
        if algorithm.kl is not None and (settings.learner.lora is None or settings.reference is not None):
            vocabulary = self.engine.module.language_model.config.get_text_config().vocab_size
            folder = settings.reference or settings.model
            self.frozen = frozen_copy(folder, settings, vocabulary, self.device, self._attention())

    def _load(self) -> Any:
        return load_policy(self.settings.model, self.settings.dtype)

    def _module(self, model: Any) -> Policy:
        return Policy(model, temperature=self.settings.temperature, banned_token_ids=self.settings.banned_token_ids)

    def _before_step(self, batch: Batch, plan: Sequence[Sequence[Sequence[int]]]) -> Batch:
        """The batch with this rank's log-probabilities under the reference, and with masked tokens left out."""
        if self.settings.algorithm.kl is not None:
            with self._reference() as reference:
                batch = replace(batch, reference_logprobs_N=self._logprobs(reference, batch, plan[self.rank]))
        if self.masks:
            logprobs_N = self._logprobs(self.engine, batch, plan[self.rank])
            if self.ranks > 1:
                # One rank has the value of a target, the others 0: the sum gives all ranks the same mask.
                on_device_N = logprobs_N.to(self.device)
                torch.distributed.all_reduce(on_device_N)
                logprobs_N = on_device_N.cpu()
            batch = without_outliers(batch, logprobs_N, self.settings.algorithm)
        return batch

    @contextmanager
    def _reference(self) -> Iterator[Callable[[Microbatch], Any]]:
        if self.frozen is not None:
            yield self.frozen
        else:
            with self.engine.module.model.disable_adapter():
                yield self.engine

    def _logprobs(
        self, forward: Callable[[Microbatch], Any], batch: Batch, microbatches: Sequence[Sequence[int]]
    ) -> torch.Tensor:
        """Log-probability of each of the batch's targets, without gradient or dropout; 0 in other ranks' rows."""
        all_N = torch.zeros(len(batch.targets_N))
        for rows, micro, (logprobs_N, _) in self._forward(batch, microbatches, forward):
            if rows:
                all_N[micro.indices_N.cpu()] = logprobs_N.cpu()
        return all_N

    def _accumulate(self, micro: Microbatch) -> PolicyMetrics:
        logprobs_N, entropy_N = self.engine(micro)
        inputs = {
            "logprobs_N": logprobs_N,
            "rollout_logprobs_N": micro.rollout_logprobs_N,
            "advantages_N": micro.advantages_N,
            "sequence_N": micro.sequence_N,
        }
        algorithm = self.settings.algorithm
        loss_N = call_by_name(self.loss, inputs, algorithm.loss.options)
        advantaged_N = micro.advantages_N != 0
        clipped_N = advantaged_N & (self._slopes(inputs) == 0)
        divergence = masked = 0.0
        importance_N = importance_weights(micro, logprobs_N, algorithm.importance)
        if "rollout_logprobs_N" not in wanted_arguments(self.loss):
            loss_N = loss_N * importance_N
        if algorithm.kl is not None and micro.reference_logprobs_N is not None:
            distance_N = kl(logprobs_N, micro.reference_logprobs_N, algorithm.kl.estimator)
            loss_N = loss_N + algorithm.kl.coef * importance_N * distance_N
            divergence = float(kl(logprobs_N.detach(), micro.reference_logprobs_N, "k3").sum())
        if micro.kept_N is not None:
            clipped_N &= micro.kept_N
            masked = float((~micro.kept_N).sum())
        loss = (loss_N * micro.weights_N).sum()
        # DeepSpeed averages gradients over ranks; the weights call for a sum.
        self.engine.backward(loss * self.ranks)
        difference_N = (logprobs_N.detach() - micro.rollout_logprobs_N).abs()
        return PolicyMetrics(
            loss=float(loss.detach()),
            tokens=float(len(difference_N)),
            entropy=float(entropy_N.sum()),
            mismatch=float(difference_N.sum()),
            mismatch_max=float(difference_N.max()) if len(difference_N) else 0.0,
            importance=float(importance_N.sum()),
            advantaged=float(advantaged_N.sum()),
            clipped=float(clipped_N.sum()),
            kl=divergence,
            masked=masked,
        )

    def _slopes(self, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Derivative of the loss with respect to each token's log-probability."""
        # On a copy: DeepSpeed does not allow another backward pass from the model's output.
        logprobs_N = inputs["logprobs_N"].detach().requires_grad_()
        loss_N = call_by_name(self.loss, {**inputs, "logprobs_N": logprobs_N}, self.settings.algorithm.loss.options)
        return torch.autograd.grad(loss_N.sum(), logprobs_N)[0]

    def close(self) -> None:
        """Release the model, the optimiser and the reference."""
        self.frozen = None
        super().close()


def policy_metrics(total: PolicyMetrics, algorithm: AlgorithmSpec) -> dict[str, float]:
    """The step's metrics from the ranks' sums.

    - `policy/logprob_mismatch`: mean of `|log pi_learner - log pi_rollout|`, in nats;
    - `policy/importance_weight`: mean of the recipe's importance weights, even if the loss does not use them;
    - `policy/clip_fraction`: fraction of the tokens with an advantage that get no gradient because the loss clips them;
    - `policy/masked_fraction`: fraction of tokens that the importance mask leaves out; only with a mask;
    - `policy/kl`: mean KL(policy || reference) in nats per token, by the estimator k3; only with a reference.

    Tokens of groups without signal are left out, unless a KL term or a mask needs them.
    """
    tokens = max(1.0, total.tokens)
    metrics = {
        "learner/loss": total.loss,
        "learner/grad_norm": total.grad_norm,
        "learner/skipped": total.skipped,
        "learner/tokens": tokens,
        "policy/entropy": total.entropy / tokens,
        "policy/logprob_mismatch": total.mismatch / tokens,
        "policy/logprob_mismatch_max": total.mismatch_max,
        "policy/importance_weight": total.importance / tokens,
        "policy/clip_fraction": total.clipped / max(1.0, total.advantaged),
    }
    if algorithm.kl is not None:
        metrics["policy/kl"] = total.kl / tokens
    if algorithm.importance.kind == "masked":
        metrics["policy/masked_fraction"] = total.masked / tokens
    return metrics
