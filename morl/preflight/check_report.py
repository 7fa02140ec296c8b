"""The result of `morl check`."""

from __future__ import annotations

from dataclasses import dataclass, field

from morl.errors import Problem


@dataclass(slots=True)
class CheckReport:
    """The problems, and how much was checked."""

    recipe: tuple[Problem, ...] = ()
    """Problems of the recipe itself."""
    data: list[Problem] = field(default_factory=list)
    """Problems of rows, golds and the rewards' examples."""
    missing: list[Problem] = field(default_factory=list)
    """Data that are not on this machine."""
    checkpoints: list[Problem] = field(default_factory=list)
    """Models that are not on this machine; a check does not need them."""
    sets: int = 0
    """Objectives and evaluation sets whose rows were checked."""
    rows: int = 0
    """Rows that were rendered as prompts."""
    golds: int = 0
    """Golds that were written as a response, which must score 1."""
    examples: int = 0
    """Examples of rewards that were run."""
    notes: list[str] = field(default_factory=list)
    """What could not be checked, without being an error."""
    command: str = "train"
    """The command that takes the recipe. For `morl sft` and `morl rm`, models and golds are not checked."""
    portion: str = ""
    """Printed after the number of rows when only some of them were read."""
    skipped: int = 0
    """Rows that the recipe skips, for bad media or for their length."""

    @property
    def exit_code(self) -> int:
        """2 when the recipe is wrong or its data are missing, 1 when data or rewards are wrong, else 0."""
        return 2 if self.recipe or self.missing else 1 if self.data else 0
