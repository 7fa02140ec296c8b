"""How a run is asked to stop: the first signal lets it finish its step and save."""

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
"""How often it is asked whether the end of a long piece of work is wanted."""


class Interrupt:
    """Turns SIGINT and SIGTERM into a polite request to stop.

    The first signal only sets `requested`: the loop finishes its step and saves. A SIGINT
    after it raises KeyboardInterrupt. Signals reach the main thread alone, so elsewhere
    this does nothing. `ray.init` installs a SIGTERM handler of its own: call `install`
    again after it.

    >>> with Interrupt() as interrupt:
    ...     interrupt.requested is None
    True
    """

    def __init__(self) -> None:
        self.requested: str | None = None
        """Name of the signal that asked for the end, as "SIGTERM"; None while none has."""
        self._previous: dict[signal.Signals, Any] = {}

    def install(self) -> None:
        """Handle the signals, whatever has come to handle them since."""
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
            # None stands for a handler that was not installed from Python; it cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous.clear()

    async def unless_requested(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do `work`, cancelled as soon as an end is asked for. Raises: what it raises."""
        doing = asyncio.ensure_future(work)
        try:
            while not doing.done() and not self.requested:
                await asyncio.wait([doing], timeout=POLL_S)
        finally:
            doing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await doing

    def _handle(self, number: int, frame: FrameType | None) -> None:
        name = signal.Signals(number).name
        if self.requested is not None:
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        self.requested = name
        # Written straight to the descriptor: the signal may have come in the middle of a print.
        text = f"\n{name}: the step under way will be finished, and what is done saved; Ctrl-C again to stop at once.\n"
        os.write(2, text.encode())
