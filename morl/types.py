"""The values that flow through a run, one type per stage.

    Prompt -> Sample -> Score -> Group -> Batch

Shape suffixes: `P` prompts, `G` samples of a group, `T` tokens, `B` rows, `N` predicted
tokens. All types are frozen; invariants are checked on construction.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch

FinishReason = Literal["stop", "length", "abort"]
Status = Literal["ok", "no_answer", "bad_gold", "timeout", "error", "gated"]


@dataclass(frozen=True, slots=True)
class Prompt:
    """One question of one objective.

    >>> Prompt("math/0", "math", ({"role": "user", "content": "2+2?"},), gold="4").objective
    'math'
    """

    id: str
    """`<objective>/<row>`, with the number of the data row; the same in every epoch."""
    objective: str
    """Name of the objective, which selects the rewards."""
    messages: tuple[Mapping[str, Any], ...]
    """Chat messages `{"role", "content"}`; content is a string or a list of typed parts."""
    media: tuple[Any, ...] = ()
    """Images and videos in the order of the messages."""
    gold: Any = None
    """The gold answer in the form that the objective's verifier expects; None if it expects none."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """The data row, for rewards that read other columns."""

    def __post_init__(self) -> None:
        if not self.messages:
            raise ValueError(f"prompt {self.id!r} has no messages")


@dataclass(frozen=True, slots=True)
class Sample:
    """One response to one prompt, token-exact.

    >>> Sample("math/0", 0, (52, 2), (1, 1), (-0.1, -0.2), 3, "stop", "4").length
    2
    """

    prompt_id: str
    index: int
    """Index within the prompt's samples: 0 <= index < samples_per_prompt."""
    token_ids_T: tuple[int, ...]
    """Tokens of the response, including the end-of-turn token if the policy wrote one."""
    loss_mask_T: tuple[int, ...]
    """1 on tokens the policy wrote, 0 on tokens an environment or a tool wrote."""
    logprobs_T: tuple[float, ...]
    """Natural log-probability of each token under the distribution it was sampled from."""
    policy_version: int
    """Number of optimiser steps of the weights that wrote it."""
    finish_reason: FinishReason
    text: str
    """The decoded response without special tokens, preceded by `<think>` if the prompt opened the thinking."""

    def __post_init__(self) -> None:
        lengths = {len(self.token_ids_T), len(self.loss_mask_T), len(self.logprobs_T)}
        if len(lengths) != 1:
            raise ValueError(
                f"sample {self.prompt_id}#{self.index}: tokens, mask and log-probs differ in length: {lengths}"
            )

    @property
    def length(self) -> int:
        """Tokens that the policy wrote."""
        return sum(self.loss_mask_T)


@dataclass(frozen=True, slots=True)
class TermScore:
    """The score of one sample by one reward term."""

    value: float | None
    """The value of the reward function, before scale and weight; None is "no score"."""
    status: Status
    detail: str = ""
    """One line: what was extracted, or why there is no score."""
    seconds: float = 0.0
    """Time the reward function took."""
    entered: float | None = None
    """The value that entered the mixture, in [0, 1], after scale and gate; None before mixing, or if none did."""
    weight: float = 0.0
    """Its weight in the mixture; 0 before mixing."""

    def __post_init__(self) -> None:
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"a term's value must be finite or None, not {self.value!r}")

    def as_json(self, *fields: str) -> dict[str, Any]:
        """The named fields as plain JSON values; by default those of saved samples and the reward service."""
        return {name: getattr(self, name) for name in fields or ("value", "status", "detail", "seconds")}


@dataclass(frozen=True, slots=True)
class Score:
    """The score of one sample by all rewards of its objective."""

    value: float | None
    """The mixed reward in [0, 1]; None is "no score" and never counts as 0."""
    terms: Mapping[str, TermScore] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.value is not None and not 0.0 <= self.value <= 1.0:
            raise ValueError(f"a score lies in [0, 1] or is None, not {self.value!r}")

    def as_json(self) -> dict[str, Any]:
        """The score in plain JSON values, as in saved samples and the reward service."""
        return {"value": self.value, "terms": {name: term.as_json() for name, term in self.terms.items()}}


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """The images and videos of one prompt, as processed by the model's processor."""

    tensors: Mapping[str, torch.Tensor]
    """Arguments of the model's forward pass by name (`pixel_values`, `image_grid_thw`, …); prompts are concatenated
    along the first axis."""
    positions_3T: torch.Tensor
    """int64; positions of the prompt's tokens in time, height and width (M-RoPE)."""


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """The sampled frames of a video."""

    frames: Any
    """uint8 array (frames, height, width, 3)."""
    fps: float
    """Rate of these frames, per second."""

    @property
    def metadata(self) -> dict[str, Any]:
        """Metadata that makes a processor take all frames, at their times."""
        count = len(self.frames)
        return {
            "fps": self.fps,
            "total_num_frames": count,
            "frames_indices": list(range(count)),
            "duration": count / self.fps,
            "video_backend": "pyav",
        }


