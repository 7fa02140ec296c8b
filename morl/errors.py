"""The errors that morl raises on purpose.

Each also inherits the standard error it refines, so that code which does not know
morl catches it as usual. The command line maps `UsageError` to exit code 2 and every
other `MorlError` to exit code 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class MorlError(Exception):
    """Base of every error that morl raises on purpose; its text is meant for the user."""

    key: tuple[str, ...] = ()
    """The key of the recipe that it is about, if there is one; the command line tells its line."""


class UsageError(MorlError, ValueError):
    """The command, the recipe or an option is wrong; nothing was started."""


class DataError(MorlError, ValueError):
    """A row, a gold answer or a file of data breaks its rule."""


class AbsentDataError(DataError, UsageError):
    """The recipe names data that are not on this machine."""


class BadMediaError(DataError):
    """An image or a video of a row is missing, broken, or of a size that no model takes."""


class RunError(MorlError, RuntimeError):
    """The work itself failed: an actor that stays dead, too few scores, no checkpoint."""


class StaleWeightsError(RunError):
    """An engine answered with another policy version than the learner's."""


class CheckpointError(RunError):
    """A checkpoint is torn, foreign or missing."""


class MissingExtraError(MorlError, ImportError):
    """An optional package is needed; the text says which `pip install` mends it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package '{package}': pip install 'morl-rl[{extra}]'")
        self._arguments = (package, extra, purpose)

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str, str]]:
        # An exception is unpickled from its message by default, which is not what it is made of.
        return type(self), self._arguments


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, and where.

    `where` is `file:line` (or just the file, or "command line"), `path` the dotted key
    path or "", `message` the rule that is broken and the remedy.
    """

    where: str
    path: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.path, self.message) if part)


class RecipeError(UsageError):
    """Everything that is wrong with a recipe, at once."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[RecipeError], tuple[Sequence[Problem]]]:
        return type(self), (self.problems,)
