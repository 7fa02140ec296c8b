"""What a reward is given of one answer, and how a function gets what it names of that."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from morl.rewards.reward import Example
from morl.types import Prompt, Sample


@dataclass(frozen=True, slots=True)
class RewardInput:
    """One answer, and what it is judged by. A reward's positional parameters are names of these fields.

    >>> RewardInput("4", "4").arguments(["response", "gold"])
    {'response': '4', 'gold': '4'}
    """

    response: str
    """The answer's text, thinking included."""
    gold: Any = None
    """The reference answer as the reward wants it; None if the prompt has none."""
    messages: Sequence[Mapping[str, Any]] = ()
    """The prompt: chat messages `{"role", "content"}`; empty where it is not known, as in `morl score`."""
    media: Sequence[Any] = ()
    """The prompt's images and videos in order, or what tells their sizes: see `image_size`."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """The row of data that the prompt was made of."""
    sample: Sample | None = None
    """The answer's tokens; None where there is only text."""

    @classmethod
    def of(cls, prompt: Prompt, response: str, sample: Sample | None = None) -> RewardInput:
        """A response to a prompt."""
        return cls(response, prompt.gold, prompt.messages, prompt.media, prompt.meta, sample)

    @classmethod
    def of_example(cls, example: Example) -> RewardInput:
        """The row of an example; it can be pickled if its values can."""
        return cls(example.response, example.gold, meta=dict(example.meta))

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> RewardInput:
        """A row as `morl score` reads it: `{"response", "gold", "meta", "messages", "media"}`, the first being needed.

        Raises: ValueError when the response is not text, or `meta` no mapping.
        """
        response, meta = row.get("response"), row.get("meta") or {}
        if not isinstance(response, str):
            raise ValueError("no text 'response'")
        if not isinstance(meta, Mapping):
            raise ValueError("'meta' must be an object")
        return cls(response, row.get("gold"), row.get("messages") or (), row.get("media") or (), meta)

    def arguments(self, names: Iterable[str]) -> dict[str, Any]:
        """The fields of these names; `wanted_arguments` tells those of a reward."""
        return {name: getattr(self, name) for name in names}

    def only(self, names: Iterable[str]) -> RewardInput:
        """The same answer with nothing but these fields, for a reward that reads no others and is far away."""
        return RewardInput(**{"response": self.response, **self.arguments(names)})


ARGUMENTS = tuple(each.name for each in fields(RewardInput))
"""What a reward can ask for by naming a positional parameter so; for a batch reward, lists of them."""


def call_with(function: Callable[..., Any], given: RewardInput, options: Mapping[str, Any], *first: Any) -> Any:
    """Call a reward's `answer` or `marks`: with `first`, and with what its further parameters name.

    Positional parameters name fields of the input, keyword-only ones options of the reward; `**options` takes all
    of these.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())[len(first) :]
    except (TypeError, ValueError):  # a type, or something else that cannot say what it takes
        parameters = []
    named = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.name in ARGUMENTS]
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    chosen = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    return function(
        *first,
        **given.arguments(named),
        **{name: value for name, value in options.items() if takes_all or name in chosen},
    )
