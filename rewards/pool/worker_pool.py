"""A pool of worker processes that call rewards and can be killed: no response can hang or crash the trainer.

Each worker process has a thread here, which sends it chunks of the queue, reads its replies, and kills it when its
first unanswered item is past the deadline. Only that item fails: earlier replies count, and the rest of the chunk
returns to the head of the queue. Scores do not depend on the number of workers, the order of items or their
neighbours.

The event loop, the threads and the workers exchange items in bulk, because waking a thread or process takes longer
than many rewards.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
import logging
import os
import pickle
import socket
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from typing import Any, Self

from morl.errors import RunError, UsageError
from morl.rewards.pool.worker_process import (
    Call,
    Item,
    WorkerError,
    WorkerMemoryError,
    WorkerProcess,
    WorkerTimeoutError,
)
from morl.rewards.verdict import describe, failure
from morl.types import TermScore

logger = logging.getLogger(__name__)

MAX_DEATHS = 3
"""Worker deaths after which an item, the import of a reward, or the start of a worker fails."""
CHUNK_S = 0.05
"""Most work in one chunk, as estimated from earlier calls."""
LEAST_S = 0.01
"""Least work in one chunk, while the queue has more."""
CHUNK_BYTES = 1 << 20
GATHER_S = 0.002
"""Least time between two reads of replies while a worker is busy."""
WAKEUPS_PER_S = 5000
"""Most reads of replies by the threads of all workers."""

Outcome = tuple[Item, list[TermScore] | RunError]


class WorkerPool:
    """Calls rewards in worker processes.

    Workers start on demand and never outlive this process. Use it as a context manager, or call `close`.

    Args:
        workers: most processes; None for the number of usable cores.
        memory_mb: by how much a call may grow its worker, in MB (enforced on Linux).
        recycle_after: calls after which a worker is replaced, for rewards that leak.
    """

    def __init__(self, *, workers: int | None = None, memory_mb: int = 2048, recycle_after: int = 100_000) -> None:
        if workers is not None and workers < 1:
            raise UsageError(f"workers: should be at least 1, not {workers}")
        self.workers = usable_cores() if workers is None else workers
        self._memory_mb = memory_mb
        self._recycle_after = recycle_after
        self._preload: tuple[str, ...] = ()
        self._queue: collections.deque[Item] = collections.deque()
        self._threads: list[threading.Thread] = []
        self._idle = 0
        """Threads waiting for work."""
        self._failed_loads: collections.Counter[str] = collections.Counter()
        self._seconds: dict[str, float] = {}
        """Moving average of the time of a call, by target."""
        self._error: RunError | None = None
        """The error for items without a score; set when the runner is closed."""
        self._changed = threading.Condition()
        """Guards the queue and the threads; notified when there is work for an idle thread."""
        self._interrupted, self._interrupt = socket.socketpair()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def start(self, targets: Iterable[str] = ()) -> None:
        """Start all workers now, and have them import these targets."""
        with self._changed:
            if self._error is not None:
                raise RunError("the runner is closed")
            self._preload = tuple(targets)
            while len(self._threads) < self.workers:
                self._start_thread()

    async def run(
        self, target: str, arguments: Mapping[str, Any], options: Mapping[str, Any], deadline_s: float
    ) -> TermScore:
        """Call the function at `target` (`module:attribute`) in a worker.

        Args:
            arguments: values of its positional parameters; they must be picklable.
            deadline_s: seconds for the call itself; waiting and importing do not count.

        An error in the call becomes a status. Raises: RunError when no worker can start or the runner is closed.
        """
        score: TermScore = await self.submit(Call(target, pickle.dumps(dict(options)), deadline_s), arguments)
        return score

    def submit(self, call: Call, arguments: Mapping[str, Any], size: int | None = None) -> asyncio.Future[Any]:
        """Like `run`, for frequent calls: returns a future of the running event loop.

        Args:
            size: for a batch reward, the number of items: the length of each argument and of the result.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            sent = pickle.dumps(arguments)
        except Exception as error:  # noqa: BLE001  # pickling may raise anything
            refused = failure("error", f"the arguments cannot be sent to a worker process: {describe(error)}")
            future.set_result(refused if size is None else [refused] * size)
            return future
        with self._changed:
            if self._error is not None:
                future.set_exception(RunError("the runner is closed"))
            else:
                self._queue.append(Item(call, sent, size, future))
                self._wake_thread()
        return future

    def close(self) -> None:
        """Kill the workers and wait until they have exited. Pending items raise RunError."""
        self._close(RunError("the runner is closed"))
        for thread in [*self._threads]:
            thread.join()
        self._interrupted.close()

    def _close(self, error: RunError) -> None:
        with self._changed:
            self._error = self._error or error
            self._interrupt.close()
            self._changed.notify_all()
            self._fail_queue(self._error)

    # The caller of the methods down to `_fail_queue` holds the lock.

    def _wake_thread(self) -> None:
        """Wake or start one more thread, unless all are busy."""
        if self._idle:
            self._changed.notify()
        elif len(self._threads) < self.workers:
            self._start_thread()

    def _start_thread(self) -> None:
        thread = threading.Thread(target=self._run_workers, name="morl-rewards", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _chunk(self) -> collections.deque[Item]:
        """The next items for one worker: few if they are slow or the queue is short."""
        chunk: collections.deque[Item] = collections.deque()
        share = max(1, len(self._queue) // (2 * self.workers))
        size, seconds = 0, 0.0
        while self._queue and (len(chunk) < share or seconds < LEAST_S):
            item = self._queue[0]
            target = item.call.target
            size += len(item.arguments)
            seconds += self._seconds.get(target, CHUNK_S / 4)
            if chunk and (size > CHUNK_BYTES or seconds > CHUNK_S):
                break
            self._queue.popleft()
            if self._failed_loads[target] >= MAX_DEATHS:
                failed = failure("error", f"importing '{target}' kills or hangs the worker process")
                self._deliver([(item, [failed] * (item.size or 1))])
            elif not item.future.done():  # not cancelled
                chunk.append(item)
        return chunk

    def _fail_queue(self, error: RunError) -> None:
        self._deliver([(item, error) for item in self._queue])
        self._queue.clear()

    # The methods below run in the threads, one per worker.

    def _run_workers(self) -> None:
        """Run one worker after another, until the runner is closed or workers do not start."""
        failed_starts = 0
        try:
            while self._error is None:
                try:
                    worker = WorkerProcess(self._memory_mb, self._interrupted)
                except OSError as error:
                    failed_starts += 1
                    if failed_starts == MAX_DEATHS:
                        return self._give_up(error)
                else:
                    failed_starts = 0
                    with closing(worker), suppress(WorkerError):  # already charged to an item or a target
                        self._feed(worker)
        except BaseException as failed:
            logger.exception("a thread that runs rewards failed")
            self._close(RunError(f"a thread that runs rewards failed: {describe(failed)}"))

    def _give_up(self, reason: OSError) -> None:
        """End this thread; the last one fails the queue."""
        with self._changed:
            self._threads.remove(threading.current_thread())
            message = f"reward workers cannot start ({reason}); their output is on standard error"
            if self._threads:
                logger.warning("%s; %d threads go on", message, len(self._threads))
            else:
                self._fail_queue(RunError(message))

    def _feed(self, worker: WorkerProcess) -> None:
        """Send a worker items until it must be replaced. Raises: WorkerError."""
        self._load(worker, {target for target in self._preload if self._failed_loads[target] < MAX_DEATHS})
        while worker.done < self._recycle_after and (items := self._take()):
            try:
                if not worker.is_idle:
                    return
                self._load(worker, {item.call.target for item in items})
                self._score(worker, items)
            finally:
                self._put_back(items)

    def _load(self, worker: WorkerProcess, targets: set[str]) -> None:
        for target in targets - worker.loaded:
            try:
                worker.load(target)
            except WorkerError:
                self._failed_loads[target] += 1
                raise
            del self._failed_loads[target]

    def _take(self) -> collections.deque[Item]:
        """Wait for the next items; empty when the runner is closed."""
        with self._changed:
            while not (chunk := self._chunk()) and self._error is None:
                self._idle += 1
                self._changed.wait()
                self._idle -= 1
            if self._queue:
                self._wake_thread()
            return chunk

    def _put_back(self, items: collections.deque[Item]) -> None:
        """Return unscored items to the head of the queue."""
        with self._changed:
            self._queue.extendleft(reversed(items))
            if self._error is not None:
                self._fail_queue(self._error)
            elif items:
                self._wake_thread()

    def _score(self, worker: WorkerProcess, items: collections.deque[Item]) -> None:
        """Have a worker score items; scored ones are removed from `items`. Raises: WorkerError."""
        outcomes: list[Outcome] = []
        try:
            worker.send(items)
            while items:
                for scores in worker.read(items[0].call.deadline_s):
                    if not items or len(scores) != (items[0].size or 1):
                        raise WorkerError("it sent a reply that matches no item")
                    outcomes.append((items.popleft(), scores))
                    worker.done += 1
                self._deliver(outcomes)
                outcomes = []
                if items:
                    time.sleep(max(GATHER_S, self.workers / WAKEUPS_PER_S))
        except WorkerError as error:
            if items and (score := self._charge(items[0], error, worker)):
                item = items.popleft()
                outcomes.append((item, [score] * (item.size or 1)))
            self._deliver(outcomes)
            raise

    def _charge(self, item: Item, error: WorkerError, worker: WorkerProcess) -> TermScore | None:
        """The score of an item whose worker failed; None to retry it in another worker."""
        item.deaths += 1
        if isinstance(error, WorkerTimeoutError):
            late = f"took longer than {item.call.deadline_s:g} s"
            logger.info("%s %s: killing its worker", item.call.target, late)
            return failure("timeout", late, item.call.deadline_s)
        if isinstance(error, WorkerMemoryError):
            # In a used worker, memory left by earlier items may be the cause.
            if worker.done == 0 or item.deaths >= MAX_DEATHS:
                return failure("error", f"out of memory: it needs more than {self._memory_mb} MB")
        elif item.deaths >= MAX_DEATHS:
            return failure("error", f"{item.deaths} worker processes died of it")
        return None

    def _deliver(self, outcomes: Sequence[Outcome]) -> None:
        """Set the futures in their event loops."""
        for item, outcome in outcomes:
            if not isinstance(outcome, RunError):
                target, seconds = item.call.target, outcome[0].seconds
                self._seconds[target] = 0.8 * self._seconds.get(target, seconds) + 0.2 * seconds
        for loop, group in itertools.groupby(outcomes, lambda outcome: outcome[0].future.get_loop()):
            with suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_settle, list(group))


def _settle(outcomes: Sequence[Outcome]) -> None:
    """Set the futures; runs in their event loop."""
    for item, outcome in outcomes:
        if item.future.done():
            continue
        if isinstance(outcome, RunError):
            item.future.set_exception(outcome)
        else:
            item.future.set_result(outcome[0] if item.size is None else outcome)


def usable_cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


__all__ = ["Call", "WorkerPool", "usable_cores"]
