"""The result of `morl check`."""

from __future__ import annotations

from dataclasses import dataclass, field

from morl.errors import Problem


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
    """Rows that the recipe says to skip: for their bad images, or their length."""

    @property
    def exit_code(self) -> int:
        """2 when the recipe is wrong or names data that are not there, 1 when data or rewards are wrong, else 0."""
        return 2 if self.recipe or self.missing else 1 if self.data else 0