@dataclass(frozen=True, slots=True, eq=False)
class Pixels:
    """The unprocessed images and videos of one prompt, for engines that run the model's processor themselves."""

    prompt_ids_T: tuple[int, ...]
    """The prompt with one placeholder per image or video."""
    images: tuple[Any, ...]
    """PIL images, upright and RGB."""
    videos: tuple[Clip, ...]
    options: Mapping[str, Any]
    """Arguments of the processor's call."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """A prompt as the model receives it: chat template applied, media placeholders expanded."""

    token_ids_T: tuple[int, ...]
    features: Features | None = None
    """The prompt's images and videos, processed; None if it has none."""
    pixels: Pixels | None = None
    """The same images and videos, for engines that run the processor themselves."""
    opened: str = ""
    """`<think>` if the chat template ends with it; the text of the response then begins with it too."""


@dataclass(frozen=True, slots=True)
class Group:
    """A prompt with its scored samples: the unit of advantage."""

    prompt: Prompt
    encoded: Encoded
    """The prompt as the engine received it, without pixels, to save memory."""
    samples_G: tuple[Sample, ...]
    scores_G: tuple[Score, ...]

    def __post_init__(self) -> None:
        if len(self.samples_G) != len(self.scores_G):
            raise ValueError(f"group {self.prompt.id!r}: {len(self.samples_G)} samples, {len(self.scores_G)} scores")

    @property
    def values_G(self) -> tuple[float | None, ...]:  # noqa: N802
        """Rewards of the samples, None where there is no score."""
        return tuple(score.value for score in self.scores_G)

    @property
    def has_signal(self) -> bool:
        """Whether two samples have different rewards, so that there is something to learn."""
        scored = {value for value in self.values_G if value is not None}
        return len(scored) > 1


@dataclass(frozen=True, slots=True)
class Batch:
    """Tensors for the learner: concatenated rows of tokens.

    A row is a prompt followed by its responses. A response attends to its row's prompt and
    to itself: segment numbers tell responses apart, and the positions of each continue from the
    prompt's end. `B` rows, `T` tokens in total, `N` tokens in the loss.
    """

    token_ids_T: torch.Tensor
    """int64."""
    positions_AT: torch.Tensor
    """int64; start at 0 in each row, and at the prompt's end in each response. A axes: 1 for text, 3 if a row has
    images (M-RoPE)."""
    segments_T: torch.Tensor
    """int64; 0 on the prompt, 1.. on the responses of a row."""
    row_starts_B1: torch.Tensor
    """int64, B + 1 entries: row b is tokens row_starts[b] to row_starts[b + 1]."""
    sources_N: torch.Tensor
    """int64; index into T of the token whose hidden state predicts target n; ascending by row."""
    targets_N: torch.Tensor
    """int64; the predicted token ids."""
    answers_N: torch.Tensor
    """int64; the response that each target belongs to. Equal responses share tokens but have different numbers."""
    prompts_N: torch.Tensor
    """int64; the step's group that each target belongs to, independent of the layout in rows."""
    advantages_N: torch.Tensor
    """float32."""
    rollout_logprobs_N: torch.Tensor
    """float32; log-probability of each target when it was sampled."""
    weights_N: torch.Tensor
    """float32; weight of each token by the aggregation; the loss is the weighted sum of token losses."""
    reference_logprobs_N: torch.Tensor | None = None
    """float32; log-probability of each target under a frozen reference; None until a rank has computed it."""
    kept_N: torch.Tensor | None = None
    """bool; False where the importance mask drops a target, whose weight is then 0; None until the ranks know."""
    features_B: tuple[Features | None, ...] = ()
    """Features of the rows' images and videos; empty when no row has any."""
    returns_N: torch.Tensor | None = None
    """float32; regression target of the critic's value before each target token; None without a critic."""

    def __post_init__(self) -> None:
        if (
            not len(self.token_ids_T)
            == self.positions_AT.shape[-1]
            == len(self.segments_T)
            == int(self.row_starts_B1[-1])
        ):
            raise ValueError("token_ids, positions and segments must cover the rows exactly")
        per_target = (
            self.sources_N,
            self.targets_N,
            self.answers_N,
            self.prompts_N,
            self.advantages_N,
            self.rollout_logprobs_N,
        )
        if {len(x) for x in per_target} != {len(self.weights_N)}:
            raise ValueError("sources, targets, answers, prompts, advantages, log-probs and weights differ in length")

    @property
    def rows(self) -> int:
        """B."""
        return len(self.row_starts_B1) - 1

    @property
    def lengths_B(self) -> list[int]:  # noqa: N802
        """Tokens of each row."""
        lengths: list[int] = self.row_starts_B1.diff().tolist()
        return lengths
