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
"""Most problems with the same text that are printed."""


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=positive_int, metavar="N", help="check only the first N rows of each data set")


def _run(options: argparse.Namespace) -> int:
    from morl.preflight import check

    return print_report(check(options.recipe, options.overrides, rows=options.rows))


def print_report(report: CheckReport) -> int:
    """Print the problems, those with the same text shortened, and a summary; returns the exit code."""
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
    # A check needs no model, so a missing one is a note, not a problem.
    notes = [*report.notes, *(() if report.missing else report.checkpoints)]
    sys.stderr.write("".join(f"note: {note}\n" for note in notes))
    coverage = f"{_counted(report.rows, 'row')} of {_counted(report.sets, 'set')} read"
    if report.skipped:
        coverage += f", {_counted(report.skipped, 'row')} skipped: bad images or videos, or prompts too long"
    if report.exit_code:
        problems = _counted(len(report.recipe), "problem")
        models = f", {_counted(len(report.checkpoints), 'model')}" if report.checkpoints else ""
        missing = f", {_counted(len(report.missing), 'file')} of data{models} missing" if report.missing else ""
        lines.append(f"{problems} in the recipe, {len(report.data)} in data and rewards{missing}; {coverage}")
    elif report.command in ("sft", "rm"):
        lines.append(f"the recipe of `morl {report.command}` is fine: {coverage}{report.portion}")
    else:
        held = f"{_counted(report.golds, 'gold')} and {_counted(report.examples, 'example')} of rewards hold"
        lines.append(f"all is well: {coverage}, {held}")
    sys.stdout.write("\n".join(lines) + "\n")
    return report.exit_code


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


COMMAND = Command(
    "check", "check a recipe, its data, rewards and gold answers; loads no model", (recipe_arguments, _arguments), _run
)
