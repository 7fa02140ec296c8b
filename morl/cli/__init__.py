"""The command `morl`: one file a command, which parses its options, calls one function of the library, and prints."""

from __future__ import annotations

from morl.cli.main import main

__all__ = [
    "main",
]
