"""Reading a published folder of weights: safetensors files with `policy_version` in their metadata."""

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

    found: set[str | None] = set()
    for path in weight_files(folder):
        with safe_open(path, framework="np") as tensors:
            found.add((tensors.metadata() or {}).get("policy_version"))
    versions = {version for version in found if version is not None}
    if len(versions) != 1 or None in found:
        raise CheckpointError(
            f"{folder}: every safetensors file must carry one policy_version, found {sorted(map(str, found))}"
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
    """Whether the folder holds a LoRA adapter alone, as peft writes it, instead of a whole model."""
    return (Path(folder) / "adapter_config.json").is_file()
