"""`morl score`."""

from __future__ import annotations

import argparse
from pathlib import Path

from morl.cli.command import DONE, Command, positive_int, refuse_options
from morl.errors import UsageError


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("reward", nargs="?", help="name of a reward (see `morl rewards`)")
    parser.add_argument("--option", action="append", default=[], metavar="K=V", help="an option of the reward")
    parser.add_argument("--in", dest="source", type=Path, metavar="FILE", help="JSON lines of response, gold, meta")
    parser.add_argument("--recipe", metavar="RECIPE", help="re-score saved rollouts with this recipe's rewards")
    parser.add_argument("--samples", type=Path, metavar="DIR", help="runs/<name>/samples, with --recipe")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file for the scored rows")
    parser.add_argument("--workers", type=positive_int, metavar="N", help="worker processes (default: one per core)")


def _run(options: argparse.Namespace) -> int:
    from morl.evaluation import rescore, score_file

    if options.recipe is not None:
        if options.samples is None:
            raise UsageError("morl score --recipe RECIPE needs --samples DIR: the saved rollouts to score")
        named = f"the reward '{options.reward}'"
        refuse_options({named: options.reward}, "--in FILE; with --recipe, the recipe names the rewards")
        alone = {"--in": options.source, "--option": options.option, "--workers": options.workers}
        refuse_options(alone, "the name of a reward, not with --recipe")
        from morl.recipe import load_recipe

        rows = rescore(load_recipe(options.recipe), options.samples, options.out)
        print(f"wrote {options.out}: {rows} rows")
        return DONE
    refuse_options({"--samples": options.samples}, "--recipe RECIPE")
    if options.reward is None or options.source is None:
        raise UsageError("morl score needs a reward and --in FILE, or --recipe RECIPE and --samples DIR")
    counts = score_file(options.reward, options.option, options.source, options.out, workers=options.workers)
    statuses = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    print(f"wrote {options.out}: {counts.total()} rows{': ' * bool(statuses)}{statuses}")
    return DONE


COMMAND = Command("score", "score responses in a file, or saved rollouts under another mixture", (_arguments,), _run)
