"""The owner's side of a worker process: start it, send it work, read its replies, kill it."""

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
"""Time for a worker to start, or to import a reward."""
SEND_DEADLINE_S = 10
"""Time to send a message: a stopped worker must not block its owner."""
READ_BYTES = 1 << 18
MAX_REPLY_BYTES = 1 << 24

_BOOT = "import sys; sys.path[:] = {path!r}; from morl.rewards.pool.worker import main; main{arguments!r}"
# A worker uses one core, and buffers of threads would count as its memory. A fixed hash seed gives sets, and so
# formulas, the same order in every worker.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}


class WorkerError(Exception):
    """The worker exited, does not read, or sent an invalid reply: replace it."""


class WorkerTimeoutError(WorkerError):
    """The worker did not reply in time."""


class WorkerMemoryError(WorkerError):
    """The worker reached its memory limit."""


@dataclass(frozen=True, slots=True)
class Call:
    """A function and its options, shared by many items."""

    target: str
    """`module:attribute` of the function."""
    options: bytes
    """Pickled, once for all items."""
    deadline_s: float


@dataclass(slots=True, eq=False)
class Item:
    """One requested call."""

    call: Call
    arguments: bytes
    """Pickled."""
    size: int | None
    """Number of responses in a batch; None for a plain call."""
    future: asyncio.Future[Any]
    """Receives one score, or a list of them for a batch. Only its event loop may set it."""
    deaths: int = 0
    """Workers that failed on it."""


class WorkerProcess:
    """A process that runs `morl.rewards.pool.worker`, ready for work once constructed.

    Its socket buffers many replies: they can be read together, and survive the worker's death.

    Args:
        memory_mb: by how much a call may grow it, in MB.
        interrupt: ends every `read` once it is readable.

    Raises: OSError when the process does not start.
    """

    def __init__(self, memory_mb: int, interrupt: socket.socket) -> None:
        self.loaded: set[str] = set()
        """Imported targets."""
        self.done = 0
        """Number of scored items."""
        self._partial = b""
        """An incomplete reply."""
        self._socket, socket_of_worker = socket.socketpair()
        # Not `settimeout`, with which Python releases its lock twice as often.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", SEND_DEADLINE_S, 0))
        self._poll = select.poll()
        self._poll.register(self._socket, select.POLLIN)
        self._poll.register(interrupt, select.POLLIN)
        fd = socket_of_worker.fileno()
        with socket_of_worker, contextlib.ExitStack() as on_failure:
            on_failure.enter_context(self._socket)
            # Not multiprocessing, which would run the user's script again in every worker.
            self._process = subprocess.Popen(
                [sys.executable, "-c", _BOOT.format(path=sys.path, arguments=(fd, os.getpid(), memory_mb))],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what a reward prints is not output of the program
                pass_fds=[fd],
                start_new_session=True,  # its children are killed with it, and Ctrl-C does not reach it
                env={**os.environ, **_ENVIRONMENT},
            )
            on_failure.pop_all()
        try:
            self.read(LOAD_DEADLINE_S)
        except WorkerError as error:
            self.close()
            raise OSError(f"exit code {self._process.returncode}") from error

    def close(self) -> None:
        """Kill the worker and its children, and wait until it has exited."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._socket.close()

    @property
    def is_idle(self) -> bool:
        """Whether it waits for work: it has neither exited nor sent an unexpected reply."""
        return not self._poll.poll(0)

    def send(self, items: Iterable[Item]) -> None:
        """Send it items of imported targets. Raises: WorkerError."""
        self._send([(item.call.target, item.call.options, item.arguments, item.size) for item in items])

    def load(self, target: str) -> None:
        """Have it import a target; on success the target is in `loaded`. Raises: WorkerError."""
        self._send([(target, b"", None, None)])
        if [*self.read(LOAD_DEADLINE_S)] == [[]]:
            self.loaded.add(target)

    def _send(self, work: list[tuple[Any, ...]]) -> None:
        try:
            self._socket.sendall(pickle.dumps(work))
        except OSError as error:
            raise WorkerError(f"it does not read: {error}") from error

    def read(self, deadline_s: float) -> Iterator[list[TermScore]]:
        """Wait for at least one reply; each has the scores of one item.

        Raises: WorkerTimeoutError when none is complete within `deadline_s`; WorkerMemoryError; WorkerError.
        """
        end = time.monotonic() + deadline_s
        lines: list[bytes] = []
        while not lines:
            left = end - time.monotonic()
            ready = [fd for fd, _ in self._poll.poll(1000 * min(max(left, 0.0), 3600.0))]
            if self._socket.fileno() in ready:
                received = b""
                with contextlib.suppress(ConnectionError):  # it exited with unread work
                    received = self._socket.recv(READ_BYTES)
                *lines, self._partial = (self._partial + received).split(b"\n")
                if not received or len(self._partial) > MAX_REPLY_BYTES:
                    raise WorkerError("it exited, or its reply does not end")
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
        raise WorkerError("it sent an invalid reply") from error
