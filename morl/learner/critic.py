"""PPO's value model on the learner: what a response so far is worth, token by token, and one step on the returns.

The value before a token is read from the hidden state that predicts it, so rows, packing and
shared prompts are the policy's. PPO clips how far a value moves while a batch is learnt from
again and again; here each batch is learnt from once, and values have not moved when it is.
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
    """What a rank of a critic measures: sums over tokens."""

    tokens: float = 0.0
    value: float = 0.0
    residual: float = 0.0
    """Return less value."""
    residual_square: float = 0.0


class CriticRank(Rank[CriticMetrics]):
    """A rank that learns what responses turn out to be worth."""

    settings: RankSettings
    metrics = CriticMetrics

    def _load(self) -> Any:
        model = load_reward_model(self.settings.model, self.settings.dtype)
        # A reward model's scores have a scale of their own: its body is welcome, its head is not.
        torch.nn.init.zeros_(model.score.weight)
        _in_float32(model.score)
        return model

    def _module(self, model: Any) -> RewardModel:
        module = RewardModel(model)
        module.language_model.score.requires_grad_(True)  # new, so adapters alone would not do
        return module

    def _accumulate(self, micro: Microbatch) -> CriticMetrics:
        values_N, returns_N = self.engine(micro), micro.returns_N
        residual_N = returns_N - values_N
        loss = (0.5 * residual_N.square() * micro.weights_N).sum()
        # DeepSpeed averages gradients over ranks; the weights already make a sum.
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
        """Value before each of the batch's targets, without gradient or dropout; 0 where it is not this rank's."""
        found_N = torch.zeros(len(batch.targets_N))
        for rows, micro, values_N in self._looked_at(batch, plan[self.rank]):
            if rows:
                found_N[micro.places_N.cpu()] = values_N.cpu()
        return found_N


def _in_float32(head: Any) -> None:
    """Have a linear head compute in float32: advantages are made of small differences between values."""

    def forward(self: Any, hidden_UH: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.linear(hidden_UH.float(), self.weight.float())

    # The head stays the module it was, because DeepSpeed gathers a module's weights around its call.
    head.forward = types.MethodType(forward, head)


class Critic:
    """A group of DeepSpeed ranks that hold one value model, beside the policy's and like them."""

    def __init__(self, ranks: RankGroup[CriticMetrics], *, total_steps: int, alone: bool) -> None:
        """Drive `ranks`; `alone` where these are processes of their own, which can work beside the policy's."""
        self.total_steps = total_steps
        self._ranks = ranks
        self._thread = ThreadPoolExecutor(1, "critic") if alone else None
        self._seconds = 0.0

    @classmethod
    def start(cls, settings: RankSettings, cluster: Cluster, *, total_steps: int) -> Critic:
        """Start the ranks and load the model. Raises: RunError, UsageError."""
        ranks = start_rank_group(CriticRank, settings, cluster)
        return cls(ranks, total_steps=total_steps, alone=not cluster.local)

    def values(self, batch: Batch) -> torch.Tensor:
        """`values_N`, float32: what the response is worth before each target of the batch is written."""
        began = time.perf_counter()
        # Each target is one rank's, and 0 for the others.
        values_N = torch.stack(self._ranks.call_on_rows("values", batch)).sum(dim=0)
        self._seconds = time.perf_counter() - began
        return values_N

    def begin_step(self, batch: Batch, number: int) -> Callable[[], dict[str, float]]:
        """Begin `step`; to call what this returns is to wait for its metrics, or what it failed with."""
        if self._thread is not None:
            return self._thread.submit(self.step, batch, number).result
        metrics = self.step(batch, number)
        return lambda: metrics

    def step(self, batch: Batch, number: int) -> dict[str, float]:
        """Optimiser step `number`, counted from 1, on `0.5 * (value - return)²`; returns its metrics.

        Tokens weigh as they do in the policy's loss.
        """
        began = time.perf_counter()
        total = self._ranks.step(batch, number, self.total_steps)
        assert batch.returns_N is not None
        return critic_metrics(total, batch.returns_N) | {
            "critic/lr": total.learning_rate,
            "time/critic_s": self._seconds + time.perf_counter() - began,
        }

    def save(self, folder: Path, background: bool) -> None:
        """Save everything that `load` needs to go on exactly here; in the background until `saved`."""
        self._ranks.call("save", folder, background)

    def saved(self) -> bool:
        """Whether all that `save` began is on the disk; any thread may ask. Raises: what the writing failed with."""
        return self._ranks.saved()

    def load(self, folder: Path) -> None:
        """Go on from what `save` wrote. Raises: CheckpointError when it does not fit."""
        self._ranks.call("load", folder)

    def close(self) -> None:
        """End the ranks."""
        self._ranks.close()
        if self._thread is not None:
            self._thread.shutdown()


def critic_metrics(total: CriticMetrics, returns_N: torch.Tensor) -> dict[str, float]:
    """What all ranks measured, as the step's metrics.

    `critic/explained_variance` is `1 - Var(return - value) / Var(return)` over tokens: 1 for a critic that knows,
    0 for one that says the same everywhere. It is left out where all returns are equal.
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
    """What an advantage that works token by token may ask for by name.

    Args:
        batch: each target's advantage being the reward of its response for now.
        values_N: the critic's.
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
    """The batch with the advantage and the return of each of its targets.

    Where the return is not a number the advantage is none either, even if it was made one by being standardised:
    the step is to be skipped and told, not taken as if the critic had said nothing.
    """
    returns_N = returns_BT[mask_BT].float()
    advantages_N = torch.where(returns_N.isfinite(), advantages_BT[mask_BT].float(), torch.nan)
    return replace(batch, advantages_N=advantages_N, returns_N=returns_N)


def critic_settings(recipe: Recipe, policy: Path) -> RankSettings | None:
    """What the ranks of the recipe's critic must know; None where the advantage asks for no values.

    Args:
        recipe: the critic's layout is the learner's.
        policy: the folder of the policy's first weights, and the critic's unless the recipe names another.

    Raises: UsageError when the critic's model cannot be found or does not read what the policy writes.
    """
    if not recipe.algorithm.has_critic:
        return None
    spec = recipe.algorithm.critic or CriticSpec()
    model = policy if spec.path is None else resolve_model(spec.path, KEY)
    if model != policy:
        _check_reads_alike(model, policy)
    own = {key: getattr(spec, key) for key in ("lr", "schedule", "warmup_steps")}
    return RankSettings(
        model=model,
        dtype=recipe.model.dtype,
        learner=recipe.learner.model_copy(update={"train": ["*"], "freeze": [], **own}),
        seed=recipe.run.seed,
        plugins=tuple(recipe.plugins),
    )


def _check_reads_alike(critic: Path, policy: Path) -> None:
    """A critic is given the policy's tokens and images as they are. Raises: UsageError."""
    from transformers import AutoConfig, AutoTokenizer

    configs = [AutoConfig.from_pretrained(folder) for folder in (critic, policy)]
    if len({getattr(config, "vision_config", None) is None for config in configs}) > 1:
        raise UsageError(
            f"{KEY}: of '{critic}' and the policy one sees images and the other does not: take a critic that is "
            "of the policy's kind, or leave the path out to begin with the policy itself"
        )
    vocabularies = [AutoTokenizer.from_pretrained(folder).get_vocab() for folder in (critic, policy)]
    if vocabularies[0] != vocabularies[1]:
        raise UsageError(
            f"{KEY}: '{critic}' has another vocabulary than the policy, whose tokens the critic reads: take a model "
            "of the policy's family, or leave the path out to begin with the policy itself"
        )
