"""The prompts of one objective: its rows after `skip` and `take`, each rendered on access."""

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
    """Data with a prompt and a gold: an objective, or a data set of supervised training."""

    @property
    def data(self) -> DataSpec: ...
    @property
    def prompt(self) -> str | list[Any] | dict[str, str]: ...
    @property
    def gold(self) -> Any: ...


class PromptSet:
    """A sequence of prompts; each has the id `<objective>/<row of the source>`."""

    def __init__(self, spec: Asked, objective: str) -> None:
        """Open the data.

        Raises: DataError when it cannot be opened or has no rows.
        """
        self._objective = objective
        self._rows = load_rows(spec.data)
        media = spec.data.media
        downloads = local_path(media.downloads) if media.downloads else None
        self.folder = folder_of(self._rows)
        """The folder that paths in the rows are relative to; None when the source has none."""
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
        """Prompt 0 <= index < len. Raises: DataError naming the row when it cannot become a prompt."""
        row = self._row(index)
        return self._template.render(
            self._rows[row], id=f"{self._objective}/{row}", objective=self._objective, where=self._rows.where(row)
        )

    def skip_unless(self, fits: Callable[[Prompt], bool]) -> None:
        """Make `usable` return None for prompts that do not fit."""
        self._fits = fits

    def usable(self, index: int) -> Prompt | None:
        """Prompt 0 <= index < len; None to skip it: its images are bad, or it does not fit."""
        prompt = self._with_good_media(index)
        if prompt is None or self._fits is None or self._fits(prompt):
            return prompt
        if index not in self._skipped:
            logger.warning("skipped: %s: the prompt is too long", self.where(index))
        self._skipped.add(index)
        return None

    def _with_good_media(self, index: int) -> Prompt | None:
        """The prompt; None when its images are bad and the recipe skips such rows.

        Checking decodes the images; with `bad_media: fail` they are decoded only where they are used.
        Raises: DataError naming the row when it cannot become a prompt.
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
        """Number of rows skipped so far."""
        return len(self._skipped)

    def where(self, index: int) -> str:
        """The row's location, such as `data/math.jsonl:17`."""
        return self._rows.where(self._row(index))

    def where_of(self, prompt: Prompt) -> str:
        """The row of one of these prompts, as `data/math.jsonl:17`."""
        return self._rows.where(int(prompt.id.rpartition("/")[2]))

    def _row(self, index: int) -> int:
        if not 0 <= index < self._length:
            raise IndexError(f"objective '{self._objective}' has {self._length} prompts, none of index {index}")
        return self._first + index


def load_rows(spec: DataSpec) -> Rows:
    """All rows of a data source, before `skip` and `take`. Raises: DataError, UsageError, MissingExtraError."""
    source = SOURCES.load(spec.source)
    rows: Rows = source(**check_options(source, spec.options))
    return rows


def load_prompts(spec: Asked, objective: str, *key: str) -> PromptSet:
    """The prompts of an objective, whose data are at `key` of the recipe.

    Raises: DataError, with the key, when the data cannot be opened or have no rows.
    """
    try:
        return PromptSet(spec, objective)
    except MorlError as error:
        error.key = key
        raise


__all__ = ["PromptSet", "load_prompts", "load_rows"]
