"""Where rows come from, and how their images and videos are shown."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from morl.media import Limits
from morl.recipe.rules import Rule, refuse
from morl.recipe.schema.section import ChoiceSpec, Float, Int, Spec, Text
from morl.registry import SOURCES


class MediaSpec(Spec):
    """How large images and videos are when the model sees them; what is not given, the checkpoint's processor has."""

    min_pixels: Annotated[Int, Field(ge=1)] | None = None
    """Of an image or of each frame of a video; smaller ones are enlarged."""
    max_pixels: Annotated[Int, Field(ge=1)] | None = None
    """Of an image or of each frame of a video; larger ones are made smaller."""
    max_tokens: Annotated[Int, Field(ge=1)] | None = None
    """Of an image or of a whole video; larger ones are made smaller."""
    fps: Annotated[Float, Field(gt=0)] = 2.0
    """Frames of a second of video that are shown; frames that come without their own rate were taken at this one."""
    max_frames: Annotated[Int, Field(ge=1)] = 256
    """Most frames of a video; of a longer one fewer a second are shown."""
    downloads: Text | None = None
    """Folder where images and videos that are named by an http or https URL are kept, each fetched once; all nodes
    must see it. URLs are refused when it is not given."""

    @model_validator(mode="after")
    def _check_pixels(self) -> Self:
        if self.min_pixels is not None and self.max_pixels is not None and self.min_pixels > self.max_pixels:
            message = f"{self.min_pixels} is more than max_pixels={self.max_pixels}"
            refuse("MediaSpec", [Rule(("min_pixels",), message, [("max_pixels",)])])
        return self

    @property
    def limits(self) -> Limits:
        """The same, for the images of a row."""
        return Limits(**self.model_dump(exclude={"downloads"}))


class DataSpec(ChoiceSpec):
    """Rows from a data source; further keys are the source's own options."""

    registry = SOURCES
    key = "source"

    source: Text
    """Name of the data source: jsonl, json, csv, parquet, huggingface, reasoning_gym, or a plugin's."""
    skip: Annotated[Int, Field(ge=0)] = 0
    """Rows to leave out at the beginning."""
    take: Annotated[Int, Field(ge=1)] | None = None
    """Rows to use at most after those; all when it is not given."""
    media: MediaSpec = MediaSpec()
    """How large the rows' images and videos are when the model sees them."""
    bad_media: Literal["fail", "skip"] = "fail"
    """What an image or video that is missing, broken or of no use does: stop the run, or have its row left out and
    counted. To skip rows, each is decoded when it is drawn, and once more when it is used."""
