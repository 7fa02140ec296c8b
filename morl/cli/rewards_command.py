"""`morl rewards`."""

from __future__ import annotations

import argparse
from pathlib import Path

from morl.cli.command import DONE, Command
from morl.errors import UsageError


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", metavar="NAME", help="the reward to explain")
    parser.add_argument("new_name", nargs="?", metavar="new NAME", help="write a package with a new reward NAME")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder of the package (default: ./morl-NAME)")


def _run(options: argparse.Namespace) -> int:
    if options.name == "new":
        from morl.cli.scaffold import new_reward

        if options.new_name is None:
            raise UsageError("morl rewards new NAME: which name?")
        folder = new_reward(options.new_name, options.out)
        print(f"wrote {folder}; next: pip install --no-build-isolation -e {folder}")
        return DONE
    if options.new_name is not None or options.out is not None:
        raise UsageError("morl rewards NAME explains a reward; morl rewards new NAME [--out DIR] starts a new one")
    from morl.cli.reward_docs import describe_rewards

    print(describe_rewards(options.name))
    return DONE


COMMAND = Command(
    "rewards",
    "list all rewards with origin and options, explain one, or start a package with a new one",
    (_arguments,),
    _run,
    usage="morl rewards [NAME]\n       morl rewards new NAME [--out DIR]",
)
