"""A learner's checkpoint as slices of flattened parameters, which ranks in any layout write and read.

Each rank writes one safetensors file with its part: for each trainable parameter the elements
`[offset, offset + count)` of its master weight and of Adam's two moments, in float32, named
`<parameter>:<offset>:<kind>`. A reader looks for its elements in all files, so the number of ranks, the ZeRO
stage, precision and offloading may differ from the writer's. Frozen parameters are not written.
"""

from __future__ import annotations

import bisect
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from morl.errors import CheckpointError
from morl.files import fsync_path

FORMAT = 1

Kind = Literal["weight", "exp_avg", "exp_avg_sq"]
MOMENTS: tuple[Kind, Kind] = ("exp_avg", "exp_avg_sq")

Shape = tuple[int, ...]

_RNG = "rng"
_REMEDY = "delete the checkpoint's folder to resume from the previous one, or start another run (run.name=…)"


@dataclass(frozen=True, slots=True)
class About:
    """Metadata of a rank's file."""

    ranks: int
    """Number of ranks that wrote, one file each."""
    shapes: Mapping[str, Shape]
    """Of every trainable parameter, on whichever rank."""
    steps: Mapping[str, int]
    """Optimiser steps that this rank's parameters have taken."""
    loss_scale: Mapping[str, float] = field(default_factory=dict)
    """State of the loss scaler, by DeepSpeed's attribute names."""


@dataclass(frozen=True, slots=True)
class Shard:
    """One rank's part of a checkpoint, in host memory."""

    rank: int
    about: About
    slices: Mapping[tuple[str, int, Kind], torch.Tensor]
    """By parameter, offset of the first element, and kind."""
    rng: Mapping[str, torch.Tensor]
    """State of torch's random number generator by kind of device."""

    def write(self, folder: Path) -> Path:
        """Write the shard into `folder` and fsync it; returns the file."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"rank-{self.rank:05d}.safetensors"
        tensors = {f"{name}:{offset}:{kind}": elements for (name, offset, kind), elements in self.slices.items()}
        tensors |= {f"{_RNG}:{device}": state for device, state in self.rng.items()}
        save_file(tensors, path, {"morl": json.dumps({"format": FORMAT, **asdict(self.about)})})
        fsync_path(path)
        return path


@dataclass(frozen=True, slots=True)
class _Stored:
    offset: int
    count: int
    elements: Any
    """A lazy slice, read from the file when it is indexed."""


class Shards:
    """Reads the shards in a folder, which are memory-mapped.

    Raises: CheckpointError when the folder holds none, or not all of them, or one is not readable.
    """

    def __init__(self, folder: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self.folder = folder
        self._files: list[Any] = []
        self._stored: dict[tuple[str, str], list[_Stored]] = {}
        abouts = []
        for path in sorted(folder.glob("rank-*.safetensors")):
            try:
                abouts.append(self._open(safe_open(path, framework="pt")))
            except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
                raise CheckpointError(f"{path}: cannot be read: {error!r}; {_REMEDY}") from error
        if not abouts or len(abouts) != abouts[0].ranks:
            whole = f" of {abouts[0].ranks}" if abouts else ""
            raise CheckpointError(f"'{folder}' holds the learner's state of {len(abouts)}{whole} ranks; {_REMEDY}")
        for stored in self._stored.values():
            stored.sort(key=lambda part: part.offset)
        steps = {name: step for about in abouts for name, step in about.steps.items()}
        self.about = About(abouts[0].ranks, abouts[0].shapes, steps, abouts[0].loss_scale)

    def _open(self, file: Any) -> About:
        self._files.append(file)
        about = json.loads((file.metadata() or {})["morl"])
        version = about.pop("format")
        if version != FORMAT:
            raise ValueError(f"written in format {version}; this version of morl reads format {FORMAT}")
        keys = file.keys()
        for key in keys:
            if not key.startswith(f"{_RNG}:"):
                name, offset, kind = key.rsplit(":", 2)
                elements = file.get_slice(key)
                stored = _Stored(int(offset), elements.get_shape()[0], elements)
                self._stored.setdefault((name, kind), []).append(stored)
        about["shapes"] = {name: tuple(shape) for name, shape in about["shapes"].items()}
        return About(**about)

    @property
    def step(self) -> int:
        """Optimiser steps taken."""
        return max(self.about.steps.values(), default=0)

    def require(self, shapes: Mapping[str, Shape]) -> None:
        """Raises: CheckpointError when the saved parameters are not those of `shapes`."""
        for name in [*shapes, *self.about.shapes]:
            saved, expected = self.about.shapes.get(name), shapes.get(name)
            if saved != expected:
                raise CheckpointError(
                    f"'{self.folder}' does not fit the model: '{name}' {_describe(saved)} in the checkpoint and "
                    f"{_describe(expected)} among the model's trainable parameters. Resume with the model.path, "
                    "learner.lora, learner.train and learner.freeze of the run that wrote it, or start another run "
                    "(run.name=…)"
                )

    def read(self, name: str, kind: Kind, offset: int, count: int) -> torch.Tensor:
        """Elements `[offset, offset + count)` of a flattened parameter or moment; moments are 0 before the first step.

        Returns: float32.
        Raises: CheckpointError when no file has some of them.
        """
        elements = torch.zeros(count)
        stored = self._stored.get((name, kind), [])
        done, end = offset, offset + count
        first = bisect.bisect_right(stored, offset, key=lambda part: part.offset) - 1
        for part in stored[max(0, first) :]:
            stop = min(end, part.offset + part.count)
            if part.offset > done or done >= end:
                break
            if stop > done:
                elements[done - offset : stop - offset] = part.elements[done - part.offset : stop - part.offset]
                done = stop
        if done < end and (kind == "weight" or self.about.steps.get(name)):
            raise CheckpointError(f"'{self.folder}' lacks {kind} of '{name}' from element {done} on; {_REMEDY}")
        return elements

    def weight(self, name: str) -> torch.Tensor:
        """A whole parameter's master weight, float32, in its shape."""
        shape = self.about.shapes[name]
        return self.read(name, "weight", 0, math.prod(shape)).view(shape)

    def rng(self, rank: int) -> dict[str, torch.Tensor]:
        """A rank's state of torch's random number generator by kind of device."""
        file = self._files[rank]
        keys = file.keys()
        return {key.partition(":")[2]: file.get_tensor(key) for key in keys if key.startswith(f"{_RNG}:")}


def _describe(shape: Shape | None) -> str:
    return "is missing" if shape is None else f"has the shape {list(shape)}"
