"""`morl rm`."""

from __future__ import annotations

import argparse

from morl.cli.command import DONE, INTERRUPTED, Command, recipe_arguments, run_arguments


def _run(options: argparse.Namespace) -> int:
    from morl.recipe import PreferenceRecipe, load_document

    recipe = load_document(PreferenceRecipe, options.recipe, options.overrides)
    from morl.rm import train_reward_model

    return DONE if train_reward_model(recipe, resume=options.resume, local=options.local) else INTERRUPTED


COMMAND = Command(
    "rm",
    "train a reward model from pairs of responses; writes runs/<name>/model",
    (recipe_arguments, run_arguments),
    _run,
)
