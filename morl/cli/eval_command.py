"""`morl eval`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from morl.cli.command import DONE, Command, recipe_arguments, refuse_options
from morl.errors import UsageError

if TYPE_CHECKING:
    from morl.recipe import Recipe


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", help="folder of a checkpoint, or a run folder")
    parser.add_argument("--compare", metavar="PATH", help="a second model; prints the two side by side")
    parser.add_argument(
        "--responses", type=Path, metavar="FILE", help="JSON lines of response, row: score these instead"
    )
    parser.add_argument(
        "--set", metavar="NAME", help="with --responses: the eval set they belong to, if there are several"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="append the rows as JSON lines")
    parser.add_argument("--local", action="store_true", help="run in this process, without Ray")


def _run(options: argparse.Namespace) -> int:
    if (options.model is None) == (options.responses is None):
        raise UsageError("morl eval RECIPE takes --model PATH or --responses FILE")
    recipe = _recipe_to_evaluate(options)
    from morl.evaluation import RowFile, print_comparison, print_evaluation
    from morl.run import evaluate_models

    if options.responses is None:
        refuse_options({"--set": options.set}, "--responses FILE")
    else:
        refuse_options({"--compare": options.compare, "--local": options.local}, "--model PATH")
        from morl.evaluation import score_responses

        if options.set not in recipe.eval.sets and (options.set is not None or len(recipe.eval.sets) != 1):
            raise UsageError(f"morl eval --responses: --set names one of {', '.join(recipe.eval.sets) or 'no sets'}")
        row = score_responses(recipe, options.set or next(iter(recipe.eval.sets)), options.responses)
        RowFile(options.out, str(options.responses)).log_eval(row)
        print_evaluation([row], unit="characters")
        return DONE
    models = [options.model] + ([options.compare] if options.compare else [])
    results = evaluate_models(recipe, models, out=options.out, local=options.local)
    if options.compare:
        print_comparison(results[0], results[1], names=(options.model, options.compare))
    else:
        print_evaluation(results[0])
    return DONE


def _recipe_to_evaluate(options: argparse.Namespace) -> Recipe:
    """The recipe of a run, or one built around a standalone evaluation set."""
    from morl.recipe import EvalSetRecipe, is_eval_set, load_document, load_recipe

    if not is_eval_set(options.recipe):
        return load_recipe(options.recipe, options.overrides)
    eval_set = load_document(EvalSetRecipe, options.recipe, options.overrides)
    return eval_set.as_recipe(Path(options.recipe).stem, options.model or "none")


COMMAND = Command(
    "eval", "score a recipe's eval sets on a model, or saved responses", (recipe_arguments, _arguments), _run
)
