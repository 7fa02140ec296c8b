"""The JSON of requests and responses, and the source of the schema at /openapi.json."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from morl.rewards import RewardInput
from morl.types import FinishReason, Sample, Status


class Wire(BaseModel):
    """A JSON object without unknown keys; field docstrings become descriptions in the schema."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True, frozen=True)


class Image(Wire):
    """An image's size in pixels. Neither the image nor a path on the server is sent."""

    width: Annotated[int, Field(gt=0, le=10**7)]
    height: Annotated[int, Field(gt=0, le=10**7)]


class Tokens(Wire):
    """The tokens of the response, for rewards that read the sample."""

    token_ids: list[int] = []
    """The response's token ids."""
    loss_mask: list[Annotated[int, Field(ge=0, le=1)]] | None = None
    """1 on tokens that the policy wrote, 0 on others; all 1 if null."""
    index: Annotated[int, Field(ge=0)] = 0
    """Index among the prompt's samples."""
    policy_version: Annotated[int, Field(ge=0)] = 0
    """Optimiser steps of the weights that wrote it."""
    finish_reason: FinishReason = "stop"
    """Why generation ended."""

    @model_validator(mode="after")
    def _check_lengths(self) -> Tokens:
        if self.loss_mask is not None and len(self.loss_mask) != len(self.token_ids):
            raise ValueError("loss_mask and token_ids differ in length")
        return self


class Item(Wire):
    """One response to score."""

    objective: str
    """Name of the objective, which determines the rewards."""
    response: str
    """The response, thinking included."""
    gold: Any = None
    """The reference answer, in the form that the objective's rewards expect."""
    messages: list[dict[str, Any]] | None = None
    """The prompt: messages `{"role", "content"}`."""
    meta: dict[str, Any] | None = None
    """The row of data, for rewards that read other columns."""
    media: list[Image] = []
    """Sizes of the prompt's images, in order."""
    sample: Tokens | None = None
    """Only for rewards that read tokens or the finish reason; `GET /rewards` lists what each reads."""

    def reward_input(self) -> RewardInput:
        """The input of the rewards, as in a run."""
        media = tuple(image.model_dump() for image in self.media)
        messages = tuple(self.messages or ())
        return RewardInput(self.response, self.gold, messages, media, self.meta or {}, self._sample())

    def _sample(self) -> Sample | None:
        tokens = self.sample
        if tokens is None:
            return None
        length = len(tokens.token_ids)
        mask = tuple(tokens.loss_mask) if tokens.loss_mask is not None else (1,) * length
        return Sample(
            self.objective,
            tokens.index,
            tuple(tokens.token_ids),
            mask,
            (0.0,) * length,
            tokens.policy_version,
            tokens.finish_reason,
            self.response,
        )


class ScoreRequest(Wire):
    """Responses to score together."""

    items: list[Item]
    """They may belong to different objectives."""


class TermResult(Wire):
    """The result of one reward."""

    value: float | None
    """The reward's value, before scale and weight; null is "no score"."""
    status: Status
    """Why there is this value, or none."""
    detail: str
    """One line: the extracted answer, or the error."""
    seconds: float
    """Time in the reward."""


class ScoreResult(Wire):
    """The score of one response."""

    value: Annotated[float, Field(ge=0, le=1)] | None
    """The combined value of the terms; null is "no score", which is not 0."""
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
    """Its documentation, in one line."""
    options: dict[str, Any]
    """With defaults filled in."""
    weight: float
    scale: tuple[float, float] | None
    gate: dict[str, Any] | None
    on_error: Literal["mask", "zero", "fail"]
    deadline_s: float


class ObjectiveInfo(Wire):
    """The rewards of an objective."""

    combine: Literal["sum", "product"]
    reads: list[str]
    """Fields of an item that its rewards read."""
    terms: dict[str, TermInfo]
    """By name."""


class RewardsResponse(Wire):
    """The objectives and limits of the service."""

    objectives: dict[str, ObjectiveInfo]
    max_items: int
    max_request_bytes: int
    timeout_s: float


class Health(Wire):
    """The service can score."""

    status: Literal["ok"] = "ok"


class Error(Wire):
    """An error."""

    code: str
    """For programs."""
    message: str
    """For people."""
    path: str | None = None
    """Path of the invalid field, such as `items.3.response`."""


class ErrorResponse(Wire):
    """The form of all error responses."""

    error: Error
