"""The values that flow through a run, one type a stage.

    Prompt -> Sample -> Score -> Group -> Batch

Shape suffixes: `P` prompts, `G` samples of a group, `T` tokens, `B` rows, `N` predicted
tokens. Everything is frozen; invariants are checked on construction.
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
    """`<objective>/<row>`: the row of data it comes from, the same in every epoch."""
    objective: str
    """Name of the objective: it chooses the rewards."""
    messages: tuple[Mapping[str, Any], ...]
    """Chat messages `{"role", "content"}`; content is a string or a list of typed parts."""
    media: tuple[Any, ...] = ()
    """Images and videos in the order in which the messages name them."""
    gold: Any = None
    """The reference answer as the objective's verifier wants it; None if it wants none."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """The row itself, for rewards that read other columns."""

    def __post_init__(self) -> None:
        if not self.messages:
            raise ValueError(f"prompt {self.id!r} has no messages")


@dataclass(frozen=True, slots=True)
class Sample:
    """One answer to one prompt, token-exact.

    >>> Sample("math/0", 0, (52, 2), (1, 1), (-0.1, -0.2), 3, "stop", "4").length
    2
    """

    prompt_id: str
    index: int
    """Which of the prompt's samples this is: 0 <= index < samples_per_prompt."""
    token_ids_T: tuple[int, ...]
    """The answer's tokens, end-of-turn token included when the policy wrote one."""
    loss_mask_T: tuple[int, ...]
    """1 on tokens the policy wrote, 0 on tokens an environment or a tool wrote."""
    logprobs_T: tuple[float, ...]
    """Natural log-probability of each token under the distribution it was drawn from."""
    policy_version: int
    """Optimiser steps behind the weights that wrote it."""
    finish_reason: FinishReason
    text: str
    """The decoded answer, special tokens left out, after the `<think>` that the prompt may have opened."""

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
    """What one reward term said of one sample."""

    value: float | None
    """The reward function's own value, before scale and weight; None is "no score"."""
    status: Status
    detail: str = ""
    """One readable line: what was extracted, or why there is no score."""
    seconds: float = 0.0
    """Time the reward function took."""
    entered: float | None = None
    """What went into the mixture: in [0, 1], after scale and gate; None before mixing, or if nothing did."""
    weight: float = 0.0
    """Its weight in the mixture; 0 before mixing."""

    def __post_init__(self) -> None:
        if self.value is not None and not math.isfinite(self.value):
            raise ValueError(f"a term's value must be finite or None, not {self.value!r}")

    def as_json(self, *fields: str) -> dict[str, Any]:
        """These fields as plain JSON values; without names, those that saved samples and the reward service show."""
        return {name: getattr(self, name) for name in fields or ("value", "status", "detail", "seconds")}


@dataclass(frozen=True, slots=True)
class Score:
    """What an objective's rewards said of one sample."""

    value: float | None
    """The mixed reward in [0, 1]; None is "no score" and never counts as 0."""
    terms: Mapping[str, TermScore] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.value is not None and not 0.0 <= self.value <= 1.0:
            raise ValueError(f"a score lies in [0, 1] or is None, not {self.value!r}")

    def as_json(self) -> dict[str, Any]:
        """The score as saved samples and the reward service show it, in plain JSON values."""
        return {"value": self.value, "terms": {name: term.as_json() for name, term in self.terms.items()}}


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """The images and videos of one prompt, as the model's own processor made them."""

    tensors: Mapping[str, torch.Tensor]
    """Arguments of the model's forward pass by name (`pixel_values`, `image_grid_thw`, …), the first axis being
    what is laid end to end when prompts run together."""
    positions_3T: torch.Tensor
    """int64; the prompt's tokens in time, height and width (M-RoPE)."""


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """The frames of a video that are shown."""

    frames: Any
    """uint8 array (frames, height, width, 3)."""
    fps: float
    """Frames a second, of these."""

    @property
    def metadata(self) -> dict[str, Any]:
        """What a processor is told, which is to take all frames and to place them in time."""
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
    """The images and videos of one prompt before the model's processor, for engines with a processor of their own."""

    prompt_ids_T: tuple[int, ...]
    """The prompt with one placeholder for each image or video."""
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
    """Of the prompt's images and videos, if it has any, for whoever runs the model on them."""
    pixels: Pixels | None = None
    """Of the same, for engines with a processor of their own."""
    opened: str = ""
    """`<think>` where the chat template ends with it: the answer's text begins with it too."""


@dataclass(frozen=True, slots=True)
class Group:
    """A prompt with its scored samples: the unit of advantage."""

    prompt: Prompt
    encoded: Encoded
    """The prompt as the engine received it, without pixels: these take memory, and nobody needs them any more."""
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
        """Whether two samples got different rewards, so that the group can teach anything."""
        scored = {value for value in self.values_G if value is not None}
        return len(scored) > 1


@dataclass(frozen=True, slots=True)
class Batch:
    """Tensors for the learner, nothing else: rows of tokens laid end to end.

    A row is a prompt followed by its answers. An answer attends to its row's prompt and
    to itself, so its segment number is its identity and its positions go on from the
    prompt's end. `B` rows, `T` tokens in all, `N` tokens the loss is taken on.
    """

    token_ids_T: torch.Tensor
    """int64."""
    positions_AT: torch.Tensor
    """int64; restart in each row, and in each answer at the prompt's end. A axes: 1 for text, 3 where a row has
    images (M-RoPE)."""
    segments_T: torch.Tensor
    """int64; 0 on the prompt, 1.. on the answers of a row."""
    row_starts_B1: torch.Tensor
    """int64 of B + 1: row b is tokens row_starts[b] to row_starts[b + 1]."""
    sources_N: torch.Tensor
    """int64; the index into T of the token whose hidden state predicts target n; ascending by row."""
    targets_N: torch.Tensor
    """int64; the predicted token ids."""
    answers_N: torch.Tensor
    """int64; the answer that each target belongs to. Equal answers share tokens and keep their own numbers."""
    prompts_N: torch.Tensor
    """int64; which of the step's groups each target belongs to, however groups are laid out as rows."""
    advantages_N: torch.Tensor
    """float32."""
    rollout_logprobs_N: torch.Tensor
    """float32; log-probability of each target when it was sampled."""
    weights_N: torch.Tensor
    """float32; what the aggregation gives each token; the loss is their weighted sum."""
    reference_logprobs_N: torch.Tensor | None = None
    """float32; log-probability of each target under a frozen reference, once a rank has computed those of its rows."""
    kept_N: torch.Tensor | None = None
    """bool; False where the importance mask left a target out, once the ranks know; its weight is 0 then."""
    features_B: tuple[Features | None, ...] = ()
    """Of the rows' images; empty when no row has any."""
    returns_N: torch.Tensor | None = None
    """float32; what a critic should have said before each target was written; None where there is no critic."""

    def __post_init__(self) -> None:
        if (
            not len(self.token_ids_T)
            == self.positions_AT.shape[-1]
            == len(self.segments_T)
            == int(self.row_starts_B1[-1])
        ):
            raise ValueError("token_ids, positions and segments must cover the rows exactly")
        own = (
            self.sources_N,
            self.targets_N,
            self.answers_N,
            self.prompts_N,
            self.advantages_N,
            self.rollout_logprobs_N,
        )
        if {len(x) for x in own} != {len(self.weights_N)}:
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
