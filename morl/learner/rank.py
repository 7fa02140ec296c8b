"""One rank of a learner: a model under DeepSpeed in one process, whatever the loss."""

from __future__ import annotations

import dataclasses
import fnmatch
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic

from morl.compat import PATIENCE, guard_torchvision
from morl.error_messages import did_you_mean
from morl.errors import UsageError
from morl.learner.attention_kernel import use_shared_prefix
from morl.learner.liger import use_liger
from morl.learner.master_weights import forget_trial_step, restore, snapshot
from morl.learner.rank_metrics import M, add_up
from morl.learner.rmsnorm_cpu import use_lean_norms
from morl.learner.skip_nonfinite import guard
from morl.recipe import LearnerSpec, LoraSpec, import_plugin
from morl.types import Batch

if TYPE_CHECKING:
    from morl.sync import Link

CPU_ENVIRONMENT = PATIENCE | {
    # Keep freed memory instead of returning it to the system: activations are megabytes each,
    # and faulting their pages in again took most of a step's time.
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**40),
    "MALLOC_TOP_PAD_": str(2**28),
    # Pages of 2 MB, where Linux offers them by madvise: large matrices cause fewer TLB misses.
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}
"""Environment of a process that computes on the CPU; read when it starts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankSettings:
    """Settings of any rank, as plain data that can be sent to its process."""

    model: Path
    dtype: str
    learner: LearnerSpec
    seed: int
    plugins: tuple[str, ...] = ()
    """Modules to import in the rank's process, for what they register."""


