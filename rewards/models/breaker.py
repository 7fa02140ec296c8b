"""A circuit breaker: who keeps failing is left alone for a while."""

from __future__ import annotations

import time
from collections.abc import Callable


class Breaker:
    """Closed until so many calls in a row failed, then open for a time, then one call tries.

    Every `enter` that says nothing is followed by one `leave`.

    >>> breaker = Breaker(failures=2, open_s=60.0)
    >>> for _ in range(2):
    ...     assert not breaker.enter()
    ...     breaker.leave(alive=False)
    >>> breaker.enter()
    'not asked: it failed 2 times in a row; the next try is in 60 s'
    """

    def __init__(self, failures: int, open_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._most = failures
        self._open_s = open_s
        self._clock = clock
        self._failed = 0
        self._opens_at: float | None = None
        """When one call may try; None while it is closed."""
        self._trying = False

    def enter(self) -> str:
        """Why there must be no call now; empty when there may be one."""
        if self._opens_at is None:
            return ""
        left = self._opens_at - self._clock()
        if left <= 0 and not self._trying:
            self._trying = True
            return ""
        when = f"the next try is in {left:.0f} s" if left > 0 else "one call is trying"
        return f"not asked: it failed {self._failed} times in a row; {when}"

    def leave(self, *, alive: bool) -> None:
        """The call ended; `alive` whether the other side is in order."""
        if alive:
            self._failed, self._opens_at, self._trying = 0, None, False
            return
        self._failed += 1
        tried = self._opens_at is not None and self._trying
        if tried or (self._opens_at is None and self._failed >= self._most):
            self._opens_at, self._trying = self._clock() + self._open_s, False
