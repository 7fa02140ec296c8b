"""A policy that stays as it is: what the trained one is compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from morl.errors import UsageError
from morl.learner.attention_kernel import use_shared_prefix
from morl.learner.liger import use_liger
from morl.learner.policy import Policy, PolicySettings
from morl.learner.rmsnorm_cpu import use_lean_norms
from morl.model import load_policy


def frozen_copy(folder: Path, settings: PolicySettings, vocabulary: int, device: Any, attention: str = "sdpa") -> Any:
    """A second policy, without gradient or optimiser, called as the trained one is.

    With ZeRO-3 its weights are spread over the ranks, and calling it is collective; otherwise every rank holds all.

    Args:
        folder: its checkpoint.
        settings: of the trained policy; number type, temperature and banned tokens are the same.
        vocabulary: number of token ids of the trained policy.
        device: where it runs.
        attention: kind of attention over rows; with the trained policy's kernels equal weights give equal numbers.

    Raises: UsageError when the vocabularies differ.
    """
    model = load_policy(folder, settings.dtype)
    own = model.config.get_text_config().vocab_size
    if own != vocabulary:
        raise UsageError(
            f"algorithm.kl.reference: '{folder}' knows {own} tokens and the policy {vocabulary}: "
            "give a checkpoint with the policy's tokenizer"
        )
    gpu = device.type == "cuda"
    use_shared_prefix(model, attention)
    use_liger(model, settings.learner.liger, gpu=gpu)
    if not gpu:
        use_lean_norms(model)
    policy = Policy(model, temperature=settings.temperature, banned_token_ids=settings.banned_token_ids)
    policy.requires_grad_(False).eval()
    if settings.learner.zero < 3:
        return policy.to(device)
    import deepspeed

    zero: dict[str, Any] = {"stage": 3}
    if settings.learner.offload:
        zero |= {"offload_param": {"device": "cpu"}}
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "steps_per_print": None,
        "zero_optimization": zero,
        "bf16": {"enabled": settings.dtype == "bfloat16"},
        "fp16": {"enabled": settings.dtype == "float16"},
    }
    engine, *_ = deepspeed.initialize(model=policy, config=config)
    return engine
