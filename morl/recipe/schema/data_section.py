"""Where rows come from, and how their images and videos are resized."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from morl.media import Limits
from morl.recipe.rules import Rule, refuse
from morl.recipe.schema.section import ChoiceSpec, Float, Int, Spec, Text
from morl.registry import SOURCES


class MediaSpec(Spec):
    """The size of images and videos as the model receives them. Default of each limit: the checkpoint's processor's."""

    min_pixels: Annotated[Int, Field(ge=1)] | None = None
    """Fewest pixels of an image or a video frame; smaller ones are enlarged."""
    max_pixels: Annotated[Int, Field(ge=1)] | None = None
    """Most pixels of an image or a video frame; larger ones are shrunk."""
    max_tokens: Annotated[Int, Field(ge=1)] | None = None
    """Most tokens of an image or a whole video; larger ones are shrunk."""
    fps: Annotated[Float, Field(gt=0)] = 2.0
    """Frames per second that are sampled from a video; also the assumed rate of frames that come without one."""
    max_frames: Annotated[Int, Field(ge=1)] = 256
    """Most frames of a video; a longer one is sampled at a lower rate."""
    downloads: Text | None = None
    """Folder that keeps images and videos named by an http or https URL, each fetched once; all nodes must see it.
    Without it, URLs are refused."""

    @model_validator(mode="after")
    def _check_pixels(self) -> Self:
        if self.min_pixels is not None and self.max_pixels is not None and self.min_pixels > self.max_pixels:
            message = f"{self.min_pixels} is more than max_pixels={self.max_pixels}"
            refuse("MediaSpec", [Rule(("min_pixels",), message, [("max_pixels",)])])
        return self

    @property
    def limits(self) -> Limits:
        """The size limits, without `downloads`."""
        return Limits(**self.model_dump(exclude={"downloads"}))


class DataSpec(ChoiceSpec):
    """Rows from a data source; further keys are options of the source."""

    registry = SOURCES
    key = "source"

    source: Text
    """Name of the data source: jsonl, json, csv, parquet, huggingface, reasoning_gym, or a plugin's."""
    skip: Annotated[Int, Field(ge=0)] = 0
    """Rows to skip at the beginning."""
    take: Annotated[Int, Field(ge=1)] | None = None
    """Most rows to use after the skipped ones. Default: all."""
    media: MediaSpec = MediaSpec()
    """The size of the rows' images and videos as the model receives them."""
    bad_media: Literal["fail", "skip"] = "fail"
    """What happens when an image or video is missing, broken or unusable: `fail` stops the run, `skip` leaves its row
    out and counts it. With `skip`, media are decoded twice: when the row is drawn and when it is used."""
