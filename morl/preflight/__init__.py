"""Checks before a run: problems of a recipe and its data, files missing from this machine, resources the run needs."""

from __future__ import annotations

from morl.preflight.check_report import CheckReport
from morl.preflight.recipe_check import check
from morl.preflight.run_plan import Item, Machines, plan

__all__ = [
    "CheckReport",
    "Item",
    "Machines",
    "check",
    "plan",
]
