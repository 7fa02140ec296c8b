"""Exports a run's policy as a plain Hugging Face checkpoint, or its adapter as a peft folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from morl.errors import CheckpointError, UsageError
from morl.files import require_writable
from morl.model import resolve_model
from morl.run.checkpoint import find_fault, newest_good, read_state

if TYPE_CHECKING:
    from morl.learner import Policy
    from morl.recipe import LearnerSpec


def export(folder: Path, out: Path, *, adapter: bool = False) -> None:
    """Write the policy of the newest good checkpoint of a run, supervised or not, LoRA merged, to `out`.

    Runs in one process, in host memory, whatever ranks and devices wrote the checkpoint.

    Args:
        folder: the run's folder, or one of its checkpoints.
        out: the folder that transformers and vLLM will load; must not exist, or be empty.
        adapter: write only the LoRA adapter, to be loaded on top of the run's model.

    Raises: UsageError, CheckpointError.
    """
    from morl.learner import adapter_weights, full_weights, write_adapter, write_weights

    if out.exists() and not out.is_dir():
        raise UsageError(f"--out: '{out}' is a file; name a folder")
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"--out: '{out}' is not empty")
    require_writable(out / "config.json")
    run, checkpoint = _checkpoint(folder)
    origin = _origin(run, checkpoint)
    if adapter and origin.learner.lora is None:
        raise UsageError(f"--adapter: '{run}' trains all weights and has no adapter; leave --adapter out")
    policy = _policy(origin, checkpoint)
    target = out.absolute()
    if adapter:
        write_adapter(policy.model, adapter_weights(policy.model, sharded=False, keep=True), target, origin.version)
    else:
        weights = full_weights(policy.language_model, sharded=False, keep=True)
        write_weights(policy.language_model, weights, origin.model, target, origin.version)


@dataclass(frozen=True, slots=True)
class _Origin:
    """What the learner of a checkpoint started from."""

    model: Path
    dtype: str
    learner: LearnerSpec
    version: int
    """Updates from there, or from the start of the run, to the checkpoint."""


def _origin(run: Path, checkpoint: Path) -> _Origin:
    """Raises: UsageError when the run trains no policy; RecipeError."""
    from morl.recipe import SftRecipe, go_offline, load_document, load_recipe

    state = read_state(checkpoint)
    if "stage" in state:
        staged = load_document(SftRecipe, run / "recipe.yaml")
        go_offline(staged)
        stage = state["stage"]
        before = list(staged.stages)[: list(staged.stages).index(stage)]
        model = run / "models" / before[-1] if before else resolve_model(staged.model.path)
        return _Origin(model, staged.model.dtype, staged.learner_of(staged.stages[stage]), state["step"])
    if "policy_version" not in state:
        raise UsageError(f"'{run}' trains a reward model; the finished one is in '{run / 'model'}'")
    recipe = load_recipe(run / "recipe.yaml")
    go_offline(recipe)
    return _Origin(resolve_model(recipe.model.path), recipe.model.dtype, recipe.learner, state["policy_version"])


def _policy(origin: _Origin, checkpoint: Path) -> Policy:
    """The checkpoint's policy, on the CPU."""
    import torch

    from morl.learner import Policy, Shards, prepare, shapes_of
    from morl.model import load_policy

    saved = Shards(checkpoint / "learner")
    model = prepare(load_policy(origin.model, origin.dtype), origin.learner)
    policy = Policy(model, temperature=1.0, banned_token_ids=())  # neither is part of the weights
    saved.require(shapes_of(policy))
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(saved.weight(name))
    return policy


def _checkpoint(folder: Path) -> tuple[Path, Path]:
    """The run's folder and the checkpoint to export."""
    if (folder / "recipe.yaml").is_file():
        newest = newest_good(folder / "checkpoints")
        if newest is None:
            raise CheckpointError(f"'{folder}' has no good checkpoint")
        return folder, newest
    run = folder.absolute().parent.parent
    if (run / "recipe.yaml").is_file():
        fault = find_fault(folder)
        if fault is not None:
            raise CheckpointError(f"'{folder}': {fault}")
        return run, folder
    raise UsageError(f"'{folder}' is neither a run's folder nor one of its checkpoints")


@contextmanager
def exported(model: str) -> Iterator[Path]:
    """The checkpoint folder that `model` names; a run is exported to a temporary one for the block."""
    path = Path(model)
    if not (path / "recipe.yaml").is_file() and not (path / "manifest.json").is_file():
        yield resolve_model(model)
        return
    with tempfile.TemporaryDirectory(prefix="morl-export-") as temporary:
        target = Path(temporary) / "model"
        export(path, target)
        yield target
