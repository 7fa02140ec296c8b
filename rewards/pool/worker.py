"""The process that calls rewards. It is expendable: its owner kills it when it misbehaves.

A socket connects the two. The owner sends chunks: pickled lists of `(target, options, arguments, size)`, in which
options and arguments are pickles. Arguments are None to import the target before its first call; size is None unless
the call is a batch. The worker answers each item at once with a line of JSON, so that its owner never unpickles
anything from a process that handles model output:

    [[value, status, detail, seconds]…]   the scores of a call: one, or one per item of a batch
    []                                    ready for work; the target is imported
    null                                  out of memory; the worker exits
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


def main(fd: int, parent: int, memory_mb: int) -> None:
    """Serve until the owner closes the socket or dies."""
    # The owner ends this process. Ctrl-C and a scheduler's SIGTERM go to whole process groups.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    _die_with(parent)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stdout = sys.stderr  # what a reward prints is a message, shown at once
    try:
        with os.fdopen(fd, "rb") as work, os.fdopen(fd, "wb", closefd=False) as replies:
            _serve(work, replies, memory_mb)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        pass  # the owner exited or closed the socket
    finally:
        # Exit although rewards may have left threads and exit hooks.
        sys.stderr.flush()
        os._exit(0)


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its owner dies, even in the middle of a computation."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # the owner died before prctl took effect
        os._exit(0)


def _serve(work: BinaryIO, replies: BinaryIO, memory_mb: int) -> None:
    functions: dict[str, Callable[..., Any] | TermScore] = {}

    def reply(scores: Sequence[TermScore] | None) -> None:
        fields = scores if scores is None else [(each.value, each.status, each.detail, each.seconds) for each in scores]
        replies.write(json.dumps(fields).encode() + b"\n")
        replies.flush()

    reply([])
    while True:
        for target, options, arguments, size in pickle.load(work):  # noqa: S301  # from its owner
            try:
                if arguments is None:
                    functions[target] = function = _load(target, memory_mb)
                    reply([function] if isinstance(function, TermScore) else [])
                else:
                    reply(_answer(functions[target], options, arguments, size or 1))
            except MemoryError:
                _limit_memory(None)
                return reply(None)


def _load(target: str, memory_mb: int) -> Callable[..., Any] | TermScore:
    """The function at `target`, or an error score."""
    # Imports count neither towards the memory nor the time of a response.
    _limit_memory(None)
    try:
        function = Entry("reward", target.partition(":")[2], target, target).load()
        _warm(function)
        return function
    except UsageError as error:
        return failure("error", str(error))
    finally:
        _limit_memory(memory_mb)


def _answer(
    function: Callable[..., Any] | TermScore, options: bytes, arguments: bytes, size: int
) -> Sequence[TermScore]:
    if isinstance(function, TermScore):
        return [function] * size
    try:
        values, chosen = pickle.loads(arguments), pickle.loads(options)  # noqa: S301  # from its owner
    except MemoryError:
        raise
    except Exception as error:  # noqa: BLE001  # unpickling may raise anything
        return [failure("error", f"the arguments cannot be read in a worker process: {describe(error)}")] * size
    try:
        return call(function, values, chosen, size)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)  # a reward's alarm must not hit the next item


def call(
    function: Callable[..., Any], arguments: Mapping[str, Any], options: Mapping[str, Any], size: int
) -> list[TermScore]:
    """Call a plain reward once. Returns `size` scores for a batch reward, else one.

    Raises: MemoryError and KeyboardInterrupt only.
    """
    start = time.perf_counter()
    try:
        returned = call_by_name(function, arguments, options)
        return to_term_scores(function, returned, size, time.perf_counter() - start)
    except (MemoryError, KeyboardInterrupt):
        raise
    except BaseException as error:  # noqa: BLE001  # also SystemExit, and timeouts outside Exception
        status: Status = "timeout" if "Timeout" in type(error).__name__ else "error"
        return [failure(status, describe(error), time.perf_counter() - start)] * size


def to_term_scores(function: Callable[..., Any], returned: Any, size: int, seconds: float) -> list[TermScore]:
    """One score per item, from the return value of a plain or batch reward for `size` items."""
    if not traits_of(function).batch:
        return [to_term_score(returned, seconds)]
    if not isinstance(returned, Sequence) or len(returned) != size:
        count = f"{len(returned)} values" if isinstance(returned, Sequence) else type(returned).__name__
        return [failure("error", f"a batch of {size} returned {count}", seconds)] * size
    return [to_term_score(item, seconds / size) for item in returned]


def _warm(function: Callable[..., Any]) -> None:
    """Call a reward on its first example, so that its lazy imports do not delay the first response."""
    for example in traits_of(function).examples[:1]:
        arguments = RewardInput.of_example(example).arguments(ARGUMENTS)
        if traits_of(function).batch:
            arguments = {name: [value] for name, value in arguments.items()}
        # `morl check` tests whether the example holds.
        call(function, arguments, dict(example.options), 1)


def _limit_memory(growth_mb: int | None) -> None:
    """Let the process grow by at most `growth_mb`; None lifts the limit."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = hard
    if growth_mb is not None and sys.platform == "linux":
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        soft = pages * resource.getpagesize() + growth_mb * 1024**2
        soft = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
