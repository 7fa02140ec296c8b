"""The policy's full weights in checkpoint format, gathered over ranks and with LoRA merged."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from morl.errors import CheckpointError, RunError
from morl.files import disk_remedy
from morl.model import copy_tokenizer_files


def full_weights(language_model: Any, *, sharded: bool, keep: bool) -> dict[str, torch.Tensor]:
    """Every weight by its module name, with LoRA adapters merged.

    Collective when `sharded` (ZeRO-3): one parameter is gathered at a time, so that no rank ever holds
    two whole models. Otherwise the tensors are the model's, not copies.

    Args:
        language_model: the transformers model.
        sharded: whether parameters are sharded over ranks.
        keep: whether this rank needs the result; the others get an empty dictionary.
    """
    weights: dict[str, torch.Tensor] = {}
    for name, parameters, value in _parameters(language_model):
        with _gathered(parameters, sharded):
            if keep:
                # Gathered parameters are freed when the context ends.
                weights[name] = value().detach().clone() if sharded else value().detach()
    return weights


def _gathered(parameters: list[Any], sharded: bool) -> AbstractContextManager[Any]:
    if not sharded:
        return nullcontext()
    import deepspeed

    gathered: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(parameters)
    return gathered


def _parameters(model: Any) -> Iterator[tuple[str, list[Any], Any]]:
    """`(checkpoint name, parameters to gather, function that returns the value)` for each weight."""
    adapted = {name: model.get_submodule(name) for name in adapted_layers(model)}
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


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Name, dtype and shape of a tensor of the checkpoint."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


class CheckpointSource:
    """The policy's full weights as a stream, under their checkpoint names, LoRA merged.

    Implements vLLM's `WeightSource`. Under ZeRO-3 iterating is collective: one parameter is gathered at a time.
    """

    def __init__(self, language_model: Any, *, sharded: bool) -> None:
        self.language_model = language_model
        self.sharded = sharded

    def metadata(self) -> list[TensorInfo]:
        """The tensors that iterating yields, in order; nothing is gathered.

        Raises: CheckpointError when a tensor of the checkpoint is made of several parameters.
        """
        from transformers.core_model_loading import revert_weight_conversion

        shapes: dict[str, torch.Tensor] = {}
        infos: list[TensorInfo] = []
        for name, parameters, _ in _parameters(self.language_model):
            # The weight comes first, its adapters after it; DeepSpeed stores the shape of a sharded parameter.
            shape = getattr(parameters[0], "ds_shape", parameters[0].shape)
            shapes[name] = torch.empty(shape, dtype=parameters[0].dtype, device="meta")
            named = revert_weight_conversion(self.language_model, {name: shapes[name]})
            infos += [TensorInfo(saved_name, value.dtype, tuple(value.shape)) for saved_name, value in named.items()]
        whole = revert_weight_conversion(self.language_model, shapes)
        if {info.name: info.shape for info in infos} != {name: tuple(value.shape) for name, value in whole.items()}:
            raise CheckpointError(
                f"the checkpoint of {type(self.language_model).__name__} has tensors made of several parameters, "
                "which cannot be sent one by one; use sync.kind=disk"
            )
        return infos

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        from transformers.core_model_loading import revert_weight_conversion

        for name, parameters, value in _parameters(self.language_model):
            with _gathered(parameters, self.sharded):
                # A copy: gathered parameters are freed, and the receiver may hold several tensors at a time.
                weight = value().detach().clone()
            for saved_name, tensor in revert_weight_conversion(self.language_model, {name: weight}).items():
                yield saved_name, tensor.contiguous()


def adapter_weights(peft_model: Any, *, sharded: bool, keep: bool) -> dict[str, torch.Tensor]:
    """The LoRA adapter's weights by peft's checkpoint names.

    Collective when `sharded`, like `full_weights`.

    Args:
        peft_model: the transformers model wrapped by peft.
        sharded: whether parameters are sharded over ranks.
        keep: whether this rank needs the result; the others get an empty dictionary.
    """
    from peft import get_peft_model_state_dict

    weights: dict[str, torch.Tensor] = {}
    for name, parameter in peft_model.named_parameters():
        if ".lora_" in name:
            with _gathered([parameter], sharded):
                if keep:
                    weights[name] = parameter.detach().clone().contiguous()
    named: dict[str, torch.Tensor] = get_peft_model_state_dict(peft_model, weights) if keep else {}
    return named


def adapted_layers(model: Any) -> list[str]:
    """Names of the layers with a LoRA adapter, within the transformers model."""
    return [name for name, module in model.named_modules() if hasattr(module, "get_delta_weight")]


def adapted_outside(model: Any) -> list[str]:
    """Those of the adapted layers that lie outside of the language model: in a vision tower, or the head."""
    inside = {id(module) for module in model.get_decoder().modules()}
    return [name for name in adapted_layers(model) if id(model.get_submodule(name)) not in inside]


def write_weights(
    language_model: Any, weights: dict[str, torch.Tensor], source: Path, target: Path, policy_version: int
) -> None:
    """Write a checkpoint folder that transformers and vLLM load, tokenizer files included.

    The file carries the policy version, so that an engine can report the version it has loaded.
    The folder appears whole or not at all. Raises: RunError when it cannot be written.
    """
    from transformers.core_model_loading import revert_weight_conversion

    with _whole(target) as folder:
        _save(revert_weight_conversion(language_model, weights), folder / "model.safetensors", policy_version)
        copy_tokenizer_files(source, folder)


def write_adapter(peft_model: Any, weights: dict[str, torch.Tensor], target: Path, policy_version: int) -> None:
    """Write an adapter folder that peft and vLLM load, atomically and with the policy version, as `write_weights`."""
    with _whole(target) as folder:
        peft_model.peft_config["default"].save_pretrained(folder)
        _save(weights, folder / "adapter_model.safetensors", policy_version)


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A temporary folder to fill, which is renamed to `target` at the end.

    Raises: RunError when the disk is full or cannot be written.
    """
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
    except Exception as error:
        remedy = disk_remedy(error, partial.parent, _ELSEWHERE)
        shutil.rmtree(partial, ignore_errors=True)
        if remedy is None:
            raise
        raise RunError(f"{target}: the weights could not be written: {remedy}") from error
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


_ELSEWHERE = (
    "or set run.dir to a larger disk, and sync.folder for the weights that engines load "
    "(or give a container more shared memory: --shm-size)"
)


def _save(weights: dict[str, torch.Tensor], file: Path, policy_version: int) -> None:
    from safetensors.torch import save_file

    metadata = {"format": "pt", "policy_version": str(policy_version)}
    save_file({name: value.contiguous() for name, value in weights.items()}, file, metadata)
