"""PPO's value model on the learner: token-level values of a response, and one optimiser step on the returns.

The value before a token is read from the hidden state that predicts the token, so rows, packing and
shared prompts are the policy's. PPO clips how far a value moves over several updates on a batch;
here each batch is used once, so values have not moved.
"""

from __future__ import annotations

import time
import types
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from morl.cluster import Cluster
from morl.errors import UsageError
from morl.learner.packing import Microbatch
from morl.learner.rank import Rank, RankSettings
from morl.learner.rank_group import RankGroup, start_rank_group
from morl.learner.rank_metrics import RankMetrics
from morl.learner.reward_rank import RewardModel
from morl.model import load_reward_model, resolve_model
from morl.recipe import CriticSpec, Recipe
from morl.types import Batch

KEY = "algorithm.critic.path"


@dataclass(frozen=True, slots=True, kw_only=True)
class CriticMetrics(RankMetrics):
    """Metrics of a critic's rank: sums over tokens."""

    tokens: float = 0.0
    value: float = 0.0
    residual: float = 0.0
    """Return minus value."""
    residual_square: float = 0.0


class CriticRank(Rank[CriticMetrics]):
    """A rank that learns to predict returns."""

    settings: RankSettings
    metrics = CriticMetrics

    def _load(self) -> Any:
        model = load_reward_model(self.settings.model, self.settings.dtype)
        # A reward model's scores are on another scale: keep its body, reset its head.
        torch.nn.init.zeros_(model.score.weight)
        _in_float32(model.score)
        return model

    def _module(self, model: Any) -> RewardModel:
        module = RewardModel(model)
        module.language_model.score.requires_grad_(True)  # a new head must train even with LoRA
        return module

    def _accumulate(self, micro: Microbatch) -> CriticMetrics:
        values_N, returns_N = self.engine(micro), micro.returns_N
        residual_N = returns_N - values_N
        loss = (0.5 * residual_N.square() * micro.weights_N).sum()
        # DeepSpeed averages gradients over ranks; the weights call for a sum.
        self.engine.backward(loss * self.ranks)
        exact_N = residual_N.detach().double()
        return CriticMetrics(
            loss=float(loss.detach()),
            tokens=float(len(exact_N)),
            value=float(values_N.detach().double().sum()),
            residual=float(exact_N.sum()),
            residual_square=float(exact_N.square().sum()),
        )

    def values(self, batch: Batch, plan: Sequence[Sequence[Sequence[int]]]) -> torch.Tensor:
        """Value before each of the batch's targets, without gradient or dropout; 0 in other ranks' rows."""
        all_N = torch.zeros(len(batch.targets_N))
        for rows, micro, values_N in self._forward(batch, plan[self.rank]):
            if rows:
                all_N[micro.indices_N.cpu()] = values_N.cpu()
        return all_N


