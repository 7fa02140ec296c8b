"""A learned reward: what a model of people's preferences thinks of the answer."""

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
"""Messages up to the answer, and the images that they name."""

DECAY = 0.9
"""Share of the running mean that stays from step to step."""
REFERENCES = 100_000
"""Scores of reference answers that are remembered."""


class ScoreServer(Protocol):
    """A loaded model behind the reward, wherever it runs: what the entry point group `morl.reward_models` names.

    It is made as `server(path, *, dtype, max_tokens, tokens_per_batch, replicas)`, which loads nothing yet.
    """

    def stored_center(self) -> float | None:
        """The mean score that was stored beside the model; None where there is none."""

    def start(self) -> None:
        """Load the model; blocks. Raises: UsageError when there is none, RunError when it does not start."""

    async def score(self, questions: Sequence[Question], answers: Sequence[str]) -> list[float | str]:
        """The model's own score of each answer, or why there is none."""

    def close(self) -> None:
        """Let go of the model."""


class ServedModel(Resource):
    """The model wherever it runs, and the mean of the scores of past steps."""

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
        load = REWARD_MODELS.load("bradley_terry")
        self._model: ScoreServer = load(
            path, dtype=dtype, max_tokens=max_tokens, tokens_per_batch=tokens_per_batch, replicas=replicas
        )
        self._started = False
        self._references: OrderedDict[tuple[str, str], float | str] = OrderedDict()
        self._fresh: list[float] = []
        self._fresh_count = 0
        self.center: float | None = center if isinstance(center, float) else None

    async def start(self) -> None:
        """Load the model. Raises: UsageError when there is none, or it has no stored mean where one is asked for."""
        if self._kind in ("stored", "running") and self.center is None:
            self.center = self._model.stored_center()
            if self.center is None and self._kind == "stored":
                raise UsageError(
                    f"reward_model: '{self._path}' was not made by `morl rm`, so the mean of its scores is not known: "
                    "set center to running, to reference or to a number"
                )
        # A model takes its time to load, and the event loop has others to serve.
        await asyncio.get_running_loop().run_in_executor(None, self._model.start)
        self._started = True

    async def scores(self, questions: Sequence[Question], answers: Sequence[str]) -> list[float | str]:
        """The model's own score of each answer, or why there is none."""
        if not self._started:
            raise RuntimeError("the reward model is not started")
        return await self._model.score(questions, answers) if answers else []

    async def reference_scores(self, questions: Sequence[Question], references: Sequence[str]) -> list[float | str]:
        """As `scores`, for answers that come again and again."""
        keys = [(_key(question), reference) for question, reference in zip(questions, references, strict=True)]
        missing = {key: place for place, key in enumerate(keys) if key not in self._references}
        places = list(missing.values())
        told = await self.scores([questions[i] for i in places], [references[i] for i in places])
        self._references |= dict(zip(missing, told, strict=True))
        found = [self._references[key] for key in keys]
        while len(self._references) > REFERENCES:
            self._references.popitem(last=False)
        return found

    def observe(self, scores: Sequence[float]) -> None:
        """Take a step's scores into account from the next step on."""
        if self._kind == "running":
            self._fresh += scores
            self._fresh_count += len(scores)

    def begin_step(self, step: int) -> None:
        """Move the running mean; within a step it stands still, so that the order of answers does not matter."""
        if self._fresh_count:
            mean = math.fsum(self._fresh) / self._fresh_count
            self.center = mean if self.center is None else DECAY * self.center + (1 - DECAY) * mean
            self._fresh, self._fresh_count = [], 0

    def state(self) -> Mapping[str, Any]:
        """The running mean, and what will move it."""
        if self._kind != "running":
            return {}
        # The exact sum is the same in every order, and rounding it twice changes nothing.
        return {"center": self.center, "sum": math.fsum(self._fresh), "count": self._fresh_count}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        if self._kind == "running":
            self.center, self._fresh_count = state["center"], state["count"]
            self._fresh = [state["sum"]] if self._fresh_count else []

    def close(self) -> None:
        """Let go of the model; its last user ends it."""
        if self._started:
            self._model.close()
            self._started = False


def _key(question: Question) -> str:
    """The same text for the same question: images by their names, which say what is in them."""
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

    The model reads the conversation in its own chat template, and of the response only what follows the thinking.
    Nothing in a response becomes a special token of the model's, and nothing is ever cut: what is longer than
    `max_tokens` gets no score.

    `path` is a folder that `morl rm` wrote (`runs/<name>/model`), or any sequence classifier with one output. A model
    that sees is shown the prompt's images.
    `center` is what scores 0.5: the mean score that `morl rm` found on held-out answers (`stored`), a mean that
    follows the policy from step to step (`running`), the score of the gold as an answer to the same prompt, so
    that the value is the probability to be preferred to it (`reference`), or a number.
    `temperature` flattens the sigmoid. `dtype`, `tokens_per_batch` and `replicas` say how it runs: one actor a
    replica, on a GPU each where the cluster has some.
    """
    texts = [final_text(text) for text in response]
    told: list[Verdict | None] = [
        None if says_something(text) else Verdict(0.0, "no_answer", "nothing to read") for text in texts
    ]
    golds = gold or [None] * len(texts)
    if center == "reference":
        for place, reference in enumerate(golds):
            if not isinstance(reference, str) or not reference.strip():
                told[place] = Verdict(None, "bad_gold", "center: reference wants a gold that is an answer")
    open_ = [place for place, verdict in enumerate(told) if verdict is None]
    questions = [(messages[place], tuple(media[place])) for place in open_]
    raw = await resource.scores(questions, [texts[place] for place in open_])
    resource.observe([score for score in raw if isinstance(score, float) and math.isfinite(score)])
    middles: Sequence[float | str | None]
    if center == "reference":
        middles = await resource.reference_scores(questions, [final_text(golds[place]) for place in open_])
    else:
        middles = [resource.center] * len(raw)
    for place, score, middle in zip(open_, raw, middles, strict=True):
        told[place] = _verdict(score, middle, temperature)
    return [verdict for verdict in told if verdict is not None]


def _verdict(score: float | str, middle: float | str | None, temperature: float) -> Verdict:
    if isinstance(score, str):
        return Verdict(None, "error", score)
    if isinstance(middle, str):
        return Verdict(None, "bad_gold", f"the reference: {middle}")
    if not math.isfinite(score):
        return Verdict(None, "error", f"the model's score is {score}")
    middle = 0.0 if middle is None else middle  # a running mean before its first step
    return Verdict(_sigmoid((score - middle) / temperature), "ok", f"score {score:.4g}, center {middle:.4g}")


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))
