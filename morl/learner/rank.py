"""One rank of the learner: a model under DeepSpeed in one process."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from morl.compat import guard_torchvision
from morl.recipe import AlgorithmSpec, LearnerSpec, Recipe, import_plugin
from morl.types import Batch

CPU_ENVIRONMENT = {
    # Waiting threads that spin take the core from the process that has work to do.
    "OMP_WAIT_POLICY": "passive",
    # Keep freed memory instead of giving it back to the system: activations come and go in
    # megabytes, and faulting their pages in anew took most of a step's time.
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_TOP_PAD_": str(2**28),
}
"""For a process that computes on the CPU; read when it starts."""


@dataclass(frozen=True, slots=True)
class RankSettings:
    """Everything a rank must know; plain data, so that it travels to any process."""

    model: Path
    dtype: str
    learner: LearnerSpec
    algorithm: AlgorithmSpec
    temperature: float
    banned_token_ids: tuple[int, ...]
    seed: int
    plugins: tuple[str, ...] = ()
    """Modules to import, so that a loss of the user's is known in the rank's process too."""

    @classmethod
    def of(cls, recipe: Recipe, model: Path, banned_token_ids: tuple[int, ...]) -> RankSettings:
        """What `recipe` says of the learner."""
        return cls(
            model=model,
            dtype=recipe.model.dtype,
            learner=recipe.learner,
            algorithm=recipe.algorithm,
            temperature=recipe.rollout.temperature,
            banned_token_ids=banned_token_ids,
            seed=recipe.run.seed,
            plugins=tuple(recipe.plugins),
        )


def rank_environment(rank: int, ranks: int, address: str, port: int, *, threads: int, gpu: bool) -> dict[str, str]:
    """Environment variables that a rank's process needs before it imports torch."""
    environment = {
        "RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_RANK": "0",  # Ray shows each actor its own device only
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
        "TOKENIZERS_PARALLELISM": "false",
    }
    if not gpu:
        environment |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": str(threads)} | CPU_ENVIRONMENT
        if address == "127.0.0.1":
            environment["GLOO_SOCKET_IFNAME"] = "lo"
    return environment


