"""What a command of `morl` is, the arguments that several take, and the exit codes."""

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
    """Each declares some of its arguments."""
    run: Callable[[argparse.Namespace], int]
    """Does the work and returns the exit code."""
    usage: str | None = None
    """In place of the usage line that argparse would write."""


def recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """`RECIPE key.path=value …`."""
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, or the name of a built-in recipe")
    parser.add_argument(
        "overrides", nargs="*", default=[], metavar="key.path=value", help="replaces a value of the recipe"
    )


def run_arguments(parser: argparse.ArgumentParser) -> None:
    """`--resume [DIR] --local`, for commands that train."""
    parser.add_argument(
        "--resume",
        nargs="?",
        const=True,
        default=False,
        type=Path,
        metavar="DIR",
        help="go on from the newest good checkpoint of the run (or of the run folder DIR)",
    )
    parser.add_argument("--local", action="store_true", help="everything in this process, without Ray: for a debugger")


def positive_int(text: str) -> int:
    """The value of an option that counts things. Raises: ArgumentTypeError."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"should be a whole number above 0, not {text!r}")
    return int(text)


def refuse_options(given: Mapping[str, object], goes_with: str) -> None:
    """Refuse options that would have no effect. Raises: UsageError for each that has a value."""
    for option, value in given.items():
        if value:
            raise UsageError(f"{option} goes with {goes_with}")
