"""A run's policy as a plain Hugging Face checkpoint."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from morl.checkpoint import find_fault, newest_good, read_state
from morl.errors import CheckpointError, UsageError
from morl.model import ChatCodec, resolve_model

logger = logging.getLogger(__name__)


def export(folder: Path, out: Path) -> None:
    """Write the policy of a run's newest good checkpoint, LoRA merged, to `out`.

    Args:
        folder: the run's folder, or one of its checkpoints.
        out: a folder that transformers and vLLM will load; must not exist or be empty.

    Raises: UsageError, CheckpointError.
    """
    from morl.cluster import Cluster
    from morl.learner import Learner
    from morl.learner.policy import PolicySettings
    from morl.recipe import go_offline, load_recipe

    if out.exists() and any(out.iterdir()):
        raise UsageError(f"--out: '{out}' is not empty")
    run, checkpoint = _checkpoint(folder)
    recipe = load_recipe(run / "recipe.yaml")
    # Nothing is compared with a reference here: it need not be there any more.
    recipe = recipe.model_copy(update={"algorithm": recipe.algorithm.model_copy(update={"kl": None})})
    go_offline(recipe)
    model = resolve_model(recipe.model.path)
    codec = ChatCodec.load(model, recipe.rollout.max_prompt_tokens)
    settings = PolicySettings.of(recipe, model, codec.banned_token_ids)
    local = recipe.learner.ranks == 1
    with Cluster(recipe.cluster, local=local) as cluster:
        learner = Learner.start(settings, cluster, total_steps=recipe.run.steps, max_new_tokens=1)
        try:
            learner.load(checkpoint / "learner", read_state(checkpoint))
            out.parent.mkdir(parents=True, exist_ok=True)
            if out.exists():
                out.rmdir()
            learner.publish(out.absolute())
        finally:
            learner.close()


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
    """A checkpoint folder for whatever `model` names; a run is exported for the time of the context."""
    path = Path(model)
    if not (path / "recipe.yaml").is_file() and not (path / "manifest.json").is_file():
        yield resolve_model(model)
        return
    with tempfile.TemporaryDirectory(prefix="morl-export-") as temporary:
        target = Path(temporary) / "model"
        export(path, target)
        yield target
