"""The question of a prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def question(messages: Sequence[Any]) -> str:
    """The text of the last user message; of several text parts, all joined by spaces."""
    for message in reversed(messages):
        if message.get("role") == "user":
            content = message.get("content") or ""
            parts = [content] if isinstance(content, str) else [part.get("text") or "" for part in content]
            return " ".join(parts)
    return ""
