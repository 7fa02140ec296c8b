"""The run: its folder, its length, and where its metrics go."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from morl.recipe.rules import matches
from morl.recipe.schema.section import Int, Spec, Text


class RunFolderSpec(Spec):
    """The name of the run and what it writes to disk."""

    name: Annotated[
        str,
        matches(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", "names a folder: letters, digits, '_', '-', '+' and '.' only"),
    ]
    """Name of the run; it writes to the folder `<dir>/<name>`."""
    seed: Annotated[Int, Field(ge=0, lt=2**31)] = 0
    """Seed of everything random in the run."""
    checkpoint_every: Annotated[Int, Field(ge=0)] = 20
    """Steps between checkpoints; 0 saves at the end only."""
    keep_checkpoints: Annotated[Int, Field(ge=1)] = 2
    """How many of the newest checkpoints to keep."""
    dir: Text = "runs"
    """Parent folder of all runs."""
    offline: bool = True
    """Keep the Hugging Face libraries off the network."""


class RunSpec(RunFolderSpec):
    """The name and length of the run, and what it writes to disk."""

    steps: Annotated[Int, Field(ge=1)]
    """Optimiser steps; each trains on one batch of rollouts."""


class WandbSpec(Spec):
    """Weights & Biases."""

    project: Text
    """Project that the run belongs to."""
    entity: Text | None = None
    """User or team."""
    name: Text | None = None
    """Name of the run in Weights & Biases. Default: `run.name`."""
    mode: Literal["offline", "online", "disabled"] = "offline"
    """`offline` writes files that `wandb sync` uploads later."""


class TrackSpec(Spec):
    """Where metrics go, in addition to `metrics.jsonl` and the console."""

    wandb: WandbSpec | None = None
    """Weights & Biases."""
    tensorboard: bool = False
    """Write TensorBoard files."""
    samples: bool = True
    """Save every sample with its score."""
    report: bool = False
    """Write `report.html` when training ends; `morl report` writes it at any time."""
