"""`morl check`."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from morl.cli.command import Command, positive_int, recipe_arguments

if TYPE_CHECKING:
    from morl.preflight import CheckReport

SHOWN = 5
"""Places that are shown of problems that read the same."""


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=positive_int, metavar="N", help="look at the first N rows of each data set only")


def _run(options: argparse.Namespace) -> int:
    from morl.preflight import check

    return print_report(check(options.recipe, options.overrides, rows=options.rows))


def print_report(report: CheckReport) -> int:
    """Print what is wrong and what is not there, problems that read the same together; returns the exit code."""
    lines = [str(problem) for problem in report.recipe]
    counts = Counter((problem.path, problem.message) for problem in report.data)
    seen: Counter[tuple[str, str]] = Counter()
    for problem in report.data:
        same = problem.path, problem.message
        seen[same] += 1
        if seen[same] <= SHOWN:
            lines.append(str(problem))
        elif seen[same] == counts[same]:
            lines.append(f"{problem.path}: … and {counts[same] - SHOWN} more rows: {problem.message}")
    if report.missing:
        lines += [str(problem) for problem in (*report.missing, *report.checkpoints)]
        lines.append(f"paths are relative to the working folder, {Path.cwd()}")
    # A check needs no model, so one that is not there is no part of what was found.
    notes = [*report.notes, *(() if report.missing else report.checkpoints)]
    sys.stderr.write("".join(f"note: {note}\n" for note in notes))
    looked = f"{_counted(report.rows, 'row')} of {_counted(report.sets, 'set')} read"
    if report.skipped:
        looked += f", {_counted(report.skipped, 'row')} skipped: bad images or videos, or prompts too long"
    if report.exit_code:
        wrong = _counted(len(report.recipe), "problem")
        models = f", {_counted(len(report.checkpoints), 'model')}" if report.checkpoints else ""
        absent = f", {_counted(len(report.missing), 'file')} of data{models} missing" if report.missing else ""
        lines.append(f"{wrong} in the recipe, {len(report.data)} in data and rewards{absent}; {looked}")
    elif report.command in ("sft", "rm"):
        lines.append(f"the recipe of `morl {report.command}` is well: {looked}{report.portion}")
    else:
        held = f"{_counted(report.golds, 'gold')} and {_counted(report.examples, 'example')} of rewards hold"
        lines.append(f"all is well: {looked}, {held}")
    sys.stdout.write("\n".join(lines) + "\n")
    return report.exit_code


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


COMMAND = Command(
    "check", "check a recipe, its data, rewards and gold answers; loads no model", (recipe_arguments, _arguments), _run
)
