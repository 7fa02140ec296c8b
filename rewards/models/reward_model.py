"""A learned reward: the score of a Bradley-Terry model of human preference."""

from __future__ import annotations

import asyncio
import json
import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field

from morl.errors import UsageError
from morl.registry import REWARD_MODELS
from morl.rewards.parsing.answer import final_text
from morl.rewards.parsing.text_metrics import says_something
from morl.rewards.resource import Resource
from morl.rewards.reward import Verdict, reward

Question = tuple[tuple[Mapping[str, Any], ...], tuple[Any, ...]]
"""The messages of the prompt, and their images."""

DECAY = 0.9
"""Decay of the running mean per step."""
REFERENCES = 100_000
"""Cached scores of reference answers."""


class ScoreServer(Protocol):
    """Serves the model of the reward; registered in the entry point group `morl.reward_models`.

    Constructed as `server(path, *, dtype, max_tokens, tokens_per_batch, replicas)`, which loads nothing yet.
    """

    def stored_center(self) -> float | None:
        """The mean score stored beside the model; None if there is none."""

    def start(self) -> None:
        """Load the model; blocks. Raises: UsageError when it does not exist, RunError when it does not start."""

    async def score(self, questions: Sequence[Question], answers: Sequence[str]) -> list[float | str]:
        """The model's raw score of each answer, or the reason why it has none."""

    def close(self) -> None:
        """Release the model."""


