"""Messages on what is being set up: on the console, and in the log."""

from __future__ import annotations

import logging

import rich

logger = logging.getLogger(__name__)


def announce(text: str) -> None:
    """Tell the user what is being set up, and the log."""
    logger.info("%s", text)
    rich.get_console().print(text, markup=False, highlight=False, soft_wrap=True)
