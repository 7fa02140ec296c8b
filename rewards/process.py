"""One worker process as its owner sees it: what it was given, what it does, and when its time is up."""

from __future__ import annotations

import collections
import contextlib
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import Future
from dataclasses import dataclass, field
from multiprocessing.connection import Connection

from morl.types import TermScore

LOAD_DEADLINE_S = 120.0
"""Time for a worker to start, and for it to import a reward."""
STUCK_S = 10
"""Time for a message to go through: a worker that was stopped must not stop who talks to it."""

_BOOT = "import sys; sys.path[:] = {path!r}; from morl.rewards.worker import main; main({fd}, {parent}, {memory_mb})"
# A worker is one core's worth of work, and the threads' buffers would count as its memory. One hash
# seed makes sets, and so formulas, come out in the same order in every worker.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}


@dataclass(slots=True, eq=False)
class Item:
    """One call that is asked for."""

    target: str
    """`module:attribute` of the function."""
    payload: bytes | None
    """Pickled arguments, options and size; None only imports the target."""
    deadline_s: float
    size: int
    """Scores that it gives: 1, or as many as a batch has answers."""
    future: Future[list[TermScore]] = field(default_factory=Future)
    running: bool = False
    """Whether a worker was given it before, so that it can be cancelled no more."""
    deaths: int = 0
    """Workers that it has cost."""


class WorkerProcess:
    """A process that serves `morl.rewards.worker`, and the items it works on, the first one now."""

    def __init__(self, memory_mb: int) -> None:
        """Starts it. Raises: OSError when the system has no process or file to give."""
        ours, theirs = socket.socketpair()
        with theirs:
            patience = struct.pack("ll", STUCK_S, 0)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, patience)
            # Not multiprocessing: that would run the user's script again in every worker.
            boot = _BOOT.format(path=sys.path, fd=theirs.fileno(), parent=os.getpid(), memory_mb=memory_mb)
            self.process = subprocess.Popen(
                [sys.executable, "-c", boot],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what a reward prints is a message, not output of the program
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # its own children are killed with it, and Ctrl-C does not reach it
                env={**os.environ, **_ENVIRONMENT},
            )
        self.channel = Connection(ours.detach())
        self.items: collections.deque[Item] = collections.deque()
        self.ready = False
        """Whether it said that it can be given work."""
        self.loaded: set[str] = set()
        """Targets that it has imported."""
        self.done = 0
        """Items that it has scored."""
        self.since = time.monotonic()
        """When it began what it does now."""

    @property
    def loading(self) -> str | None:
        """The target that it imports at the moment."""
        return self.items[0].target if self.items and self.items[0].target not in self.loaded else None

    @property
    def expires(self) -> float:
        """When it is to be killed, on the monotonic clock."""
        if not self.ready or self.loading:
            return self.since + LOAD_DEADLINE_S
        return self.since + self.items[0].deadline_s if self.items else float("inf")

    def give(self, items: Iterable[Item]) -> None:
        """Hand items to an idle worker. Raises: OSError when it is gone, or does not listen."""
        self.items.extend(items)
        self.since = time.monotonic()
        self.channel.send_bytes(pickle.dumps([(item.target, item.payload) for item in self.items]))

    def kill(self) -> None:
        """Kill it with its children; the process remains to be waited for."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.channel.close()
