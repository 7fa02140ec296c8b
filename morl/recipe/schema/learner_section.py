"""The optimiser and the processes that it is spread over."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from morl.recipe.rules import Rule, refuse
from morl.recipe.schema.section import Float, Int, Spec, Text


class LoraSpec(Spec):
    """Low-rank adapters: only these are trained."""

    rank: Annotated[Int, Field(ge=1)]
    """Rank of the adapters."""
    alpha: Annotated[Float, Field(gt=0)]
    """Scale of the adapters: their output is multiplied by alpha / rank."""
    dropout: Annotated[Float, Field(ge=0, lt=1)] = 0.0
    """Share of the adapters' inputs that is dropped in training."""
    target_modules: Literal["all-linear"] | Annotated[list[Text], Field(min_length=1)] = "all-linear"
    """Names of the layers that get an adapter."""


class LearnerSpec(Spec):
    """The optimiser and how it is spread over processes; none of the latter changes the update."""

    ranks: Annotated[Int, Field(ge=1)] = 1
    """Processes that learn together, one a GPU."""
    zero: Annotated[Int, Field(ge=0, le=3)] = 0
    """DeepSpeed ZeRO stage: what the ranks share out: 0 nothing, 1 optimiser, 2 gradients too, 3 weights too. With a
    16-bit model.dtype 0 and 1 are 2, below which gradients would be added up in 16 bits."""
    lr: Annotated[Float, Field(ge=0)] = 1e-6
    """Learning rate after warm-up."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate goes on after warm-up; linear and cosine end at 0 with the last step."""
    warmup_steps: Annotated[Int, Field(ge=0)] = 0
    """Steps in which the learning rate rises from 0."""
    betas: tuple[Annotated[Float, Field(ge=0, lt=1)], Annotated[Float, Field(ge=0, lt=1)]] = (0.9, 0.999)
    """AdamW's decay of the running mean and of the running square of the gradient."""
    eps: Annotated[Float, Field(gt=0)] = 1e-8
    """AdamW's epsilon: a gradient well below it moves nothing, one well above it takes a full step."""
    weight_decay: Annotated[Float, Field(ge=0)] = 0.0
    """AdamW's weight decay."""
    max_grad_norm: Annotated[Float, Field(gt=0)] = 1.0
    """The gradient is scaled down to this norm."""
    tokens_per_microbatch: Annotated[Int, Field(ge=1)] = 16384
    """Tokens in one forward pass of a rank: memory, never the update, depends on it."""
    share_prefix: bool = True
    """Compute a prompt once for all its answers; off, each answer comes with its prompt: slower, the same update."""
    max_restarts: Annotated[Int, Field(ge=0)] = 3
    """How often in a row, without a new checkpoint, the learner is started again after one of its processes died."""
    timeout_s: Annotated[Float, Field(gt=0)] = 1800.0
    """Seconds that a rank waits for the others, and that any one call of the learner, as a step, may take."""
    max_skipped_steps: Annotated[Int, Field(ge=1)] = 3
    """Steps in a row with a loss or gradient that is not finite, each skipped, that end the run."""
    mismatch_warn: Annotated[Float, Field(gt=0)] = 0.1
    """Mean difference of the tokens' log-probabilities, learner against rollout, in nats, that is worth a warning."""
    mismatch_stop: Annotated[Float, Field(gt=0)] = 1.0
    """The same; three steps in a row above it end the run."""
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, more time."""
    attention: Literal["auto", "sdpa", "flex"] = "auto"
    """Attention over a prompt and its answers: `sdpa` block by block; `flex` in one compiled kernel, on GPUs only;
    `auto` takes flex on a GPU."""
    liger: Literal["auto", "on", "off"] = "auto"
    """Fused kernels of the package liger-kernel: `auto` takes them on a GPU where the package is installed."""
    offload: bool = False
    """Keep the optimiser in the memory of the host; needs zero 1, 2 or 3."""
    train: Annotated[list[Text], Field(min_length=1)] = Field(default=["*"])
    """Parameters that learn: patterns like `model.visual.merger.*` over their names; all by default."""
    freeze: list[Text] = Field(default=[])
    """Of these, parameters that stay as they are: patterns like `model.embed_tokens.*` or `visual.*`."""
    lora: LoraSpec | None = None
    """Train low-rank adapters; all weights when it is not given."""

    @model_validator(mode="after")
    def _check_offload(self) -> Self:
        if self.offload and self.zero == 0:
            refuse("LearnerSpec", [Rule(("offload",), "needs zero 1, 2 or 3, not 0", [("zero",)])])
        return self
