"""The frozen reference policy of the KL term."""

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
    """A second policy, without gradient or optimiser, called like the trained one.

    With ZeRO-3 its weights are sharded over the ranks and calling it is collective; otherwise every rank holds all.

    Args:
        folder: its checkpoint.
        settings: of the trained policy; the reference has its dtype, temperature and banned tokens.
        vocabulary: number of token ids of the trained policy.
        device: where it runs.
        attention: kind of attention; with the trained policy's kernels equal weights give equal numbers.

    Raises: UsageError when the vocabularies differ.
    """
    model = load_policy(folder, settings.dtype)
    tokens = model.config.get_text_config().vocab_size
    if tokens != vocabulary:
        raise UsageError(
            f"algorithm.kl.reference: '{folder}' has {tokens} tokens and the policy {vocabulary}: "
            "name a checkpoint with the policy's tokenizer"
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
