"""`morl sft`."""

from __future__ import annotations

import argparse

from morl.cli.command import DONE, INTERRUPTED, Command, recipe_arguments, run_arguments


def _run(options: argparse.Namespace) -> int:
    from morl.recipe import SftRecipe, load_document

    recipe = load_document(SftRecipe, options.recipe, options.overrides)
    from morl.sft import train_supervised

    return DONE if train_supervised(recipe, resume=options.resume, local=options.local) else INTERRUPTED


COMMAND = Command(
    "sft", "supervised training in stages; writes runs/<name>/models/<stage>", (recipe_arguments, run_arguments), _run
)
