"""`morl plan`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from morl.cli.command import DONE, FAILED, Command, recipe_arguments
from morl.errors import UsageError

if TYPE_CHECKING:
    from morl.preflight import Item


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--gpus", type=int, metavar="N", help="GPUs per node")
    parser.add_argument("--nodes", type=int, default=1, metavar="M", help="nodes (default: 1)")
    parser.add_argument("--gpu-memory", type=float, default=80.0, metavar="GB", help="GiB per GPU (default: 80)")


def _run(options: argparse.Namespace) -> int:
    from morl.recipe import load_recipe

    if (options.gpus is not None and options.gpus < 1) or options.nodes < 1 or options.gpu_memory <= 0:
        raise UsageError("morl plan: --gpus, --nodes and --gpu-memory are above 0")
    recipe = load_recipe(options.recipe, options.overrides)
    from morl.preflight import Machines, plan

    machines = None if options.gpus is None else Machines(options.gpus, options.nodes, options.gpu_memory)
    return DONE if print_plan(plan(recipe, machines)) else FAILED


def print_plan(items: list[Item]) -> bool:
    """Print the plan; returns whether everything fits."""
    import rich
    from rich.table import Table
    from rich.text import Text

    table = Table(show_header=False)
    section = ""
    for item in items:
        if section and item.section != section:
            table.add_section()
        table.add_row(
            Text("" if item.section == section else item.section),
            Text(item.what),
            Text(item.value, style="default" if item.fits else "red"),
        )
        section = item.section
    rich.get_console().print(table)
    return all(item.fits for item in items)


COMMAND = Command(
    "plan",
    "batch arithmetic, placement, memory and time of a recipe; loads no weights",
    (recipe_arguments, _arguments),
    _run,
)
