"""Before a run: what is wrong with a recipe and its data, what is not on this machine, and what it will need."""

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