def rank_environment(rank: int, ranks: int, address: str, port: int, *, threads: int, gpu: bool) -> dict[str, str]:
    """Environment variables that a rank's process needs before it imports torch."""
    environment = {
        "RANK": str(rank),
        "WORLD_SIZE": str(ranks),
        "LOCAL_RANK": "0",  # Ray makes only one device visible to each actor
        "MASTER_ADDR": address,
        "MASTER_PORT": str(port),
        "TOKENIZERS_PARALLELISM": "false",
    }
    if not gpu:
        environment |= {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": str(threads)} | CPU_ENVIRONMENT
        if address == "127.0.0.1":
            environment["GLOO_SOCKET_IFNAME"] = "lo"
    return environment


class Rank(Generic[M]):
    """Holds this rank's share of model and optimiser. Every method is collective.

    A subclass defines model and loss: `_load`, `_module` and `_accumulate`.
    """

    metrics: type[M]
    """The type that `_accumulate` returns."""

    def __init__(self, settings: Any) -> None:
        guard_torchvision()
        import deepspeed
        import torch
        from torch.distributed import distributed_c10d

        self.settings = settings
        self._writer = ThreadPoolExecutor(1, "save")
        for plugin in settings.plugins:
            import_plugin(plugin)
        spec = settings.learner
        gpu = os.environ.get("DS_ACCELERATOR") != "cpu"
        self.device = torch.device("cuda", 0) if gpu else torch.device("cpu")
        if not gpu:
            # It is compiled on first use, and there may be no compiler; gloo does the same.
            deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
            torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
        if not torch.distributed.is_initialized():
            timeout = timedelta(seconds=spec.timeout_s)
            # Process groups that DeepSpeed creates later use torch's default timeout.
            for default in ("default_pg_timeout", "default_pg_nccl_timeout"):
                setattr(distributed_c10d, default, timeout)
            deepspeed.init_distributed("nccl" if gpu else "gloo", verbose=False, timeout=timeout)
        self.rank, self.ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
        torch.manual_seed(settings.seed)
        model = self._load()
        use_shared_prefix(model, self._attention())
        use_liger(model, spec.liger, gpu=gpu)
        if not gpu:
            use_lean_norms(model)
        module = self._module(prepare(model, spec))
        self.engine, *_ = deepspeed.initialize(
            model=module,
            model_parameters=[p for p in module.parameters() if p.requires_grad],
            config=deepspeed_config(spec, settings.dtype),
        )
        if self.ranks == 1 and self.engine.zero_optimization_stage() == 0:
            # With one rank a reduction would only copy all gradients to a buffer and back.
            self.engine.enable_backward_allreduce = False
        self._sender: Any = None
        forget_trial_step(self.engine)
        guard(self.engine)

    def _attention(self) -> str:
        """The kind of attention: "flex" on a GPU, "sdpa" elsewhere, unless the recipe names one."""
        kind = self.settings.learner.attention
        if kind == "flex" and self.device.type != "cuda":
            raise UsageError("learner.attention: 'flex' needs a GPU, and this learner has none; use 'auto' or 'sdpa'")
        return kind if kind != "auto" else "flex" if self.device.type == "cuda" else "sdpa"

    def _load(self) -> Any:
        """The transformers model of the settings' folder, in training mode."""
        raise NotImplementedError

    def _module(self, model: Any) -> Any:
        """The torch module that takes a micro-batch; it wraps the model with its adapters."""
        raise NotImplementedError

    def _before_step(self, batch: Batch, plan: Sequence[Sequence[Sequence[int]]]) -> Batch:
        """The batch, extended by what must be computed over all of it before the first gradient."""
        return batch

    def _accumulate(self, micro: Any) -> M:
        """Add a micro-batch's gradient; returns the micro-batch's metrics."""
        raise NotImplementedError

    def step(self, batch: Batch, plan: Sequence[Sequence[Sequence[int]]], learning_rate: float) -> M:
        """One optimiser step on the sum of the gradients of this rank's micro-batches.

        Args:
            batch: the whole batch; the rank takes its rows.
            plan: `plan[rank][microbatch]` row numbers.
            learning_rate: of this step.

        Returns: metrics of this rank's share.
        """
        began = time.perf_counter()
        total = self.metrics()
        for group in self.engine.optimizer.param_groups:
            group["lr"] = learning_rate
        batch = self._before_step(batch, plan)
        for rows in plan[self.rank]:
            measured = self._accumulate(self._microbatch(batch, rows))
            if rows:
                total = add_up([total, measured])
        self.engine.step()
        norm = self.engine.get_global_grad_norm()
        return replace(
            total,
            grad_norm=float(norm) if norm is not None else math.nan,
            learning_rate=learning_rate,
            microbatches=float(len(plan[self.rank])),
            seconds=time.perf_counter() - began,
        )

    def nonfinite_rows(self, batch: Batch, plan: Sequence[Sequence[Sequence[int]]]) -> list[int]:
        """Rows of this rank's micro-batches whose loss is not finite, without an update."""
        batch = self._before_step(batch, plan)
        module, backward = self.engine.module, self.engine.backward
        module.eval()
        self.engine.backward = lambda loss: None
        try:
            losses = [(rows, self._accumulate(self._microbatch(batch, rows)).loss) for rows in plan[self.rank]]
        finally:
            self.engine.backward = backward
            module.train()
        return [row for rows, loss in losses if not math.isfinite(loss) for row in rows]

    def _forward(
        self, batch: Batch, microbatches: Sequence[Sequence[int]], forward: Callable[[Any], Any] | None = None
    ) -> Iterator[tuple[Sequence[int], Any, Any]]:
        """Yield rows, micro-batch and output of `forward` (default: the module), without gradient or dropout."""
        import torch

        forward, module = forward or self.engine, self.engine.module
        module.eval()
        try:
            for rows in microbatches:
                micro = self._microbatch(batch, rows)
                with torch.no_grad():
                    output = forward(micro)
                yield rows, micro, output
        finally:
            module.train()

    def _microbatch(self, batch: Batch, rows: Sequence[int]) -> Any:
        from morl.learner.packing import microbatch

        return to_device(microbatch(batch, rows, dense=self._attention() != "flex"), self.device)

    def publish(self, folder: Path, policy_version: int) -> None:
        """Write the full weights, LoRA merged, as a checkpoint folder (rank 0 writes)."""
        from morl.learner.merged_weights import full_weights, write_weights

        model = self.engine.module.language_model
        weights = full_weights(model, sharded=self.settings.learner.zero == 3, keep=self.rank == 0)
        if self.rank == 0:
            write_weights(model, weights, self.settings.model, folder, policy_version)

    def publish_adapter(self, folder: Path, policy_version: int) -> None:
        """Write the LoRA adapter as an adapter folder (rank 0 writes)."""
        from morl.learner.merged_weights import adapter_weights, write_adapter

        model = self.engine.module.model
        weights = adapter_weights(model, sharded=self.settings.learner.zero == 3, keep=self.rank == 0)
        if self.rank == 0:
            write_adapter(model, weights, folder, policy_version)

    def send_weights(self, link: Link, policy_version: int) -> None:
        """Send the full weights, LoRA merged, from GPU to GPU: see `morl.sync.nccl_sync`."""
        from morl.learner.merged_weights import CheckpointSource

        if self._sender is not None and self._sender.link != link:
            self._sender.close()
            self._sender = None
        if self._sender is None:
            model = self.engine.module.language_model
            source = CheckpointSource(model, sharded=self.settings.learner.zero == 3)
            self._sender = link.sender(self.rank, source)
        self._sender.send(policy_version)

    def adapted_outside(self) -> list[str]:
        """Names of the layers with a LoRA adapter that lie outside of the language model."""
        from morl.learner.merged_weights import adapted_outside

        return adapted_outside(self.engine.module.language_model)

    def save(self, folder: Path, background: bool = False) -> None:
        """Save this rank's part of parameters, optimiser and random numbers for `load`.

        In the background it returns once all is copied to host memory: `saved` tells when it is on disk.
        """
        shard = snapshot(self.engine, self.rank, self.ranks)
        self._saving = self._writer.submit(shard.write, folder)
        if not background:
            self._saving.result()

    def saved(self) -> Path | None:
        """The file of the last `save` once it is on disk, else None. Raises: the writer's error."""
        return self._saving.result() if self._saving.done() else None

    def load(self, folder: Path) -> int:
        """Restore what `save` wrote; returns the number of ranks that wrote. Raises: CheckpointError on a mismatch."""
        return restore(self.engine, folder, self.rank, self.ranks, self.settings.seed)

    def ready(self) -> bool:
        """Return once the constructor is done."""
        return True

    def close(self) -> None:
        """Release model and optimiser.

        The process group stays: DeepSpeed keeps it, and the next learner of this process joins it.
        """
        self._writer.shutdown()
        del self.engine


def to_device(micro: Any, device: Any) -> Any:
    """A micro-batch with all its tensors on the device."""
    if device.type == "cpu":
        return micro
    tensors = {field.name: getattr(micro, field.name) for field in dataclasses.fields(micro)}
    moved = {name: value.to(device) for name, value in tensors.items() if hasattr(value, "to")}
    return dataclasses.replace(
        micro, **moved, features={name: value.to(device) for name, value in micro.features.items()}
    )


def zero_stage(zero: int, dtype: str) -> int:
    """The ZeRO stage to use: at least 2 in 16 bits, where lower stages sum gradients in the model's dtype.

    In 16 bits the sum would depend on the number of micro-batches.
    """
    return zero if dtype == "float32" else max(2, zero)


def deepspeed_config(spec: LearnerSpec, dtype: str) -> dict[str, Any]:
    """DeepSpeed's configuration for the recipe's learner.

    DeepSpeed's batch sizes have no meaning here: morl forms the micro-batches and calls for the step.
    """
    zero: dict[str, Any] = {"stage": zero_stage(spec.zero, dtype)}
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
                "eps": spec.eps,
                "weight_decay": spec.weight_decay,
                # torch's own AdamW: DeepSpeed's is compiled on first use.
                "torch_adam": True,
                "fused": not spec.offload,
            },
        },
        "zero_optimization": zero,
        "data_types": {"grad_accum_dtype": "fp32"},
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": dtype == "bfloat16"},
        "fp16": {"enabled": dtype == "float16"},
    }


