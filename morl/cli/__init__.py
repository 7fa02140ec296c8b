"""The command `morl`: one file per command, which parses options, calls a function of the library, and prints."""

from __future__ import annotations

from morl.cli.main import main

__all__ = [
    "main",
]
