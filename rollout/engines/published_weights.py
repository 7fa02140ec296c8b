"""Reads a published folder of weights: safetensors files with `policy_version` in their metadata."""

from __future__ import annotations

from pathlib import Path

from morl.errors import CheckpointError


def weight_files(folder: str | Path) -> list[Path]:
    """The folder's safetensors files, sorted.

    Raises: CheckpointError when there is none.
    """
    files = sorted(Path(folder).glob("*.safetensors"))
    if not files:
        raise CheckpointError(f"{folder} holds no *.safetensors file")
    return files


def read_policy_version(folder: str | Path) -> int:
    """The version that every file of the folder carries. Reads headers only.

    Raises: CheckpointError when it is missing or the files disagree.
    """
    from safetensors import safe_open

    stated: set[str | None] = set()
    for path in weight_files(folder):
        with safe_open(path, framework="np") as tensors:
            stated.add((tensors.metadata() or {}).get("policy_version"))
    versions = {version for version in stated if version is not None}
    if len(versions) != 1 or None in stated:
        raise CheckpointError(
            f"{folder}: every safetensors file must carry the same policy_version, found {sorted(map(str, stated))}"
        )
    return int(versions.pop())


def parameter_names(folder: str | Path) -> set[str]:
    """Names of the tensors in the folder. Reads headers only."""
    from safetensors import safe_open

    names: set[str] = set()
    for path in weight_files(folder):
        with safe_open(path, framework="np") as tensors:
            names.update(tensors.keys())
    return names


def is_adapter(folder: str | Path) -> bool:
    """Whether the folder holds only a LoRA adapter, in peft's format, instead of a whole model."""
    return (Path(folder) / "adapter_config.json").is_file()
