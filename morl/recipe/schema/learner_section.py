"""The optimiser and the processes that run it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from morl.recipe.rules import Rule, refuse
from morl.recipe.schema.section import Float, Int, Spec, Text


class LoraSpec(Spec):
    """Low-rank adapters; all other weights are frozen."""

    rank: Annotated[Int, Field(ge=1)]
    """Rank of the adapters."""
    alpha: Annotated[Float, Field(gt=0)]
    """Scale of the adapters: their output is multiplied by `alpha / rank`."""
    dropout: Annotated[Float, Field(ge=0, lt=1)] = 0.0
    """Dropout probability of the adapters' inputs in training."""
    target_modules: Literal["all-linear"] | Annotated[list[Text], Field(min_length=1)] = "all-linear"
    """Names of the layers that get an adapter."""


class LearnerSpec(Spec):
    """The optimiser, and how training is spread over processes, which does not change the update."""

    ranks: Annotated[Int, Field(ge=1)] = 1
    """Number of learner processes, one per GPU."""
    zero: Annotated[Int, Field(ge=0, le=3)] = 0
    """DeepSpeed ZeRO stage: 0 shards nothing, 1 the optimiser state, 2 also the gradients, 3 also the weights. With a
    16-bit `model.dtype`, 0 and 1 are raised to 2, because lower stages would accumulate gradients in 16 bits."""
    lr: Annotated[Float, Field(ge=0)] = 1e-6
    """Learning rate after warm-up."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Learning-rate schedule after warm-up; linear and cosine reach 0 in the last step."""
    warmup_steps: Annotated[Int, Field(ge=0)] = 0
    """Steps over which the learning rate rises from 0."""
    betas: tuple[Annotated[Float, Field(ge=0, lt=1)], Annotated[Float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """AdamW's decay rates of the running mean and the running square of the gradient."""
    eps: Annotated[Float, Field(gt=0)] = 1e-8
    """AdamW's epsilon: gradients well below it move almost nothing, gradients well above it take a full step."""
    weight_decay: Annotated[Float, Field(ge=0)] = 0.0
    """AdamW's weight decay."""
    max_grad_norm: Annotated[Float, Field(gt=0)] = 1.0
    """Gradient clipping: a larger gradient is scaled down to this norm."""
    tokens_per_microbatch: Annotated[Int, Field(ge=1)] = 16384
    """Tokens per forward pass of a rank. It sets the memory use and never changes the update."""
    share_prefix: bool = True
    """Compute a prompt once for all its responses. If false, the prompt is repeated for each response: slower, with
    the same update."""
    max_restarts: Annotated[Int, Field(ge=0)] = 3
    """How often in a row, without a new checkpoint, the learner is restarted after one of its processes died."""
    timeout_s: Annotated[Float, Field(gt=0)] = 1800.0
    """Seconds that a rank waits for the other ranks, and that one call of the learner, such as a step, may take."""
    max_skipped_steps: Annotated[Int, Field(ge=1)] = 3
    """The run ends after this many steps in a row were skipped because loss or gradient was not finite."""
    mismatch_warn: Annotated[Float, Field(gt=0)] = 0.1
    """Log a warning when the mean absolute difference of learner and rollout log-probabilities exceeds this, in nats
    per token."""
    mismatch_stop: Annotated[Float, Field(gt=0)] = 1.0
    """End the run when the same difference exceeds this in three steps in a row."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""
    attention: Literal["auto", "sdpa", "flex"] = "auto"
    """Attention over a prompt and its responses: `sdpa` runs block by block; `flex` is one compiled kernel, on GPUs
    only; `auto` is flex on a GPU and sdpa elsewhere."""
    liger: Literal["auto", "on", "off"] = "auto"
    """Fused kernels of the package liger-kernel: `auto` uses them on a GPU if the package is installed."""
    offload: bool = False
    """Keep the optimiser state in host memory; needs zero 1, 2 or 3."""
    train: Annotated[list[Text], Field(min_length=1)] = Field(default=["*"])
    """Parameters to train, as name patterns like `model.visual.merger.*`."""
    freeze: list[Text] = Field(default=[])
    """Exceptions from `train`: parameters to freeze, as name patterns like `model.embed_tokens.*` or `visual.*`."""
    lora: LoraSpec | None = None
    """Train low-rank adapters. Default: train the weights themselves."""

    @model_validator(mode="after")
    def _check_offload(self) -> Self:
        if self.offload and self.zero == 0:
            refuse("LearnerSpec", [Rule(("offload",), "needs zero 1, 2 or 3, not 0", [("zero",)])])
        return self
