"""Console tables of evaluation scores, and of their change over a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import rich
from rich.console import Console
from rich.table import Table
from rich.text import Text

from morl.evaluation.held_out import compare
from morl.recipe import Recipe
from morl.track import read_rows

if TYPE_CHECKING:
    from morl.run import RunFolder

Row = Mapping[str, Any]


def print_outcome(recipe: Recipe, folder: RunFolder, *, done: bool) -> None:
    """Print the run's evaluations before the first step and after the last, and how it ended."""
    console = _console()
    rows = list(read_rows(folder.eval))
    steps = sorted({row["step"] for row in rows})
    if len(steps) > 1:
        first, last = ([row for row in rows if row["step"] == step] for step in (steps[0], steps[-1]))
        print_comparison(first, last, names=(f"step {steps[0]}", f"step {steps[-1]}"))
    if done:
        console.print(f"done: {recipe.run.steps} steps in {folder.path}", markup=False, highlight=False, soft_wrap=True)
    else:
        console.print(
            f"interrupted, state saved in {folder.path}; continue with --resume",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )


def print_comparison(before: Sequence[Row], after: Sequence[Row], *, names: tuple[str, str]) -> None:
    """Print two evaluations side by side: mean reward of each set with its 95 % interval."""
    table = Table(title="held-out reward, mean and 95 % interval")
    for column, justify in (("set", "left"), ("prompts", "right"), *((name, "right") for name in names)):
        table.add_column(Text(column), justify=justify)  # type: ignore[arg-type]
    table.add_column("paired difference", justify="right")
    table.add_column("length, tokens", justify="right")
    for row in compare(before, after):
        low, high = row["difference"][1:]
        style = "green" if low > 0 else "red" if high < 0 else "default"
        lengths = f"{row['length'][0]:.1f} → {row['length'][1]:.1f}"
        change = Text(_interval(row["difference"], "+"), style=style)
        before_after = _interval(row["before"]), _interval(row["after"])
        table.add_row(Text(row["set"]), str(row["n"]), *before_after, change, lengths)
    _console().print(table)


def print_evaluation(rows: Sequence[Row], *, unit: str = "tokens") -> None:
    """Print one evaluation: reward and pass rate of each set with 95 % intervals; `unit` is that of lengths."""
    table = Table(title="mean and 95 % interval")
    for column in ("set", "prompts", "reward", "pass rate", "no score", f"length, {unit}"):
        table.add_column(column, justify="left" if column == "set" else "right")
    for row in rows:
        cells = [
            _interval((row[name], row[f"{name}_low"], row[f"{name}_high"])) if name in row else "–"
            for name in ("reward", "pass_rate")
        ]
        table.add_row(Text(row["set"]), str(row["n"]), *cells, f"{row['no_score_rate']:.1%}", f"{row['length']:.1f}")
    _console().print(table)


def _console() -> Console:
    """The shared console; where the output is no terminal, one wide enough for a table."""
    shared = rich.get_console()
    return shared if shared.is_terminal else Console(width=120)


def _interval(values: Sequence[float], sign: str = "") -> str:
    mean, low, high = values
    return f"{mean:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]"
