"""`morl train`."""

from __future__ import annotations

import argparse
from pathlib import Path

from morl.cli.command import DONE, INTERRUPTED, Command, recipe_arguments, run_arguments


def _run(options: argparse.Namespace) -> int:
    from morl.recipe import load_recipe

    recipe = load_recipe(options.recipe, options.overrides)
    from morl.evaluation import print_outcome
    from morl.run import RunFolder
    from morl.train import train

    done = train(recipe, resume=options.resume, local=options.local)
    folder = options.resume if isinstance(options.resume, Path) else Path(recipe.run.dir) / recipe.run.name
    print_outcome(recipe, RunFolder(folder), done=done)
    if recipe.track.report:
        from morl.report import write_report

        print(f"report: {write_report(folder)}")
    return DONE if done else INTERRUPTED


COMMAND = Command("train", "train a recipe; writes runs/<name>/", (recipe_arguments, run_arguments), _run)
