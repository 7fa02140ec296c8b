"""Messages about set-up, on the console and in the log."""

from __future__ import annotations

import logging

import rich

logger = logging.getLogger(__name__)


def announce(text: str) -> None:
    """Print a message about set-up to the console, and log it."""
    logger.info("%s", text)
    rich.get_console().print(text, markup=False, highlight=False, soft_wrap=True)
