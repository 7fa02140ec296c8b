"""Finds data and checkpoints that a recipe names and this machine lacks. Loads and fetches nothing."""

from __future__ import annotations

from collections.abc import Iterator

from morl.data import Asked
from morl.errors import Problem
from morl.files import local_path
from morl.recipe import Recipe


def lacks_data(spec: Asked) -> bool:
    """Whether the `path` of a set's data does not exist on this machine; a name on a hub counts as missing."""
    path = spec.data.options.get("path")
    return isinstance(path, str) and _absence(path) is not None


def missing_checkpoints(recipe: Recipe) -> list[Problem]:
    """The recipe's models that are missing: policy, critic, reference and reward models."""
    problems: dict[str, Problem] = {}
    for key, path in _checkpoints(recipe):
        reason = None if path in problems else _absence(path)
        if reason is not None and not _on_hub(path, recipe.run.offline):
            remedy = "; `morl rm` makes one" if key.endswith(".path") and ".rewards." in key else ""
            problems[path] = Problem("", key, f"{reason}{remedy}")
    return list(problems.values())


def _checkpoints(recipe: Recipe) -> Iterator[tuple[str, str]]:
    """Keys of the recipe that name a checkpoint, with the paths."""
    yield "model.path", recipe.model.path
    if recipe.algorithm.critic is not None and recipe.algorithm.critic.path is not None:
        yield "algorithm.critic.path", recipe.algorithm.critic.path
    if recipe.algorithm.kl is not None and recipe.algorithm.kl.reference is not None:
        yield "algorithm.kl.reference", recipe.algorithm.kl.reference
    specs = {f"objectives.{name}": spec for name, spec in recipe.objectives.items()}
    specs |= {f"eval.sets.{name}": spec for name, spec in recipe.eval_objectives().items()}
    for label, spec in specs.items():
        for number, term in enumerate(spec.rewards):
            if term.use == "reward_model" and isinstance(term.options.get("path"), str):
                yield f"{label}.rewards.{number}.path", term.options["path"]


def _absence(path: str) -> str | None:
    """Why a path of a recipe does not exist; None when it does."""
    try:
        place = local_path(path)
    except FileNotFoundError as error:
        return str(error)
    return None if place.exists() else f"{path}: not on this machine"


def _on_hub(path: str, offline: bool) -> bool:
    """Whether the path is a name on the hub that is in the local cache, or may be fetched."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        return isinstance(try_to_load_from_cache(path, "config.json"), str) or not offline
    except HFValidationError:
        return False


__all__ = ["lacks_data", "missing_checkpoints"]
