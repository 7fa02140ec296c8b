"""The type of a `morl` command, the arguments that several commands take, and the exit codes."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from morl.errors import UsageError

DONE, FAILED, MISUSED, INTERRUPTED = 0, 1, 2, 130
"""Exit codes."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command of `morl`."""

    name: str
    about: str
    """One line for `morl --help`."""
    arguments: tuple[Callable[[argparse.ArgumentParser], None], ...]
    """Functions that each declare some of the arguments."""
    run: Callable[[argparse.Namespace], int]
    """Does the work and returns the exit code."""
    usage: str | None = None
    """Usage line; default: the one that argparse writes."""


def recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `RECIPE key.path=value …`."""
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, or the name of a built-in recipe")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key.path=value", help="replaces a value of the recipe"
    )


def run_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `--resume [DIR] --local`, for commands that train."""
    parser.add_argument(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        type=Path,
        metavar="DIR",
        help="continue from the newest good checkpoint of the run (or of the run folder DIR)",
    )
    parser.add_argument("--local", action="store_true", help="run in this process, without Ray: for a debugger")


def positive_int(text: str) -> int:
    """Parse the value of an option that counts things. Raises: ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"should be a whole number above 0, not {text!r}")
    return int(text)


def refuse_options(values: Mapping[str, object], goes_with: str) -> None:
    """Refuse options that would have no effect. Raises: UsageError for the first that has a value."""
    for option, value in values.items():
        if value:
            raise UsageError(f"{option} goes with {goes_with}")
