"""A pool of processes that call rewards and can be killed: no answer can hang or crash the trainer.

One thread owns the pool. It hands chunks of items to idle workers, reads one reply an item, and
kills a worker whose first unanswered item is past its deadline. Only that item is charged; the
rest of its chunk goes back to the head of the queue. What is scored does not depend on the number
of workers, nor on the order or the neighbours of an item.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import logging
import os
import pickle
import socket
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from multiprocessing.connection import wait
from typing import Any, Self

from morl.errors import RunError
from morl.rewards.process import LOAD_DEADLINE_S, Item, WorkerProcess
from morl.rewards.verdict import describe, failure
from morl.types import TermScore

logger = logging.getLogger(__name__)

MAX_DEATHS = 3
"""Workers that an item, the import of a reward, or the start of a worker may cost."""
CHUNK_S = 0.05
"""Work that is handed to a worker at once, as far as it can be told."""
CHUNK_ITEMS = 64
CHUNK_BYTES = 1 << 20


class Runner:
    """Calls rewards in worker processes.

    Workers start when they are needed and never outlive this process. Use it as a context manager,
    or call `close`.

    Args:
        workers: at most so many processes; None for the number of usable cores.
        memory_mb: by how much a call may make its worker grow (enforced on Linux).
        recycle_after: calls after which a worker is replaced, for rewards that leak.
    """

    def __init__(self, *, workers: int | None = None, memory_mb: int = 2048, recycle_after: int = 5000) -> None:
        self.workers = workers or usable_cores()
        self._memory_mb = memory_mb
        self._recycle_after = recycle_after
        self._inbox: collections.deque[Item] = collections.deque()
        self._pending: collections.deque[Item] = collections.deque()
        self._pool: list[WorkerProcess] = []
        self._dying: list[subprocess.Popen[bytes]] = []
        self._preload: tuple[str, ...] = ()
        self._wanted = 0
        self._seconds: dict[str, float] = {}
        self._bad_loads: collections.Counter[str] = collections.Counter()
        self._bad_starts = 0
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = False
        self._alarm, self._bell = socket.socketpair()
        self._alarm.setblocking(False)
        self._bell.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start(self, targets: Iterable[str] = ()) -> None:
        """Start all workers now and have them import these targets, instead of when work comes."""
        self._preload = tuple(targets)
        self._wanted = self.workers
        self._ring()

    async def run(
        self, target: str, arguments: Mapping[str, Any], options: Mapping[str, Any], deadline_s: float
    ) -> TermScore:
        """Call the function at `target` (`module:attribute`) in a worker.

        Args:
            arguments: those that its positional parameters name; they must be picklable.
            deadline_s: seconds of the call itself; waiting and importing do not count.

        Never raises for what the call does: a status says it. Raises: RunError when workers
        cannot start at all, or the runner is closed.
        """
        (score,) = await self.run_batch(target, arguments, options, deadline_s, 1)
        return score

    async def run_batch(
        self, target: str, arguments: Mapping[str, Any], options: Mapping[str, Any], deadline_s: float, size: int
    ) -> list[TermScore]:
        """As `run`, for a batch reward: each argument is a list of `size`, and so is the result."""
        return await asyncio.wrap_future(self.submit(target, arguments, options, deadline_s, size))

    def submit(
        self, target: str, arguments: Mapping[str, Any], options: Mapping[str, Any], deadline_s: float, size: int = 1
    ) -> Future[list[TermScore]]:
        """As `run_batch`, without an event loop."""
        try:
            payload = pickle.dumps((dict(arguments), dict(options), size))
        except Exception as error:  # noqa: BLE001  # whatever pickling runs into
            refused: Future[list[TermScore]] = Future()
            detail = f"the arguments cannot be sent to a worker process: {describe(error)}"
            refused.set_result([failure("error", detail)] * size)
            return refused
        item = Item(target, payload, deadline_s, size)
        self._inbox.append(item)
        self._ring()
        return item.future

    def close(self) -> None:
        """Kill the workers and wait until they are gone. What is not scored yet raises RunError."""
        with self._lock:
            self._closed = True
        self._chime()
        if self._thread is not None:
            self._thread.join()
        else:
            self._abandon(RunError("the runner is closed"))
        self._alarm.close()
        self._bell.close()

    def _ring(self) -> None:
        """Wake the owning thread, which is started by the first to need it."""
        with self._lock:
            if self._closed:
                raise RunError("the runner is closed")
            if self._thread is None:
                self._thread = threading.Thread(target=self._own, name="morl-rewards", daemon=True)
                self._thread.start()
        self._chime()

    def _chime(self) -> None:
        with contextlib.suppress(OSError):  # it is full of calls to wake up already, or closed
            self._bell.send(b"!")

    # From here on everything runs in the owning thread.

    def _own(self) -> None:
        try:
            while not self._closed:
                self._hand_out()
                self._listen()
                self._enforce()
            error: BaseException = RunError("the runner is closed")
        except BaseException as failed:
            logger.exception("the thread that runs rewards failed")
            error = RunError(f"the thread that runs rewards failed: {describe(failed)}")
            with self._lock:
                self._closed = True
        self._abandon(error)

    def _abandon(self, error: BaseException) -> None:
        for worker in self._pool:
            self._pending.extend(worker.items)
            worker.kill()
            self._dying.append(worker.process)
        self._pool.clear()
        for process in self._dying:
            process.wait()
        self._dying.clear()
        self._fail_all(error)

    def _fail_all(self, error: BaseException) -> None:
        while self._inbox or self._pending:
            item = (self._inbox or self._pending).popleft()
            if item.running or item.future.set_running_or_notify_cancel():
                item.future.set_exception(error)

    def _hand_out(self) -> None:
        while self._inbox:
            self._pending.append(self._inbox.popleft())
        for worker in [w for w in self._pool if w.ready and not w.items]:
            chunk = self._chunk()
            if chunk:
                self._give(worker, chunk)
        starting = sum(not worker.ready for worker in self._pool)
        wanted = max(self._wanted, min(self.workers, len(self._pool) - starting + len(self._pending)))
        while len(self._pool) < wanted:
            try:
                self._pool.append(WorkerProcess(self._memory_mb))
            except OSError as error:
                if self._pool:
                    logger.warning("no more than %d reward workers: %s", len(self._pool), error)
                    return
                self._fail_start(str(error))
                wanted = min(wanted, len(self._pending))

    def _chunk(self) -> list[Item]:
        """The next items for one worker: few when they are slow or the queue is short."""
        chunk: list[Item] = []
        most = min(CHUNK_ITEMS, max(1, len(self._pending) // (2 * self.workers)))
        size, seconds = 0, 0.0
        while self._pending and len(chunk) < most:
            item = self._pending[0]
            size += len(item.payload or b"")
            seconds += self._seconds.get(item.target, CHUNK_S / 4)
            if chunk and (size > CHUNK_BYTES or seconds > CHUNK_S):
                break
            self._pending.popleft()
            if not item.running and not item.future.set_running_or_notify_cancel():
                continue
            item.running = True
            if self._bad_loads[item.target] >= MAX_DEATHS:
                self._finish(item, failure("error", f"importing '{item.target}' kills or hangs the worker process"))
            else:
                chunk.append(item)
        return chunk

    def _give(self, worker: WorkerProcess, items: list[Item]) -> None:
        try:
            worker.give(items)
        except OSError:
            # Whether it was dead before or died of reading them, the first is as suspect as ever.
            self._bury(worker)

    def _listen(self) -> None:
        """Wait for replies until one comes, work comes, or a deadline passes."""
        soonest = min((worker.expires for worker in self._pool), default=float("inf"))
        soonest = min(soonest, time.monotonic() + 1.0) if self._dying else soonest
        timeout = None if soonest == float("inf") else max(0.0, soonest - time.monotonic())
        by_channel = {worker.channel: worker for worker in self._pool}
        for ready in wait([self._alarm, *by_channel], timeout):
            if ready is self._alarm:
                with contextlib.suppress(BlockingIOError):
                    self._alarm.recv(4096)
            else:
                self._read(by_channel[ready])  # type: ignore[index]
        self._dying = [process for process in self._dying if process.poll() is None]

    def _read(self, worker: WorkerProcess) -> None:
        try:
            # What one turn takes is bounded, so that no worker keeps the others waiting.
            for _ in range(CHUNK_ITEMS):
                self._take(worker, json.loads(worker.channel.recv_bytes()))
                if worker not in self._pool or not worker.channel.poll():
                    return
        except (OSError, EOFError, ValueError):
            self._bury(worker)

    def _take(self, worker: WorkerProcess, message: dict[str, Any]) -> None:
        worker.since = time.monotonic()
        if "ready" in message:
            worker.ready = True
            self._bad_starts = 0
            targets = [target for target in self._preload if self._bad_loads[target] < MAX_DEATHS]
            if targets:
                worker.give(Item(target, None, LOAD_DEADLINE_S, 0, running=True) for target in targets)
        elif "loaded" in message:
            worker.loaded.add(message["loaded"])
            del self._bad_loads[message["loaded"]]
        elif "out_of_memory" in message:
            self._starve(worker)
        else:
            item = worker.items.popleft()
            worker.done += 1
            scores = [TermScore(*fields) for fields in message["scores"]]
            # A target that cannot be imported answers once for all of a batch.
            self._finish(item, *(scores if len(scores) == item.size else scores[:1]))
            if worker.done >= self._recycle_after and not worker.items:
                self._remove(worker)

    def _starve(self, worker: WorkerProcess) -> None:
        item = worker.items[0]
        item.deaths += 1
        # In a worker that others used before, what they left behind may be to blame: try another one.
        if worker.done == 0 or item.deaths >= MAX_DEATHS:
            worker.items.popleft()
            self._finish(item, failure("error", f"out of memory: it needs more than {self._memory_mb} MB"))
        self._remove(worker)

    def _finish(self, item: Item, *scores: TermScore) -> None:
        for score in scores[:1]:
            before = self._seconds.get(item.target, score.seconds)
            self._seconds[item.target] = 0.8 * before + 0.2 * score.seconds
        item.future.set_result(list(scores) if len(scores) == item.size else list(scores[:1]) * item.size)

    def _enforce(self) -> None:
        now = time.monotonic()
        for worker in [w for w in self._pool if w.expires <= now]:
            if not worker.ready or worker.loading:
                self._bury(worker)
                continue
            item = worker.items.popleft()
            logger.info("%s took longer than %g s: its worker is killed", item.target, item.deadline_s)
            self._finish(item, failure("timeout", f"took longer than {item.deadline_s:g} s", item.deadline_s))
            self._remove(worker)

    def _remove(self, worker: WorkerProcess) -> None:
        """Kill a worker and take back what it has not scored."""
        self._pool.remove(worker)
        self._pending.extendleft(reversed([item for item in worker.items if item.payload is not None]))
        worker.kill()
        self._dying.append(worker.process)

    def _bury(self, worker: WorkerProcess) -> None:
        """A worker died, or hung where no item is to blame: charge what it was doing."""
        loading = worker.loading
        self._remove(worker)
        if not worker.ready:
            self._fail_start(f"exit code {worker.process.wait()}")
        elif loading:
            self._bad_loads[loading] += 1
        elif worker.items:
            item = worker.items[0]
            item.deaths += 1
            if item.deaths >= MAX_DEATHS:
                self._pending.remove(item)
                self._finish(item, failure("error", f"{item.deaths} worker processes died of it"))

    def _fail_start(self, reason: str) -> None:
        self._bad_starts += 1
        if self._bad_starts >= MAX_DEATHS:
            self._bad_starts = self._wanted = 0
            message = f"reward workers cannot start ({reason}); what they said is on the standard error output"
            self._fail_all(RunError(message))


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


__all__ = ["LOAD_DEADLINE_S", "MAX_DEATHS", "Runner", "usable_cores"]
