"""The input of a reward, and how a function receives the fields that it names."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from morl.rewards.reward import Example
from morl.types import Prompt, Sample


@dataclass(frozen=True, slots=True)
class RewardInput:
    """One response and the context for judging it. The positional parameters of a reward name these fields.

    >>> RewardInput("4", "4").arguments(["response", "gold"])
    {'response': '4', 'gold': '4'}
    """

    response: str
    """The policy's text, thinking included."""
    gold: Any = None
    """The reference answer in the form that the reward expects; None if the prompt has none."""
    messages: Sequence[Mapping[str, Any]] = ()
    """The prompt: chat messages `{"role", "content"}`; empty if unknown, as in `morl score`."""
    media: Sequence[Any] = ()
    """The prompt's images and videos in order, or mappings with their sizes: see `image_size`."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """The row of data behind the prompt."""
    sample: Sample | None = None
    """The response's tokens; None if only the text is known."""

    @classmethod
    def of(cls, prompt: Prompt, response: str, sample: Sample | None = None) -> RewardInput:
        """A response to a prompt."""
        return cls(response, prompt.gold, prompt.messages, prompt.media, prompt.meta, sample)

    @classmethod
    def of_example(cls, example: Example) -> RewardInput:
        """The input of an example; picklable if its values are."""
        return cls(example.response, example.gold, meta=dict(example.meta))

    @classmethod
    def of_row(cls, row: Mapping[str, Any]) -> RewardInput:
        """A row of `morl score`: `{"response", "gold", "meta", "messages", "media"}`; only `response` is required.

        Raises: ValueError when the response is not text or `meta` is not a mapping.
        """
        response, meta = row.get("response"), row.get("meta") or {}
        if not isinstance(response, str):
            raise ValueError("no text 'response'")
        if not isinstance(meta, Mapping):
            raise ValueError("'meta' must be an object")
        return cls(response, row.get("gold"), row.get("messages") or (), row.get("media") or (), meta)

    def arguments(self, names: Iterable[str]) -> dict[str, Any]:
        """The named fields; `wanted_arguments` lists those of a reward."""
        return {name: getattr(self, name) for name in names}

    def only(self, names: Iterable[str]) -> RewardInput:
        """A copy with the response and these fields only, so that a remote reward is sent no others."""
        return RewardInput(**{"response": self.response, **self.arguments(names)})


ARGUMENTS = tuple(each.name for each in fields(RewardInput))
"""The positional parameters that a reward can have; a batch reward receives lists of them."""


def call_with(function: Callable[..., Any], reward_input: RewardInput, options: Mapping[str, Any], *first: Any) -> Any:
    """Call a reward's `answer` or `marks` with `first`, and with the arguments that its other parameters name.

    Positional parameters name fields of the input, keyword-only ones options of the reward; `**options` takes all
    options.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())[len(first) :]
    except (TypeError, ValueError):  # a builtin without a signature
        parameters = []
    named = [p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD and p.name in ARGUMENTS]
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    chosen = {p.name for p in parameters if p.kind is p.KEYWORD_ONLY}
    return function(
        *first,
        **reward_input.arguments(named),
        **{name: value for name, value in options.items() if takes_all or name in chosen},
    )
