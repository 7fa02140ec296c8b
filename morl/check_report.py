"""What `morl check` has found, and how it is told."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from morl.errors import Problem

SHOWN = 5
"""Places that are shown of problems that read the same."""


@dataclass(slots=True)
class CheckReport:
    """What was found, and how much was looked at."""

    recipe: tuple[Problem, ...] = ()
    """What is wrong with the recipe itself."""
    data: list[Problem] = field(default_factory=list)
    """What is wrong with rows, golds and the rewards' examples."""
    missing: list[Problem] = field(default_factory=list)
    """Data that are not on this machine."""
    checkpoints: list[Problem] = field(default_factory=list)
    """Models that are not on this machine, and that a check can do without."""
    sets: int = 0
    """Objectives and evaluation sets whose rows were looked at."""
    rows: int = 0
    """Rows that were made into prompts."""
    golds: int = 0
    """Golds that were written as a response, which has to score 1."""
    examples: int = 0
    """Examples of rewards that were run."""
    notes: list[str] = field(default_factory=list)
    """What could not be looked at, and is no fault."""
    command: str = "train"
    """What takes the recipe; of one of `morl sft` and `morl rm` the models and golds are not looked at."""
    portion: str = ""
    """Told behind the number of rows where not all of them were to be read."""
    skipped: int = 0
    """Rows that the recipe says to skip: for their bad pictures, or their length."""

    @property
    def exit_code(self) -> int:
        """2 when the recipe is wrong or names data that are not there, 1 when data or rewards are wrong, else 0."""
        return 2 if self.recipe or self.missing else 1 if self.data else 0


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
        looked += f", {_counted(report.skipped, 'row')} skipped: bad pictures or videos, or prompts too long"
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