def _in_float32(head: Any) -> None:
    """Make a linear head compute in float32: advantages are small differences between values."""

    def forward(self: Any, hidden_UH: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(hidden_UH.float(), self.weight.float())

    # Patch the module instead of replacing it: DeepSpeed gathers a module's weights around its call.
    head.forward = types.MethodType(forward, head)


class Critic:
    """A group of DeepSpeed ranks that hold the value model, separate from the policy's ranks."""

    def __init__(self, ranks: RankGroup[CriticMetrics], *, total_steps: int, parallel: bool) -> None:
        """Drive `ranks`; `parallel` if they run in other processes, so that they can work while the policy's do."""
        self.total_steps = total_steps
        self._ranks = ranks
        self._thread = ThreadPoolExecutor(1, "critic") if parallel else None
        self._seconds = 0.0

    @classmethod
    def start(cls, settings: RankSettings, cluster: Cluster, *, total_steps: int) -> Critic:
        """Start the ranks and load the model. Raises: RunError, UsageError."""
        ranks = start_rank_group(CriticRank, settings, cluster)
        return cls(ranks, total_steps=total_steps, parallel=not cluster.local)

    def values(self, batch: Batch) -> torch.Tensor:
        """`values_N`, float32: the value of the response before each target of the batch."""
        began = time.perf_counter()
        # One rank has the value of a target, the others 0.
        values_N = torch.stack(self._ranks.call_on_rows("values", batch)).sum(dim=0)
        self._seconds = time.perf_counter() - began
        return values_N

    def begin_step(self, batch: Batch, number: int) -> Callable[[], dict[str, float]]:
        """Begin `step`; the returned function waits for its metrics, or raises what it failed with."""
        if self._thread is not None:
            return self._thread.submit(self.step, batch, number).result
        metrics = self.step(batch, number)
        return lambda: metrics

    def step(self, batch: Batch, number: int) -> dict[str, float]:
        """Optimiser step `number`, counted from 1, on `0.5 * (value - return)²`; returns its metrics.

        Token weights are those of the policy's loss.
        """
        began = time.perf_counter()
        total = self._ranks.step(batch, number, self.total_steps)
        assert batch.returns_N is not None
        return critic_metrics(total, batch.returns_N) | {
            "critic/lr": total.learning_rate,
            "time/critic_s": self._seconds + time.perf_counter() - began,
        }

    def save(self, folder: Path, background: bool) -> None:
        """Save all state that `load` needs to resume exactly; in the background until `saved`."""
        self._ranks.call("save", folder, background)

    def saved(self) -> bool:
        """Whether `save` has written everything; thread-safe. Raises: the writer's error."""
        return self._ranks.saved()

    def load(self, folder: Path) -> None:
        """Resume from what `save` wrote. Raises: CheckpointError when it does not fit."""
        self._ranks.call("load", folder)

    def close(self) -> None:
        """Stop the ranks."""
        self._ranks.close()
        if self._thread is not None:
            self._thread.shutdown()


def critic_metrics(total: CriticMetrics, returns_N: torch.Tensor) -> dict[str, float]:
    """The step's metrics from the ranks' sums.

    `critic/explained_variance` is `1 - Var(return - value) / Var(return)` over tokens: 1 for a perfect critic,
    0 for a constant one. It is left out where all returns are equal.
    """
    tokens = max(1.0, total.tokens)
    residual = total.residual / tokens
    unexplained = total.residual_square / tokens - residual**2
    metrics = {
        "learner/value_loss": total.loss,
        "critic/value": total.value / tokens,
        "critic/grad_norm": total.grad_norm,
        "critic/skipped": total.skipped,
    }
    if len(returns_N) and returns_N.max() > returns_N.min():
        metrics["critic/explained_variance"] = 1.0 - unexplained / float(returns_N.double().var(correction=0))
    return metrics


def token_inputs(batch: Batch, values_N: torch.Tensor, objectives_P: torch.Tensor) -> dict[str, torch.Tensor]:
    """Inputs of a token-level advantage, by parameter name.

    Args:
        batch: its advantages hold the response's reward for now.
        values_N: the critic's values.
        objectives_P: the number of each group's objective.
    """
    _, lengths_B = torch.unique_consecutive(batch.answers_N, return_counts=True)
    last_B = lengths_B.cumsum(0) - 1
    mask_BT = torch.arange(int(lengths_B.max())) < lengths_B[:, None]
    values_BT = torch.zeros(mask_BT.shape, dtype=torch.float64)
    values_BT[mask_BT] = values_N.double()
    rewards_BT = torch.zeros_like(values_BT)
    rewards_BT[torch.arange(len(lengths_B)), lengths_B - 1] = batch.advantages_N[last_B].double()
    prompts_B = batch.prompts_N[last_B]
    return {
        "rewards_BT": rewards_BT,
        "values_BT": values_BT,
        "mask_BT": mask_BT,
        "prompts_B": prompts_B,
        "objectives_B": objectives_P[prompts_B],
    }


def with_token_advantages(
    batch: Batch, mask_BT: torch.Tensor, advantages_BT: torch.Tensor, returns_BT: torch.Tensor
) -> Batch:
    """The batch with the advantage and the return of each target.

    Where the return is not finite the advantage becomes NaN, even if standardising made it finite: the step
    must be skipped and reported, not taken without those tokens.
    """
    returns_N = returns_BT[mask_BT].float()
    advantages_N = torch.where(returns_N.isfinite(), advantages_BT[mask_BT].float(), torch.nan)
    return replace(batch, advantages_N=advantages_N, returns_N=returns_N)


def critic_settings(recipe: Recipe, policy: Path) -> RankSettings | None:
    """Settings of the critic's ranks; None where the advantage takes no values.

    Args:
        recipe: the critic uses the learner's layout.
        policy: folder of the initial policy, and of the initial critic unless the recipe names another.

    Raises: UsageError when the critic's model cannot be found or does not read the policy's tokens or images.
    """
    if not recipe.algorithm.has_critic:
        return None
    spec = recipe.algorithm.critic or CriticSpec()
    model = policy if spec.path is None else resolve_model(spec.path, KEY)
    if model != policy:
        _check_same_inputs(model, policy)
    schedule = {key: getattr(spec, key) for key in ("lr", "schedule", "warmup_steps")}
    return RankSettings(
        model=model,
        dtype=recipe.model.dtype,
        learner=recipe.learner.model_copy(update={"train": ["*"], "freeze": [], **schedule}),
        seed=recipe.run.seed,
        plugins=tuple(recipe.plugins),
    )


def _check_same_inputs(critic: Path, policy: Path) -> None:
    """Check that the critic can read the policy's tokens and images. Raises: UsageError."""
    from transformers import AutoConfig, AutoTokenizer

    configs = [AutoConfig.from_pretrained(folder) for folder in (critic, policy)]
    if len({getattr(config, "vision_config", None) is None for config in configs}) > 1:
        raise UsageError(
            f"{KEY}: of '{critic}' and the policy one is multimodal and the other is not: use a critic of the "
            "policy's kind, or leave the path out to start from the policy"
        )
    vocabularies = [AutoTokenizer.from_pretrained(folder).get_vocab() for folder in (critic, policy)]
    if vocabularies[0] != vocabularies[1]:
        raise UsageError(
            f"{KEY}: '{critic}' has another vocabulary than the policy, whose tokens the critic reads: use a model "
            "of the policy's family, or leave the path out to start from the policy"
        )