def prepare(model: Any, spec: LearnerSpec) -> Any:
    """Freeze everything that the recipe does not train; with `learner.lora`, train new adapters only."""
    _choose_trainable(model, spec.train, spec.freeze)
    if spec.activation_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if spec.lora is None:
        return model
    if spec.activation_checkpointing:
        # Frozen embeddings have no gradient, and checkpointing would then drop the whole graph.
        model.enable_input_require_grads()
    return add_lora(model, spec.lora)


def _choose_trainable(model: Any, train: Sequence[str], freeze: Sequence[str]) -> None:
    """Train the parameters that match a pattern of `train` and none of `freeze`.

    Raises: UsageError when a pattern matches no parameter, or nothing is left to train.
    """
    names = [name for name, _ in model.named_parameters()]
    for key, patterns in (("train", train), ("freeze", freeze)):
        for pattern in patterns:
            if not fnmatch.filter(names, pattern):
                raise UsageError(
                    f"learner.{key}: '{pattern}' names no parameter{did_you_mean(pattern, names)}; "
                    f"there are {', '.join(sorted({name.rpartition('.')[0] for name in names})[:5])}, …"
                )
    for name, parameter in model.named_parameters():
        trained, frozen = (
            any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns) for patterns in (train, freeze)
        )
        if frozen or not trained:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise UsageError(f"learner.freeze: {', '.join(freeze)} leave nothing to train")


def add_lora(model: Any, lora: LoraSpec) -> Any:
    """The model wrapped by peft, with new adapters on its trainable layers, which do not change its output yet."""
    from peft import LoraConfig, get_peft_model

    # A frozen layer gets no adapter.
    weights = ((name, parameter) for name, parameter in model.named_parameters() if name.endswith(".weight"))
    frozen = [name.removesuffix(".weight") for name, parameter in weights if not parameter.requires_grad]
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules),
        exclude_modules=frozen or None,
    )
    return get_peft_model(model, config)
