"""One worker process as its owner sees it: what it was given, what it does, and when its time is up."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import fcntl
import json
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from morl.types import TermScore

LOAD_DEADLINE_S = 120.0
"""Time for a worker to start, and for it to import a reward."""
STUCK_S = 10
"""Time for a message to go through: a worker that was stopped must not stop who talks to it."""

REPLIES_BYTES = 1 << 18
"""Replies that a worker can leave unread before it has to wait, where the system allows so many."""

_BOOT = "import sys; sys.path[:] = {path!r}; from morl.rewards.pool.worker import main; main{arguments!r}"
# A worker is one core's worth of work, and the threads' buffers would count as its memory. One hash
# seed makes sets, and so formulas, come out in the same order in every worker.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}


@dataclass(frozen=True, slots=True)
class Call:
    """What is called, the same for many items."""

    target: str
    """`module:attribute` of the function."""
    options: bytes
    """Pickled, once for all items."""
    deadline_s: float


@dataclass(slots=True, eq=False)
class Item:
    """One call that is asked for."""

    call: Call
    arguments: bytes | None
    """Pickled; None only imports the target."""
    size: int | None
    """The answers of a batch, each of which has its score; None for a plain call."""
    future: asyncio.Future[Any] | None
    """Wants one score, or a batch's list of them. Belongs to its event loop: only that may set it."""
    deaths: int = 0
    """Workers that it has cost."""

    @property
    def is_wanted(self) -> bool:
        """Whether somebody still waits for it."""
        return self.future is not None and not self.future.done()


class WorkerProcess:
    """A process that serves `morl.rewards.pool.worker`, and the items it works on, the first one now.

    Work goes to it through a socket. Replies come back through a pipe that holds many of them: they
    can be read together, and what a worker has said is not lost when it is killed.
    """

    def __init__(self, memory_mb: int) -> None:
        """Starts it. Raises: OSError when the system has no process or file to give."""
        with contextlib.ExitStack() as ours_if_failed, contextlib.ExitStack() as theirs:
            self._work, work = socket.socketpair()
            ours_if_failed.enter_context(self._work)
            theirs.enter_context(work)
            read, write = os.pipe()
            self.replies = ours_if_failed.enter_context(os.fdopen(read, "rb", buffering=0))
            theirs.enter_context(os.fdopen(write, "wb", buffering=0))
            os.set_blocking(read, False)
            with contextlib.suppress(AttributeError, OSError):  # not on this system, or not so much
                fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, REPLIES_BYTES)
            patience = struct.pack("ll", STUCK_S, 0)
            self._work.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
            # Not multiprocessing: that would run the user's script again in every worker.
            boot = _BOOT.format(path=sys.path, arguments=(work.fileno(), write, os.getpid(), memory_mb))
            self.process = subprocess.Popen(
                [sys.executable, "-c", boot],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what a reward prints is a message, not output of the program
                pass_fds=[work.fileno(), write],
                start_new_session=True,  # its own children are killed with it, and Ctrl-C does not reach it
                env={**os.environ, **_ENVIRONMENT},
            )
            ours_if_failed.pop_all()
        self._unfinished = b""
        """The beginning of a reply."""
        self.items: collections.deque[Item] = collections.deque()
        self.ready = False
        """Whether it said that it can be given work."""
        self.loaded: set[str] = set()
        """Targets that it has imported."""
        self.done = 0
        """Items that it has scored."""
        self.since = time.monotonic()
        """When it began what it does now, or a little later."""

    @property
    def loading(self) -> str | None:
        """The target that it imports at the moment."""
        return self.items[0].call.target if self.items and self.items[0].call.target not in self.loaded else None

    @property
    def expires(self) -> float:
        """When it is to be killed, on the monotonic clock."""
        if not self.ready or self.loading:
            return self.since + LOAD_DEADLINE_S
        return self.since + self.items[0].call.deadline_s if self.items else float("inf")

    def give(self, items: Iterable[Item]) -> None:
        """Hand items to an idle worker. Raises: OSError when it is gone, or does not listen."""
        self.items.extend(items)
        self.since = time.monotonic()
        work = [(item.call.target, item.call.options, item.arguments, item.size) for item in self.items]
        self._work.sendall(pickle.dumps(work))

    def read(self) -> Iterator[list[TermScore] | dict[str, Any]]:
        """What it has replied since, one item's scores or a message at a time.

        Raises: EOFError when it is gone; ValueError for what is no reply.
        """
        said = self.replies.read(REPLIES_BYTES)
        if said is not None:  # which means nothing new
            self.since = time.monotonic()
            *lines, self._unfinished = (self._unfinished + said).split(b"\n")
            yield from map(_parsed, lines)
            if not said:
                raise EOFError

    def kill(self) -> None:
        """Kill it with its children; the process remains to be waited for."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self._work.close()
        self.replies.close()


def _parsed(line: bytes) -> list[TermScore] | dict[str, Any]:
    try:
        reply = json.loads(line)
        return reply if type(reply) is dict else [TermScore(*fields) for fields in reply]
    except (TypeError, RecursionError) as error:
        raise ValueError("no reply") from error
