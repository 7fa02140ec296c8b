"""A pool of processes that call rewards and can be killed: no answer can hang or crash the trainer.

One thread owns the pool. It hands chunks of items to idle workers, which reply to each item, and
kills a worker whose first unanswered item is past its deadline. Only that item is charged; what
was answered before it counts, and the rest of its chunk goes back to the head of the queue. What
is scored does not depend on the number of workers, nor on the order or the neighbours of an item.

Between the event loop and this thread, and between this thread and the workers, everything goes in
bulk, because waking up another thread or process takes longer than many a reward.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import os
import pickle
import socket
import subprocess
import threading
import time
from collections.abc import Iterable, Mapping
from multiprocessing.connection import wait
from typing import Any, Self

from morl.errors import RunError
from morl.rewards.pool.worker_process import LOAD_DEADLINE_S, Call, Item, WorkerProcess
from morl.rewards.verdict import describe, failure
from morl.types import TermScore

logger = logging.getLogger(__name__)

MAX_DEATHS = 3
"""Workers that an item, the import of a reward, or the start of a worker may cost."""
CHUNK_S = 0.05
"""Work that is handed to a worker at once, at most, as far as it can be told."""
LEAST_S = 0.01
"""Work that is worth being handed out on its own."""
CHUNK_ITEMS = 1024
CHUNK_BYTES = 1 << 20
REST_S = 0.002
"""How long replies are left to gather while all workers have more to do."""


class Runner:
    """Calls rewards in worker processes.

    Workers start when they are needed and never outlive this process. Use it as a context manager,
    or call `close`.

    Args:
        workers: at most so many processes; None for the number of usable cores.
        memory_mb: by how much a call may make its worker grow (enforced on Linux).
        recycle_after: calls after which a worker is replaced, for rewards that leak.
    """

    def __init__(self, *, workers: int | None = None, memory_mb: int = 2048, recycle_after: int = 100_000) -> None:
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
        self._told: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], Any]]] = {}
        self._flowing = False
        """Whether there were replies when they were last looked for."""
        self._rung = False
        """Whether no bell is needed: it was rung, or all workers are busy, whose replies wake the thread as well."""
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
        score: TermScore = await self.submit(Call(target, pickle.dumps(dict(options)), deadline_s), arguments)
        return score

    def submit(self, call: Call, arguments: Mapping[str, Any], size: int | None = None) -> asyncio.Future[Any]:
        """As `run`, for a call that is made often; a future of the running event loop gets the score.

        Args:
            size: of the batch, for a batch reward: each argument is a list of so many, and so is the result.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            sent = pickle.dumps(arguments)
        except Exception as error:  # noqa: BLE001  # whatever pickling runs into
            refused = failure("error", f"the arguments cannot be sent to a worker process: {describe(error)}")
            future.set_result(refused if size is None else [refused] * size)
            return future
        self._inbox.append(Item(call, sent, size, future))
        if not self._rung:
            try:
                self._ring()
            except RunError as error:
                future.set_exception(error)
        return future

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
        self._rung = True
        self._chime()

    def _chime(self) -> None:
        with contextlib.suppress(OSError):  # it is full of calls to wake up already, or closed
            self._bell.send(b"!")

    # From here on everything runs in the owning thread.

    def _own(self) -> None:
        try:
            while not self._closed:
                self._rung = False
                self._hand_out()
                self._deliver()
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
        self._rung = False  # who comes now is told by `_ring`
        for worker in self._pool:
            self._pending.extend(worker.items)
            worker.kill()
            self._dying.append(worker.process)
        self._pool.clear()
        for process in self._dying:
            process.wait()
        self._dying.clear()
        self._fail_all(error)
        self._deliver()

    def _fail_all(self, error: BaseException) -> None:
        while self._inbox or self._pending:
            item = (self._inbox or self._pending).popleft()
            if item.future is not None:
                self._tell(item.future, error)

    def _tell(self, future: asyncio.Future[Any], result: Any) -> None:
        self._told.setdefault(future.get_loop(), []).append((future, result))

    def _deliver(self) -> None:
        """Give every event loop what its futures are told."""
        for loop, told in self._told.items():
            with contextlib.suppress(RuntimeError):  # it is closed: nobody waits any more
                loop.call_soon_threadsafe(_settle, told)
        self._told = {}

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
        self._rung = len(self._pool) == self.workers and all(worker.items for worker in self._pool)

    def _chunk(self) -> list[Item]:
        """The next items for one worker: few when they are slow or the queue is short."""
        chunk: list[Item] = []
        share = max(1, len(self._pending) // (2 * self.workers))
        size, seconds = 0, 0.0
        while self._pending and len(chunk) < CHUNK_ITEMS and (len(chunk) < share or seconds < LEAST_S):
            item = self._pending[0]
            size += len(item.arguments or b"")
            seconds += self._seconds.get(item.call.target, CHUNK_S / 4)
            if chunk and (size > CHUNK_BYTES or seconds > CHUNK_S):
                break
            self._pending.popleft()
            target = item.call.target
            if self._bad_loads[target] >= MAX_DEATHS:
                self._finish(item, failure("error", f"importing '{target}' kills or hangs the worker process"))
            elif item.is_wanted:
                chunk.append(item)
        return chunk

    def _give(self, worker: WorkerProcess, items: list[Item]) -> None:
        try:
            worker.give(items)
        except OSError:
            # Whether it was dead before or died of reading them, the first is as suspect as ever.
            self._bury(worker)

    def _listen(self) -> None:
        """Wait until there are replies, work comes, or a deadline passes; take in the replies."""
        if self._flowing and self._rung:
            time.sleep(REST_S)
        soonest = min((worker.expires for worker in self._pool), default=float("inf"))
        soonest = min(soonest, time.monotonic() + 1.0) if self._dying else soonest
        timeout = None if soonest == float("inf") else max(0.0, soonest - time.monotonic())
        by_fd = {worker.replies.fileno(): worker for worker in self._pool}
        ready = set(wait([self._alarm, *by_fd], timeout))
        if self._alarm in ready:
            with contextlib.suppress(BlockingIOError):
                self._alarm.recv(4096)
        replied = [worker for fd, worker in by_fd.items() if fd in ready]
        for worker in replied:
            self._read(worker)
        self._flowing = bool(replied)
        self._dying = [process for process in self._dying if process.poll() is None]

    def _read(self, worker: WorkerProcess) -> None:
        try:
            for reply in worker.read():
                if isinstance(reply, dict):
                    self._heed(worker, reply)
                elif not worker.items or not (reply or worker.items[0].arguments is None):
                    raise ValueError("not the reply that was asked for")
                else:
                    worker.done += 1
                    self._finish(worker.items.popleft(), *reply)
        except (OSError, EOFError, ValueError):
            if worker in self._pool:
                self._bury(worker)
            return
        if worker.done >= self._recycle_after and not worker.items and worker in self._pool:
            self._remove(worker)

    def _heed(self, worker: WorkerProcess, message: dict[str, Any]) -> None:
        if "ready" in message:
            worker.ready = True
            self._bad_starts = 0
            calls = [Call(name, b"", LOAD_DEADLINE_S) for name in self._preload if self._bad_loads[name] < MAX_DEATHS]
            if calls:
                worker.give(Item(call, None, None, None) for call in calls)
        elif "loaded" in message:
            worker.loaded.add(message["loaded"])
            del self._bad_loads[message["loaded"]]
        elif "out_of_memory" in message:
            self._starve(worker)

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
            before = self._seconds.get(item.call.target, score.seconds)
            self._seconds[item.call.target] = 0.8 * before + 0.2 * score.seconds
        if item.future is None:
            return
        if item.size is None:
            self._tell(item.future, scores[0])
        else:
            # A target that cannot be imported answers once for all of a batch.
            self._tell(item.future, list(scores) if len(scores) == item.size else list(scores[:1]) * item.size)

    def _enforce(self) -> None:
        now = time.monotonic()
        for worker in [w for w in self._pool if w.expires <= now]:
            if not worker.ready or worker.loading:
                self._bury(worker)
                continue
            item = worker.items.popleft()
            over = f"took longer than {item.call.deadline_s:g} s"
            logger.info("%s %s: its worker is killed", item.call.target, over)
            self._finish(item, failure("timeout", over, item.call.deadline_s))
            self._remove(worker)

    def _remove(self, worker: WorkerProcess) -> None:
        """Kill a worker and take back what it has not scored."""
        self._pool.remove(worker)
        self._pending.extendleft(item for item in reversed(worker.items) if item.is_wanted)
        worker.kill()
        self._dying.append(worker.process)

    def _bury(self, worker: WorkerProcess) -> None:
        """A worker died, or hung where no item is to blame: charge what it was doing."""
        if worker.loading:
            self._bad_loads[worker.loading] += 1
        elif worker.items:
            item = worker.items[0]
            item.deaths += 1
            if item.deaths >= MAX_DEATHS:
                worker.items.popleft()
                self._finish(item, failure("error", f"{item.deaths} worker processes died of it"))
        self._remove(worker)
        if not worker.ready:
            self._fail_start(f"exit code {worker.process.wait()}")

    def _fail_start(self, reason: str) -> None:
        self._bad_starts += 1
        if self._bad_starts >= MAX_DEATHS:
            self._bad_starts = self._wanted = 0
            message = f"reward workers cannot start ({reason}); what they said is on the standard error output"
            self._fail_all(RunError(message))


def _settle(told: list[tuple[asyncio.Future[Any], Any]]) -> None:
    """Runs in the event loop of the futures."""
    for future, result in told:
        if future.done():
            continue
        if isinstance(result, BaseException):
            future.set_exception(result)
        else:
            future.set_result(result)


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


__all__ = ["LOAD_DEADLINE_S", "MAX_DEATHS", "Call", "Runner", "usable_cores"]
