"""The errors that morl raises on purpose.

Each also inherits the standard error that it refines, so that code which does not know
morl can catch it. The command line maps `UsageError` to exit code 2 and every other
`MorlError` to exit code 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class MorlError(Exception):
    """Base of every error that morl raises on purpose; its text is meant for the user."""

    key: tuple[str, ...] = ()
    """The key of the recipe that the error is about, if any; the command line adds its line."""


class UsageError(MorlError, ValueError):
    """The command, the recipe or an option is wrong; nothing was started."""


class DataError(MorlError, ValueError):
    """A row, a gold answer or a data file breaks a rule."""


class AbsentDataError(DataError, UsageError):
    """The recipe names data that are not on this machine."""


class BadMediaError(DataError):
    """An image or a video of a row is missing, broken, or of a size that the model cannot take."""


class RunError(MorlError, RuntimeError):
    """The work failed: an actor stays dead, too few samples have a score, no checkpoint."""


class StaleWeightsError(RunError):
    """An engine answered with another policy version than the learner's."""


class CheckpointError(RunError):
    """A checkpoint is torn, missing, or does not fit the run."""


class MissingExtraError(MorlError, ImportError):
    """An optional package is needed; the text names the `pip install` that adds it."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(f"{purpose} needs the package '{package}': pip install 'morl-rl[{extra}]'")
        self._arguments = (package, extra, purpose)

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str, str]]:
        # By default an exception is unpickled from its message, which is not this constructor's argument.
        return type(self), self._arguments


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem and its place.

    `where` is `file:line`, the file alone, or "command line"; `path` is the dotted key path or
    ""; `message` is the broken rule and the remedy.
    """

    where: str
    path: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.where, self.path, self.message) if part)


class RecipeError(UsageError):
    """All problems of a recipe."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[RecipeError], tuple[Sequence[Problem]]]:
        return type(self), (self.problems,)
