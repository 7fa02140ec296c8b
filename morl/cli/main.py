"""The command `morl`. Exit codes: 0 done, 1 the work failed, 2 the command or the recipe is wrong, 130 interrupted."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path

from morl.cli import (
    check_command,
    eval_command,
    export_command,
    plan_command,
    report_command,
    rewards_command,
    rm_command,
    score_command,
    serve_command,
    sft_command,
    train_command,
)
from morl.cli.command import DONE, FAILED, INTERRUPTED, MISUSED
from morl.errors import MorlError, Problem, UsageError
from morl.files import DISK_FULL

COMMANDS = tuple(
    module.COMMAND
    for module in (
        train_command,
        eval_command,
        check_command,
        plan_command,
        score_command,
        serve_command,
        rewards_command,
        rm_command,
        sft_command,
        report_command,
        export_command,
    )
)
"""In the order of `morl --help`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = _parse(arguments)
    try:
        code: int = options.run(options)
    except UsageError as error:
        print(_message(error, options), file=sys.stderr)
        return MISUSED
    except MorlError as error:
        print(f"morl {options.command}: {_message(error, options)}", file=sys.stderr)
        return FAILED
    except BrokenPipeError:
        # The reader of the output has closed it, as `| head` does: not a failure.
        sys.stderr.close()
        return DONE
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        remedy = "free some space, or write to another disk, and run the command again"
        print(f"morl {options.command}: {error}; {remedy}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def _message(error: MorlError, options: argparse.Namespace) -> str:
    """The text of an error, preceded by the line and the key of the recipe that it is about."""
    if not error.key:
        return str(error)
    from morl.recipe import place_of

    return str(Problem(place_of(options.recipe, options.overrides, error.key), ".".join(error.key), str(error)))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Parse the arguments; overrides may come before, between and after options."""
    parser = _parser()
    options, rest = parser.parse_known_args(_recipe_before_resume(sys.argv[1:] if arguments is None else arguments))
    resume = getattr(options, "resume", False)
    if isinstance(resume, Path) and "=" in str(resume) and not resume.exists():
        rest.insert(0, str(resume))
        options.resume = True
    unknown = [text for text in rest if text.startswith("-") or "=" not in text or not hasattr(options, "overrides")]
    if unknown:
        parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    if rest:
        options.overrides = [*options.overrides, *rest]
    return options


def _recipe_before_resume(arguments: Sequence[str]) -> list[str]:
    """Turn `--resume x.yaml` into `x.yaml --resume`: a recipe is not a run folder."""
    reordered = list(arguments)
    for position, (option, text) in enumerate(itertools.pairwise(arguments)):
        if option == "--resume" and text.endswith(".yaml"):
            reordered[position : position + 2] = [text, option]
    return reordered


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="morl", description="Reinforcement-learning post-training on many objectives at once."
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        subparser = commands.add_parser(command.name, help=command.about, usage=command.usage)
        for declare in command.arguments:
            declare(subparser)
        subparser.set_defaults(run=command.run)
    return parser


class _Version(argparse.Action):
    """Looks the version up only when it is needed."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"morl {version('morl-rl')}")
        parser.exit()


if __name__ == "__main__":
    sys.exit(main())
