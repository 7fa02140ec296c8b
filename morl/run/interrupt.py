"""Stopping a run by signal: the first one lets it finish its step and save."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Coroutine
from types import FrameType, TracebackType
from typing import Any, Self

POLL_S = 0.5
"""Interval at which long work checks for a signal."""


class Interrupt:
    """Turns SIGINT and SIGTERM into a request to stop.

    The first signal only sets `requested`: the loop finishes its step and saves. A later
    SIGINT raises KeyboardInterrupt. Python delivers signals to the main thread only, so in
    any other thread this does nothing. `ray.init` replaces the SIGTERM handler: call
    `install` again after it.

    >>> with Interrupt() as interrupt:
    ...     interrupt.requested is None
    True
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        """Name of the first signal, such as "SIGTERM"; None before one."""
        self._previous: dict[signal.Signals, Any] = {}

    def install(self) -> None:
        """Handle the signals, replacing any handler installed since."""
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.signal(number, self._handle)
                self._previous.setdefault(number, handler)

    def __enter__(self) -> Self:
        self.install()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            # None is a handler not installed from Python; it cannot be restored.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous.clear()

    async def run_until_requested(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run `work`; cancel it as soon as a signal arrives. Raises: what `work` raises."""
        task = asyncio.ensure_future(work)
        try:
            while not task.done() and not self.requested:
                await asyncio.wait([task], timeout=POLL_S)
        finally:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    def _handle(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.requested is not None:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.requested = name
        # Written to the descriptor: the signal may have interrupted a print.
        text = f"\n{name}: the step under way will be finished, and what is done saved; Ctrl-C again to stop at once.\n"
        os.write(2, text.encode())