class LearnerRank:
    """Holds this rank's share of model and optimiser. Every method is collective."""

    def __init__(self, settings: RankSettings) -> None:
        guard_torchvision()
        import deepspeed
        import torch

        from morl.algorithms import LOSSES
        from morl.learner.policy import Policy
        from morl.model import load_policy

        self.settings = settings
        for plugin in settings.plugins:
            import_plugin(plugin)
        spec = settings.learner
        gpu = os.environ.get("DS_ACCELERATOR") != "cpu"
        self.device = torch.device("cuda", 0) if gpu else torch.device("cpu")
        if not gpu:
            # Compiled on first use with a compiler that may not be there; gloo does the same work.
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
            torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        if not torch.distributed.is_initialized():
            deepspeed.init_distributed("nccl" if gpu else "gloo", verbose=False)
        self.rank, self.ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
        torch.manual_seed(settings.seed)
        model = load_policy(settings.model, settings.dtype)
        if spec.activation_checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if spec.lora is not None:
            model = _with_lora(model, spec.lora, spec.activation_checkpointing)
        policy = Policy(model, temperature=settings.temperature, banned_token_ids=settings.banned_token_ids)
        self.engine, *_ = deepspeed.initialize(
            model=policy,
            model_parameters=[p for p in policy.parameters() if p.requires_grad],
            config=deepspeed_config(spec, settings.dtype),
        )
        self._record_grad_norm()
        self.loss = LOSSES.load(settings.algorithm.loss.use)

    def _record_grad_norm(self) -> None:
        """Without ZeRO and mixed precision DeepSpeed clips but forgets the norm: remember it."""
        from deepspeed.runtime.utils import clip_grad_norm_

        engine = self.engine

        def clip() -> None:
            engine._global_grad_norm = clip_grad_norm_(
                parameters=engine.module.parameters(), max_norm=engine.gradient_clipping(), mpu=engine.mpu
            )

        engine.clip_fp32_gradients = clip

    def step(self, batch: Batch, plan: Sequence[Sequence[Sequence[int]]], learning_rate: float) -> dict[str, float]:
        """One optimiser step on this rank's share of a batch.

        Args:
            batch: the whole batch; the rank takes its rows.
            plan: `plan[rank][microbatch]` row numbers.
            learning_rate: of this step.

        Returns: sums over this rank's tokens, for the driver to combine, and the global gradient norm.
        """
        began = time.perf_counter()
        sums = {"tokens": 0.0, "loss": 0.0, "entropy": 0.0, "mismatch": 0.0, "mismatch_max": 0.0, "importance": 0.0}
        for group in self.engine.optimizer.param_groups:
            group["lr"] = learning_rate
        for rows in plan[self.rank]:
            measured = self._accumulate(batch, rows)
            if rows:
                for name, value in measured.items():
                    sums[name] = max(sums[name], value) if name == "mismatch_max" else sums[name] + value
        self.engine.step()
        norm = self.engine.get_global_grad_norm()
        sums["grad_norm"] = float(norm) if norm is not None else math.nan
        sums["seconds"] = time.perf_counter() - began
        return sums

    def _accumulate(self, batch: Batch, rows: Sequence[int]) -> dict[str, float]:
        from morl.algorithms.importance import truncated
        from morl.learner.packing import microbatch
        from morl.registry import call_by_name, wanted_arguments

        micro = _to_device(microbatch(batch, rows), self.device)
        logprobs_N, entropy_N = self.engine(micro)
        inputs = {
            "logprobs_N": logprobs_N,
            "rollout_logprobs_N": micro.rollout_logprobs_N,
            "advantages_N": micro.advantages_N,
        }
        algorithm = self.settings.algorithm
        loss_N = call_by_name(self.loss, inputs, algorithm.loss.options)
        importance_N = truncated(logprobs_N, micro.rollout_logprobs_N, algorithm.importance.cap)
        corrects_itself = "rollout_logprobs_N" in wanted_arguments(self.loss)
        if algorithm.importance.kind == "truncated" and not corrects_itself:
            loss_N = loss_N * importance_N
        loss = (loss_N * micro.weights_N).sum()
        # DeepSpeed averages gradients over ranks; the weights already make a sum.
        self.engine.backward(loss * self.ranks)
        difference_N = (logprobs_N.detach() - micro.rollout_logprobs_N).abs()
        return {
            "tokens": float(len(difference_N)),
            "loss": float(loss.detach()),
            "entropy": float(entropy_N.sum()),
            "mismatch": float(difference_N.sum()),
            "mismatch_max": float(difference_N.max()) if len(difference_N) else 0.0,
            "importance": float(importance_N.sum()),
        }

    def publish(self, folder: Path, policy_version: int) -> None:
        """Write the full weights, LoRA merged, as a checkpoint folder (rank 0 writes)."""
        from morl.learner.weights import full_weights, write_weights

        model = self.engine.module.language_model
        weights = full_weights(model, sharded=self.settings.learner.zero == 3, keep=self.rank == 0)
        if self.rank == 0:
            write_weights(model, weights, self.settings.model, folder, policy_version)

    def save(self, folder: Path) -> None:
        """Save parameters, optimiser and RNG for `load`."""
        import torch

        # DeepSpeed prints while it saves and loads; stdout belongs to the user's table.
        with contextlib.redirect_stdout(sys.stderr):
            self.engine.save_checkpoint(str(folder), tag="state", client_state={"torch_rng": torch.get_rng_state()})

    def load(self, folder: Path) -> None:
        """Restore what `save` wrote. Raises: CheckpointError when it does not fit."""
        import torch

        from morl.errors import CheckpointError

        with contextlib.redirect_stdout(sys.stderr):
            path, client_state = self.engine.load_checkpoint(str(folder), tag="state")
        if path is None:
            raise CheckpointError(
                f"the learner's state in '{folder}' cannot be loaded with this recipe's ranks and ZeRO"
            )
        torch.set_rng_state(client_state["torch_rng"])

    def ready(self) -> bool:
        """Answers once the constructor is done."""
        return True

    def close(self) -> None:
        """Leave the process group."""
        import torch

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def deepspeed_config(spec: LearnerSpec, dtype: str) -> dict[str, Any]:
    """The recipe's learner in DeepSpeed's words.

    No batch size of DeepSpeed's means anything here: morl decides what a microbatch is and
    when a step is due.
    """
    zero: dict[str, Any] = {"stage": spec.zero}
    if spec.offload:
        zero |= {"offload_optimizer": {"device": "cpu"}}
        if spec.zero == 3:
            zero |= {"offload_param": {"device": "cpu"}}
    return {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 1,
        "managed_gradient_accumulation": False,
        "steps_per_print": None,
        "gradient_clipping": spec.max_grad_norm,
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": spec.lr,
                "betas": list(spec.betas),
                "weight_decay": spec.weight_decay,
                # torch's own AdamW: DeepSpeed's is compiled on first use.
                "torch_adam": True,
                "fused": not spec.offload,
            },
        },
        "zero_optimization": zero,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": dtype == "bfloat16"},
        "fp16": {"enabled": dtype == "float16"},
    }


def _with_lora(model: Any, lora: Any, activation_checkpointing: bool) -> Any:
    from peft import LoraConfig, get_peft_model

    if activation_checkpointing:
        # Frozen embeddings give no gradient, and checkpointing would then drop the whole graph.
        model.enable_input_require_grads()
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules),
    )
    return get_peft_model(model, config)


def _to_device(micro: Any, device: Any) -> Any:
    if device.type == "cpu":
        return micro
    return type(micro)(**{f.name: getattr(micro, f.name).to(device) for f in dataclasses.fields(micro)})


def combine(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """The ranks' sums as the step's metrics.

    `policy/logprob_mismatch` is the mean of `|log pi_learner - log pi_rollout|`, in nats. Tokens are those the
    step learned from: a group without signal is not computed.
    """
    tokens = max(1.0, sum(part["tokens"] for part in parts))

    def mean(name: str) -> float:
        return sum(part[name] for part in parts) / tokens

    return {
        "learner/loss": sum(part["loss"] for part in parts),
        "learner/grad_norm": parts[0]["grad_norm"],
        "learner/tokens": tokens,
        "policy/entropy": mean("entropy"),
        "policy/logprob_mismatch": mean("mismatch"),
        "policy/logprob_mismatch_max": max(part["mismatch_max"] for part in parts),
        "policy/importance_weight": mean("importance"),
    }
