"""One worker process as its owner sees it: started, sent work, read from, killed."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pickle
import select
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
SEND_DEADLINE_S = 10
"""Time for a message to go through: a worker that was stopped must not stop who talks to it."""
READ_BYTES = 1 << 18
MAX_REPLY_BYTES = 1 << 24

_BOOT = "import sys; sys.path[:] = {path!r}; from morl.rewards.pool.worker import main; main{arguments!r}"
# A worker is one core's worth of work, and the threads' buffers would count as its memory. One hash
# seed makes sets, and so formulas, come out in the same order in every worker.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}


class WorkerError(Exception):
    """The worker is gone, does not listen, or sends what is no reply: it has to be replaced."""


class WorkerTimeoutError(WorkerError):
    """It did not reply in time."""


class WorkerMemoryError(WorkerError):
    """It ran into its memory limit."""


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
    arguments: bytes
    """Pickled."""
    size: int | None
    """The answers of a batch, each of which has its score; None for a plain call."""
    future: asyncio.Future[Any]
    """Wants one score, or a batch's list of them. Belongs to its event loop: only that may set it."""
    deaths: int = 0
    """Workers that it has cost."""


class WorkerProcess:
    """A process that serves `morl.rewards.pool.worker`, ready for work once it is constructed.

    Work goes to it and replies come back through a socket that holds many of them: they can be read
    together, and what a worker has replied is not lost when it dies.

    Args:
        memory_mb: by how much a call may make it grow.
        interrupt: ends every `read` once it is readable.

    Raises: OSError when it does not start.
    """

    def __init__(self, memory_mb: int, interrupt: socket.socket) -> None:
        self.loaded: set[str] = set()
        """Targets that it has imported."""
        self.done = 0
        """Items that it has scored."""
        self._partial = b""
        """The beginning of a reply."""
        self._socket, socket_of_worker = socket.socketpair()
        # Not `settimeout`, with which Python lets go of its lock twice as often.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_DEADLINE_S, 0))
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._poll.register(interrupt, select.POLLIN)
        fd = socket_of_worker.fileno()
        with socket_of_worker, contextlib.ExitStack() as on_failure:
            on_failure.enter_context(self._socket)
            # Not multiprocessing: that would run the user's script again in every worker.
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOT.format(path=sys.path, arguments=(fd, os.getpid(), memory_mb))],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what a reward prints is a message, not output of the program
                pass_fds=[fd],
                start_new_session=True,  # its own children are killed with it, and Ctrl-C does not reach it
                env={**os.environ, **_ENVIRONMENT},
            )
            on_failure.pop_all()
        try:
            self.read(LOAD_DEADLINE_S)
        except WorkerError as error:
            self.close()
            raise OSError(f"exit code {self._process.returncode}") from error

    def close(self) -> None:
        """Kill it with its children, and wait until it is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._socket.close()

    @property
    def is_idle(self) -> bool:
        """Whether it waits for work: it has not ended, and sent nothing that nobody asked for."""
        return not self._poll.poll(0)

    def send(self, items: Iterable[Item]) -> None:
        """Give it items of targets that it has imported. Raises: WorkerError."""
        self._send([(item.call.target, item.call.options, item.arguments, item.size) for item in items])

    def load(self, target: str) -> None:
        """Have it import a target, in `loaded` afterwards unless it cannot. Raises: WorkerError."""
        self._send([(target, b"", None, None)])
        if [*self.read(LOAD_DEADLINE_S)] == [[]]:
            self.loaded.add(target)

    def _send(self, work: list[tuple[Any, ...]]) -> None:
        try:
            self._socket.sendall(pickle.dumps(work))
        except OSError as error:
            raise WorkerError(f"it takes no work: {error}") from error

    def read(self, deadline_s: float) -> Iterator[list[TermScore]]:
        """Wait for its next replies, at least one: the scores of an item each.

        Raises: WorkerTimeoutError when none is complete within `deadline_s`; WorkerMemoryError; WorkerError.
        """
        end = time.monotonic() + deadline_s
        lines: list[bytes] = []
        while not lines:
            left = end - time.monotonic()
            ready = [fd for fd, _ in self._poll.poll(1000 * min(max(left, 0.0), 3600.0))]
            if self._socket.fileno() in ready:
                received = b""
                with contextlib.suppress(ConnectionError):  # it ended with work that it had not read
                    received = self._socket.recv(READ_BYTES)
                *lines, self._partial = (self._partial + received).split(b"\n")
                if not received or len(self._partial) > MAX_REPLY_BYTES:
                    raise WorkerError("it is gone, or its reply does not end")
            elif ready:
                raise WorkerError("its owner is closed")
            if left <= 0.0 and not lines:
                raise WorkerTimeoutError(f"no reply within {deadline_s:g} s")
        return map(_parsed, lines)


def _parsed(line: bytes) -> list[TermScore]:
    try:
        reply = json.loads(line)
        if reply is None:
            raise WorkerMemoryError("out of memory")
        return [TermScore(*fields) for fields in reply]
    except (TypeError, ValueError, RecursionError) as error:
        raise WorkerError("it sends what is no reply") from error
