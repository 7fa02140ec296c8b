"""From prompts to token ids with the model's chat template, and from token ids to text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from morl.compat import guard_torchvision
from morl.errors import DataError, UsageError
from morl.model.media_processor import MediaProcessor
from morl.types import Encoded, Prompt

MULTIMODAL_TOKEN_KEYS = (
    "image_token_id",
    "video_token_id",
    "vision_start_token_id",
    "vision_end_token_id",
    "vision_token_id",
    "audio_token_id",
)
THINK = "<think>"
OPENED_TOKENS = 16
"""Number of tokens at the end of a prompt in which to look for a `<think>` that the template opened."""


@dataclass(frozen=True, slots=True)
class ChatCodec:
    """Turns prompts into token ids and token ids into text, with the model's chat template."""

    tokenizer: Any
    stop_token_ids: tuple[int, ...]
    """Tokens that end a response."""
    banned_token_ids: tuple[int, ...]
    """Placeholders of images, videos and audio: never sampled, and left out of the learner's softmax."""
    max_prompt_tokens: int
    media: MediaProcessor | None = None
    """Of a multimodal model."""

    @classmethod
    def load(cls, folder: Path, max_prompt_tokens: int) -> ChatCodec:
        """Read tokenizer and configuration of a checkpoint folder. Raises: UsageError."""
        guard_torchvision()
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder)
        if not tokenizer.chat_template:
            raise UsageError(f"model.path: the tokenizer of '{folder}' has no chat template")
        configs = [_read_json(folder / name) for name in ("generation_config.json", "config.json")]
        stop = _stop_ids(configs, tokenizer)
        if not stop:
            raise UsageError(f"model.path: '{folder}' has no end-of-text token (eos_token_id)")
        banned = {config[key] for config in configs for key in MULTIMODAL_TOKEN_KEYS if config.get(key) is not None}
        return cls(tokenizer, stop, tuple(sorted(banned)), max_prompt_tokens, MediaProcessor.load(folder))

    def encode(self, prompt: Prompt, *, limit: bool = True) -> Encoded:
        """The prompt as tokens, up to where the assistant's response begins.

        Args:
            limit: refuse a prompt that is too long; if False, the caller checks the length.

        Raises: DataError when the prompt is longer than `rollout.max_prompt_tokens`, or its media cannot be used.
        """
        messages = [dict(message) for message in prompt.messages]
        if not prompt.media:
            inputs = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
            encoded = Encoded(tuple(inputs["input_ids"]))
            if self.media is not None and (
                placeholders := set(self.media.placeholder_ids.values()) & set(inputs["input_ids"])
            ):
                token = self.tokenizer.convert_ids_to_tokens(min(placeholders))
                raise DataError(f"prompt {prompt.id} has the token {token} in its text, but no image for it")
        elif self.media is None:
            raise DataError(f"prompt {prompt.id} has images, but the model is not multimodal")
        else:
            try:
                encoded = self.media.encode(messages, prompt.media)
            except DataError as error:
                raise type(error)(f"prompt {prompt.id}: {error}") from error
        if limit and len(encoded.token_ids_T) > self.max_prompt_tokens:
            raise DataError(
                f"prompt {prompt.id} has {len(encoded.token_ids_T)} tokens, more than rollout.max_prompt_tokens="
                f"{self.max_prompt_tokens}; allow more, or leave such prompts out with rollout.too_long=skip "
                "(`morl check` lists them)"
            )
        end = self.decode(encoded.token_ids_T[-OPENED_TOKENS:]).rstrip()
        return replace(encoded, opened=THINK) if end.endswith(THINK) else encoded

    def fits(self, prompt: Prompt) -> bool:
        """Whether the prompt has at most `rollout.max_prompt_tokens` tokens."""
        return len(self.encode(prompt, limit=False).token_ids_T) <= self.max_prompt_tokens

    def encode_answer(self, text: str) -> tuple[int, ...]:
        """Token ids of a finished response, end-of-turn token included; none of its text becomes a special token."""
        ids = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return (*ids, self.tokenizer.eos_token_id)

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of a response, without special tokens."""
        text: str = self.tokenizer.decode(list(token_ids), skip_special_tokens=True)
        return text


def _read_json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def _stop_ids(configs: Sequence[dict[str, Any]], tokenizer: Any) -> tuple[int, ...]:
    ids: set[int] = set()
    for eos in [config.get("eos_token_id") for config in configs] + [tokenizer.eos_token_id]:
        ids.update(eos if isinstance(eos, list) else [] if eos is None else [eos])
    return tuple(sorted(ids))
