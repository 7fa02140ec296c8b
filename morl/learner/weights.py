"""The policy's full weights out of a sharded, maybe LoRA-adapted model, in checkpoint format."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from morl.model import copy_tokenizer_files


def full_weights(language_model: Any, *, sharded: bool, keep: bool) -> dict[str, torch.Tensor]:
    """Every weight by its module name, LoRA adapters merged into what they adapt.

    Collective when `sharded` (ZeRO-3): every rank calls it; one parameter at a time is
    gathered, so that no rank ever holds two whole models.

    Args:
        language_model: the transformers model.
        sharded: whether parameters are spread over ranks.
        keep: whether this rank wants the result; the others get an empty dictionary.
    """
    weights: dict[str, torch.Tensor] = {}
    for name, parameters, value in _parameters(language_model):
        with _gathered(parameters, sharded):
            if keep:
                weights[name] = value().detach().clone().contiguous()
    return weights


def _gathered(parameters: list[Any], sharded: bool) -> AbstractContextManager[Any]:
    if not sharded:
        return nullcontext()
    import deepspeed

    gathered: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(parameters)
    return gathered


def _parameters(model: Any) -> Iterator[tuple[str, list[Any], Any]]:
    """`(checkpoint name, parameters to gather, function that gives the value)` for each weight."""
    adapted = {name: module for name, module in model.named_modules() if hasattr(module, "get_delta_weight")}
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            continue
        plain = name.replace(".base_layer.", ".")
        owner = name.split(".base_layer.")[0]
        if owner in adapted and name.endswith(".base_layer.weight"):
            module = adapted[owner]

            def merged(module: Any = module, base: Any = parameter) -> torch.Tensor:
                delta: torch.Tensor = sum(module.get_delta_weight(name) for name in module.active_adapters)
                full: torch.Tensor = base + delta.to(base.dtype)
                return full

            yield plain, list(module.parameters()), merged
        else:
            yield plain, [parameter], lambda parameter=parameter: parameter


def write_weights(
    language_model: Any, weights: dict[str, torch.Tensor], source: Path, target: Path, policy_version: int
) -> None:
    """Write a checkpoint folder that transformers and vLLM load, tokenizer files included.

    The policy version travels inside the file, so that an engine can say what it serves by
    reading what it loaded. The folder appears whole or not at all.
    """
    from safetensors.torch import save_file
    from transformers.core_model_loading import revert_weight_conversion

    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    named = revert_weight_conversion(language_model, weights)
    metadata = {"format": "pt", "policy_version": str(policy_version)}
    save_file({name: value.contiguous() for name, value in named.items()}, partial / "model.safetensors", metadata)
    copy_tokenizer_files(source, partial)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
