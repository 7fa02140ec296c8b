"""The prompts of one objective: its rows, cut to `skip` and `take`, each rendered when it is asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from morl.data.sources import Rows, folder_of
from morl.data.templates import PromptTemplate
from morl.errors import BadMediaError, DataError, MorlError
from morl.files import local_path
from morl.registry import SOURCES, check_options
from morl.types import Prompt

if TYPE_CHECKING:
    from morl.recipe import DataSpec

logger = logging.getLogger(__name__)


class Asked(Protocol):
    """Rows and what is made of them: an objective, or a data set of supervised training."""

    @property
    def data(self) -> DataSpec: ...
    @property
    def prompt(self) -> str | list[Any] | dict[str, str]: ...
    @property
    def gold(self) -> Any: ...


class PromptSet:
    """A sequence of prompts; prompt i has the id `<objective>/<row of the source>`."""

    def __init__(self, spec: Asked, objective: str) -> None:
        """Opens the data.

        Raises: DataError when it cannot be opened or has no rows.
        """
        self._objective = objective
        self._rows = load_rows(spec.data)
        media = spec.data.media
        downloads = local_path(media.downloads) if media.downloads else None
        self.folder = folder_of(self._rows)
        """What paths in the rows are relative to; None where the source has no place."""
        self._template = PromptTemplate(spec.prompt, spec.gold, self.folder, media.limits, downloads)
        self._skips_bad_media = spec.data.bad_media == "skip"
        self._skipped: set[int] = set()
        self._fits: Callable[[Prompt], bool] | None = None
        self._first = spec.data.skip
        rest = len(self._rows) - spec.data.skip
        if rest <= 0:
            raise DataError(f"objective '{objective}': skip {spec.data.skip} leaves none of {len(self._rows)} rows")
        self._length = rest if spec.data.take is None else min(rest, spec.data.take)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Prompt]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Prompt:
        """Prompt 0 <= index < len. Raises: DataError naming the row's place when it cannot be made."""
        row = self._row(index)
        return self._template.render(
            self._rows[row], id=f"{self._objective}/{row}", objective=self._objective, where=self._rows.where(row)
        )

    def pass_over_unless(self, fits: Callable[[Prompt], bool]) -> None:
        """From now on `usable` passes over prompts that do not fit."""
        self._fits = fits

    def usable(self, index: int) -> Prompt | None:
        """Prompt 0 <= index < len; None when it is to be skipped: its images are bad, or it does not fit."""
        prompt = self._sound(index)
        if prompt is None or self._fits is None or self._fits(prompt):
            return prompt
        if index not in self._skipped:
            logger.warning("skipped: %s: the prompt is too long", self.where(index))
        self._skipped.add(index)
        return None

    def _sound(self, index: int) -> Prompt | None:
        """The prompt; None when its images are bad and the recipe says to skip such rows.

        To know it they are decoded, which the recipe's `bad_media: fail` leaves to whoever looks at them.
        Raises: DataError naming the row's place when it cannot be made.
        """
        if not self._skips_bad_media:
            return self[index]
        try:
            prompt = self[index]
            for item in prompt.media:
                item.check()
        except BadMediaError as error:
            if index not in self._skipped:
                logger.warning("skipped: %s", error)
            self._skipped.add(index)
            return None
        return prompt

    @property
    def skipped(self) -> int:
        """Rows that were left out so far."""
        return len(self._skipped)

    def where(self, index: int) -> str:
        """The row's place: `data/math.jsonl:17`."""
        return self._rows.where(self._row(index))

    def where_of(self, prompt: Prompt) -> str:
        """The place of the row that one of these prompts is made of."""
        return self._rows.where(int(prompt.id.rpartition("/")[2]))

    def _row(self, index: int) -> int:
        if not 0 <= index < self._length:
            raise IndexError(f"objective '{self._objective}' has {self._length} prompts, and none is {index}")
        return self._first + index


def load_rows(spec: DataSpec) -> Rows:
    """All rows of a data source, before `skip` and `take`. Raises: DataError, UsageError, MissingExtraError."""
    source = SOURCES.load(spec.source)
    rows: Rows = source(**check_options(source, spec.options))
    return rows


def load_prompts(spec: Asked, objective: str, *key: str) -> PromptSet:
    """The prompts of an objective, whose data stand at `key` of the recipe.

    Raises: DataError when its data cannot be opened or has no rows; errors bear the key.
    """
    try:
        return PromptSet(spec, objective)
    except MorlError as error:
        error.key = key
        raise


__all__ = ["PromptSet", "load_prompts", "load_rows"]