class ServedModel(Resource):
    """The served model, and the running mean of its scores."""

    def __init__(
        self,
        *,
        path: str,
        center: float | Literal["stored", "running", "reference"],
        temperature: float,
        dtype: str,
        max_tokens: int,
        tokens_per_batch: int,
        replicas: int,
    ) -> None:
        self._path = path
        self._kind = center
        self._options: dict[str, Any] = {
            "dtype": dtype,
            "max_tokens": max_tokens,
            "tokens_per_batch": tokens_per_batch,
            "replicas": replicas,
        }
        self._model: ScoreServer | None = None
        """None until `start`: the server imports torch, which `morl check` does without."""
        self._references: OrderedDict[tuple[str, str], float | str] = OrderedDict()
        self._fresh: list[float] = []
        self._fresh_count = 0
        self.center: float | None = center if isinstance(center, float) else None

    async def start(self) -> None:
        """Load the model. Raises: UsageError when it does not exist, or `center: stored` finds no stored mean."""
        model: ScoreServer = REWARD_MODELS.load("bradley_terry")(self._path, **self._options)
        if self._kind in ("stored", "running") and self.center is None:
            self.center = model.stored_center()
            if self.center is None and self._kind == "stored":
                raise UsageError(
                    f"reward_model: '{self._path}' was not made by `morl rm`, so the mean of its scores is not known: "
                    "set center to running, reference or a number"
                )
        # Loading is slow and must not block the event loop.
        await asyncio.get_running_loop().run_in_executor(None, model.start)
        self._model = model

    async def scores(self, questions: Sequence[Question], answers: Sequence[str]) -> list[float | str]:
        """The model's raw score of each answer, or the reason why it has none."""
        if self._model is None:
            raise RuntimeError("the reward model is not started")
        return await self._model.score(questions, answers) if answers else []

    async def reference_scores(self, questions: Sequence[Question], references: Sequence[str]) -> list[float | str]:
        """Like `scores`, with a cache, for answers that repeat."""
        keys = [(_key(question), reference) for question, reference in zip(questions, references, strict=True)]
        missing = {key: index for index, key in enumerate(keys) if key not in self._references}
        indices = list(missing.values())
        new_scores = await self.scores([questions[i] for i in indices], [references[i] for i in indices])
        self._references |= dict(zip(missing, new_scores, strict=True))
        scores = [self._references[key] for key in keys]
        while len(self._references) > REFERENCES:
            self._references.popitem(last=False)
        return scores

    def observe(self, scores: Sequence[float]) -> None:
        """Add scores to the running mean of the next step."""
        if self._kind == "running":
            self._fresh += scores
            self._fresh_count += len(scores)

    def begin_step(self, step: int) -> None:
        """Update the running mean. It is constant within a step, so that the order of answers does not matter."""
        if self._fresh_count:
            mean = math.fsum(self._fresh) / self._fresh_count
            self.center = mean if self.center is None else DECAY * self.center + (1 - DECAY) * mean
            self._fresh, self._fresh_count = [], 0

    def state(self) -> Mapping[str, Any]:
        """The running mean, and the sum and count for its next update."""
        if self._kind != "running":
            return {}
        # The exact sum does not depend on the order, and rounding it twice changes nothing.
        return {"center": self.center, "sum": math.fsum(self._fresh), "count": self._fresh_count}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a value of `state`."""
        if self._kind == "running":
            self.center, self._fresh_count = state["center"], state["count"]
            self._fresh = [state["sum"]] if self._fresh_count else []

    def close(self) -> None:
        """Release the model; its last user stops it."""
        if self._model is not None:
            self._model.close()
            self._model = None


def _key(question: Question) -> str:
    """The same text for the same question: images by name, which identifies their content."""
    messages, media = question
    return json.dumps([[dict(message) for message in messages], [item.name for item in media]], sort_keys=True)


@reward("reward_model", resource=ServedModel, batch=True, deadline_s=600.0)
async def reward_model(
    response: list[str],
    messages: list[tuple[Mapping[str, Any], ...]],
    media: list[tuple[Any, ...]],
    resource: ServedModel,
    gold: list[Any] | None = None,
    *,
    path: str,
    center: Annotated[float, Field(allow_inf_nan=False)] | Literal["stored", "running", "reference"] = "stored",
    temperature: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0,
    dtype: Literal["float32", "bfloat16", "float16"] = "float32",
    max_tokens: Annotated[int, Field(ge=1)] = 4096,
    tokens_per_batch: Annotated[int, Field(ge=1)] = 16384,
    replicas: Annotated[int, Field(ge=1)] = 1,
) -> list[Verdict]:
    """A Bradley-Terry model's score of the answer, as `sigmoid((score - center) / temperature)`.

    The model reads the conversation in its own chat template, and only the part of the response after the thinking.
    Text in a response never becomes a special token of the model. Nothing is truncated: a conversation longer than
    `max_tokens` gets no score.

    `path` is a folder that `morl rm` wrote (`runs/<name>/model`), or any sequence classifier with one output. A
    multimodal model receives the prompt's images.
    `center` is the score that maps to 0.5: the mean score on held-out answers from `morl rm` (`stored`), a mean that
    follows the policy from step to step (`running`), the score of the gold as an answer to the same prompt, so that
    the value is the probability of being preferred to it (`reference`), or a number.
    `temperature` flattens the sigmoid. `dtype`, `tokens_per_batch` and `replicas` control how the model runs: one
    actor per replica, each on a GPU if the cluster has any.
    """
    texts = [final_text(text) for text in response]
    verdicts: list[Verdict | None] = [
        None if says_something(text) else Verdict(0.0, "no_answer", "nothing to read") for text in texts
    ]
    golds = gold or [None] * len(texts)
    if center == "reference":
        for index, reference in enumerate(golds):
            if not isinstance(reference, str) or not reference.strip():
                verdicts[index] = Verdict(None, "bad_gold", "center: reference needs a gold that is an answer")
    pending = [index for index, verdict in enumerate(verdicts) if verdict is None]
    questions = [(messages[index], tuple(media[index])) for index in pending]
    raw = await resource.scores(questions, [texts[index] for index in pending])
    resource.observe([score for score in raw if isinstance(score, float) and math.isfinite(score)])
    centers: Sequence[float | str | None]
    if center == "reference":
        centers = await resource.reference_scores(questions, [final_text(golds[index]) for index in pending])
    else:
        centers = [resource.center] * len(raw)
    for index, score, middle in zip(pending, raw, centers, strict=True):
        verdicts[index] = _verdict(score, middle, temperature)
    return [verdict for verdict in verdicts if verdict is not None]


def _verdict(score: float | str, center: float | str | None, temperature: float) -> Verdict:
    if isinstance(score, str):
        return Verdict(None, "error", score)
    if isinstance(center, str):
        return Verdict(None, "bad_gold", f"the reference: {center}")
    if not math.isfinite(score):
        return Verdict(None, "error", f"the model's score is {score}")
    center = 0.0 if center is None else center  # a running mean before its first step
    return Verdict(_sigmoid((score - center) / temperature), "ok", f"score {score:.4g}, center {center:.4g}")


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
