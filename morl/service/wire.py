"""What travels: the JSON of requests and answers, which is also the schema at /openapi.json."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from morl.rewards import RewardInput
from morl.types import FinishReason, Sample, Status


class Wire(BaseModel):
    """A JSON object without unknown keys; docstrings of fields are their descriptions."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)


class Image(Wire):
    """An image's size in pixels; the image itself does not travel, nor does a path on the server."""

    width: Annotated[int, Field(gt=0, le=10**7)]
    height: Annotated[int, Field(gt=0, le=10**7)]


class Tokens(Wire):
    """The answer as the policy wrote it, for rewards that read the sample."""

    token_ids: list[int] = []
    """The answer's tokens."""
    loss_mask: list[Annotated[int, Field(ge=0, le=1)]] | None = None
    """1 on tokens that the policy wrote, 0 on others; all 1 when it is not given."""
    index: Annotated[int, Field(ge=0)] = 0
    """Which of its prompt's samples it is."""
    policy_version: Annotated[int, Field(ge=0)] = 0
    """Optimiser steps behind the weights that wrote it."""
    finish_reason: FinishReason = "stop"
    """Why it ended."""

    @model_validator(mode="after")
    def _check_lengths(self) -> Tokens:
        if self.loss_mask is not None and len(self.loss_mask) != len(self.token_ids):
            raise ValueError("loss_mask and token_ids differ in length")
        return self


class Item(Wire):
    """One answer to be scored."""

    objective: str
    """Name of the objective, which chooses the rewards."""
    response: str
    """The answer."""
    gold: Any = None
    """The reference answer, as the objective's rewards want it."""
    messages: list[dict[str, Any]] | None = None
    """The prompt: `{"role", "content"}` each."""
    meta: dict[str, Any] | None = None
    """The row of data, for rewards that read other columns."""
    media: list[Image] = []
    """Sizes of the prompt's images, in order."""
    sample: Tokens | None = None
    """Only for rewards that read tokens or the reason of the end; `GET /rewards` says which do."""

    def reward_input(self) -> RewardInput:
        """What rewards are given, as in a run."""
        media = tuple(image.model_dump() for image in self.media)
        messages = tuple(self.messages or ())
        return RewardInput(self.response, self.gold, messages, media, self.meta or {}, self._sample())

    def _sample(self) -> Sample | None:
        told = self.sample
        if told is None:
            return None
        length = len(told.token_ids)
        mask = tuple(told.loss_mask) if told.loss_mask is not None else (1,) * length
        return Sample(
            self.objective,
            told.index,
            tuple(told.token_ids),
            mask,
            (0.0,) * length,
            told.policy_version,
            told.finish_reason,
            self.response,
        )


class ScoreRequest(Wire):
    """Answers to be scored together."""

    items: list[Item]
    """In any mixture of objectives."""


class TermResult(Wire):
    """What one reward said."""

    value: float | None
    """The reward's own value, before scale and weight; null is "no score"."""
    status: Status
    """Why there is this value, or none."""
    detail: str
    """One line: what was read out of the answer, or what went wrong."""
    seconds: float
    """Time the reward took."""


class ScoreResult(Wire):
    """The score of one answer."""

    value: Annotated[float, Field(ge=0, le=1)] | None
    """The mixture of the terms; null is "no score", which is not 0."""
    terms: dict[str, TermResult]
    """By name."""


class ScoreResponse(Wire):
    """The scores, in the order of the request's items."""

    scores: list[ScoreResult]


class TermInfo(Wire):
    """One reward of an objective."""

    use: str
    """Name of the reward."""
    doc: str
    """What it does, in one line."""
    options: dict[str, Any]
    """With their defaults."""
    weight: float
    scale: tuple[float, float] | None
    gate: dict[str, Any] | None
    on_error: Literal["mask", "zero", "fail"]
    deadline_s: float


class ObjectiveInfo(Wire):
    """How an objective scores."""

    combine: Literal["sum", "product"]
    reads: list[str]
    """Fields of an item that its rewards read."""
    terms: dict[str, TermInfo]
    """By name."""


class RewardsResponse(Wire):
    """What the service can score, and how much at once."""

    objectives: dict[str, ObjectiveInfo]
    max_items: int
    max_request_bytes: int
    timeout_s: float


class Health(Wire):
    """Whether it can be given work."""

    status: Literal["ok"] = "ok"


class Error(Wire):
    """Why there is no answer."""

    code: str
    """For programs."""
    message: str
    """For people."""
    path: str | None = None
    """Of the field that is wrong, as `items.3.response`."""


class ErrorResponse(Wire):
    """The one form that all errors have."""

    error: Error
