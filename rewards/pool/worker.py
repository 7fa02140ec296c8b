"""The process that calls rewards. It is expendable: its owner kills it whenever it misbehaves.

From its owner it receives chunks through a socket, one after another: pickled lists of `(target, options, arguments,
size)`, options and arguments being pickles themselves; arguments are None to only load the target,
size is None unless it is a batch. It answers each item at once, through a pipe, with a line of
JSON, so that nothing that ran beside model output is ever unpickled:

    {"ready": true}                       once, when it can be given work
    {"loaded": target}                    before the first item of a target is called
    [[value, status, detail, seconds]…]   one line an item; a batch has several scores
    {"out_of_memory": detail}             instead of scores; it exits afterwards
"""

from __future__ import annotations

import ctypes
import json
import os
import pickle
import resource
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from morl.errors import UsageError
from morl.registry import Entry, call_by_name
from morl.rewards.reward_input import ARGUMENTS, RewardInput
from morl.rewards.verdict import describe, failure, to_term_score
from morl.traits import traits_of
from morl.types import Status, TermScore

_PR_SET_PDEATHSIG = 1


def main(work_fd: int, replies_fd: int, parent: int, memory_mb: int) -> None:
    """Serve until the owner closes the socket or dies."""
    # The owner decides when it ends: Ctrl-C and a scheduler's SIGTERM go to whole process groups.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _die_with(parent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stdout = sys.stderr  # what a reward prints is a message, and is seen at once
    try:
        with os.fdopen(work_fd, "rb") as work:
            _Server(work, replies_fd, memory_mb).serve()
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the owner is gone, or does not want this worker any more
    finally:
        # Whatever threads and exit hooks the rewards left behind do not keep the process alive.
        sys.stderr.flush()
        os._exit(0)


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its owner dies, even in the middle of a computation."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before that took effect
        os._exit(0)


class _Server:
    def __init__(self, work: BinaryIO, replies_fd: int, memory_mb: int) -> None:
        self._work = work
        self._replies_fd = replies_fd
        self._memory_mb = memory_mb
        self._functions: dict[str, Callable[..., Any]] = {}

    def serve(self) -> None:
        self._say(json.dumps({"ready": True}))
        while True:
            for target, options, arguments, size in pickle.load(self._work):  # noqa: S301  # from its owner
                try:
                    scores = self._answer(target, options, arguments, size)
                except MemoryError as error:
                    _limit_memory(None)
                    self._say(json.dumps({"out_of_memory": describe(error)}))
                    return
                self._say(f"[{','.join(map(_as_json, scores))}]")

    def _say(self, message: str) -> None:
        line = f"{message}\n".encode()
        while line:
            line = line[os.write(self._replies_fd, line) :]

    def _answer(self, target: str, options: bytes, arguments: bytes | None, size: int | None) -> Sequence[TermScore]:
        try:
            function = self._function(target)
        except UsageError as error:
            return [failure("error", str(error))]
        if arguments is None:
            return []
        try:
            given, chosen = pickle.loads(arguments), pickle.loads(options)  # noqa: S301  # from its owner
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever unpickling runs into
            return [failure("error", f"the arguments cannot be read in a worker process: {describe(error)}")]
        try:
            return call(function, given, chosen, size or 1)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)  # an alarm left behind would hit the next item

    def _function(self, target: str) -> Callable[..., Any]:
        if target not in self._functions:
            # Imports are the program's, not the answer's: they count neither as memory nor as time.
            _limit_memory(None)
            function = Entry("reward", target.partition(":")[2], target, target).load()
            _warm(function)
            self._functions[target] = function
            _limit_memory(self._memory_mb)
            self._say(json.dumps({"loaded": target}))
        return self._functions[target]


def _as_json(score: TermScore) -> str:
    # As `json.dumps` of the list, which takes five times as long.
    value = "null" if score.value is None else repr(score.value)
    return f'[{value},"{score.status}",{json.dumps(score.detail)},{score.seconds}]'


def call(
    function: Callable[..., Any], arguments: Mapping[str, Any], options: Mapping[str, Any], size: int
) -> list[TermScore]:
    """Call a plain reward once and judge what it returns: `size` scores for a batch, else one.

    Raises: MemoryError and KeyboardInterrupt, nothing else.
    """
    start = time.perf_counter()
    try:
        returned = call_by_name(function, arguments, options)
        return to_term_scores(function, returned, size, time.perf_counter() - start)
    except (MemoryError, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001  # also SystemExit, and timeouts that are no Exception
        status: Status = "timeout" if "Timeout" in type(error).__name__ else "error"
        return [failure(status, describe(error), time.perf_counter() - start)] * size


def to_term_scores(function: Callable[..., Any], returned: Any, size: int, seconds: float) -> list[TermScore]:
    """One score an item, from what a plain or a batch reward returned for `size` items."""
    if not traits_of(function).batch:
        return [to_term_score(returned, seconds)]
    if not isinstance(returned, Sequence) or len(returned) != size:
        count = f"{len(returned)} values" if isinstance(returned, Sequence) else type(returned).__name__
        return [failure("error", f"a batch of {size} returned {count}", seconds)] * size
    return [to_term_score(item, seconds / size) for item in returned]


def _warm(function: Callable[..., Any]) -> None:
    """Call a reward once on its own example, so that its lazy imports do not fall to the first answer."""
    for example in traits_of(function).examples[:1]:
        arguments = RewardInput.of_example(example).arguments(ARGUMENTS)
        if traits_of(function).batch:
            arguments = {name: [value] for name, value in arguments.items()}
        # Whether the example holds is for `morl check` to say.
        call(function, arguments, dict(example.options), 1)


def _limit_memory(more_mb: int | None) -> None:
    """Let the process grow by so much and no more; None lifts the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = hard
    if more_mb is not None and sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        soft = pages * resource.getpagesize() + more_mb * 1024**2
        soft = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
