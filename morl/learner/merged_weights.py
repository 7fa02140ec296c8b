"""The policy's full weights out of a sharded, maybe LoRA-adapted model, in checkpoint format."""

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
    """Every weight by its module name, LoRA adapters merged into what they adapt.

    Collective when `sharded` (ZeRO-3): every rank calls it; one parameter at a time is
    gathered, so that no rank ever holds two whole models. Without, weights are the model's own, not copies of them.

    Args:
        language_model: the transformers model.
        sharded: whether parameters are spread over ranks.
        keep: whether this rank wants the result; the others get an empty dictionary.
    """
    weights: dict[str, torch.Tensor] = {}
    for name, parameters, value in _parameters(language_model):
        with _gathered(parameters, sharded):
            if keep:
                # What was gathered is gone when the context ends.
                weights[name] = value().detach().clone() if sharded else value().detach()
    return weights


def _gathered(parameters: list[Any], sharded: bool) -> AbstractContextManager[Any]:
    if not sharded:
        return nullcontext()
    import deepspeed

    gathered: AbstractContextManager[Any] = deepspeed.zero.GatheredParameters(parameters)
    return gathered


def _parameters(model: Any) -> Iterator[tuple[str, list[Any], Any]]:
    """`(checkpoint name, parameters to gather, function that gives the value)` for each weight."""
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
    """A tensor of the checkpoint before it is there."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


class CheckpointSource:
    """The policy's full weights as a stream, under the names of its checkpoint, LoRA merged.

    It is what vLLM calls a `WeightSource`. Under ZeRO-3 iterating is collective: every rank iterates, and
    one parameter at a time is gathered.
    """

    def __init__(self, language_model: Any, *, sharded: bool) -> None:
        self.language_model = language_model
        self.sharded = sharded

    def metadata(self) -> list[TensorInfo]:
        """What iterating yields, in its order; nothing is gathered.

        Raises: CheckpointError when the checkpoint's tensors are not made of one parameter each.
        """
        from transformers.core_model_loading import revert_weight_conversion

        shapes: dict[str, torch.Tensor] = {}
        found: list[TensorInfo] = []
        for name, parameters, _ in _parameters(self.language_model):
            # The weight itself comes first, adapters after it; DeepSpeed keeps the shape of what it spread.
            shape = getattr(parameters[0], "ds_shape", parameters[0].shape)
            shapes[name] = torch.empty(shape, dtype=parameters[0].dtype, device="meta")
            named = revert_weight_conversion(self.language_model, {name: shapes[name]})
            found += [TensorInfo(own, value.dtype, tuple(value.shape)) for own, value in named.items()]
        whole = revert_weight_conversion(self.language_model, shapes)
        if {info.name: info.shape for info in found} != {name: tuple(value.shape) for name, value in whole.items()}:
            raise CheckpointError(
                f"the checkpoint of {type(self.language_model).__name__} has tensors made of several parameters, "
                "which cannot be sent one by one; use sync.kind=disk"
            )
        return found

    def __iter__(self) -> Iterator[tuple[str, torch.Tensor]]:
        from transformers.core_model_loading import revert_weight_conversion

        for name, parameters, value in _parameters(self.language_model):
            with _gathered(parameters, self.sharded):
                # A copy: what was gathered is gone when the next one is, and the receiver may take several at a time.
                weight = value().detach().clone()
            for own, tensor in revert_weight_conversion(self.language_model, {name: weight}).items():
                yield own, tensor.contiguous()


def adapter_weights(peft_model: Any, *, sharded: bool, keep: bool) -> dict[str, torch.Tensor]:
    """The LoRA adapter's weights by the names that peft saves them under.

    Collective when `sharded`, as `full_weights` is.

    Args:
        peft_model: the transformers model as peft wraps it.
        sharded: whether parameters are spread over ranks.
        keep: whether this rank wants the result; the others get an empty dictionary.
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
    """Of these, the ones that are not the language model's: a vision tower's, or the head."""
    inside = {id(module) for module in model.get_decoder().modules()}
    return [name for name in adapted_layers(model) if id(model.get_submodule(name)) not in inside]


def write_weights(
    language_model: Any, weights: dict[str, torch.Tensor], source: Path, target: Path, policy_version: int
) -> None:
    """Write a checkpoint folder that transformers and vLLM load, tokenizer files included.

    The policy version travels inside the file, so that an engine can say what it serves by
    reading what it loaded. The folder appears whole or not at all.
    """
    from transformers.core_model_loading import revert_weight_conversion

    with _whole(target) as folder:
        _save(revert_weight_conversion(language_model, weights), folder / "model.safetensors", policy_version)
        copy_tokenizer_files(source, folder)


def write_adapter(peft_model: Any, weights: dict[str, torch.Tensor], target: Path, policy_version: int) -> None:
    """Write an adapter folder that peft and vLLM load; its file carries the policy version as a checkpoint's does."""
    with _whole(target) as folder:
        peft_model.peft_config["default"].save_pretrained(folder)
        _save(weights, folder / "adapter_model.safetensors", policy_version)


@contextmanager
def _whole(target: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `target` at the end: whole or not at all.

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
    "or set run.dir to a larger disk, and sync.folder for weights on their way to the engines "
    "(or give a container more shared memory: --shm-size)"
)


def _save(weights: dict[str, torch.Tensor], file: Path, policy_version: int) -> None:
    from safetensors.torch import save_file

    metadata = {"format": "pt", "policy_version": str(policy_version)}
    save_file({name: value.contiguous() for name, value in weights.items()}, file, metadata)
