"""Rewards that misbehave in every way we know, for the tests of the pool."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

from morl.rewards.reward import Verdict

BATCHES: list[int] = []


def echo(response: str) -> float:
    return float(response)


def double(response: str, *, factor: float = 2.0) -> float:
    return float(response) * factor


def who(response: str) -> Verdict:
    return Verdict(1.0, "ok", str(os.getpid()))


def sleep(response: str) -> float:
    time.sleep(float(response))
    return 1.0


def behave(response: str) -> object:
    """Does what the response says; anything else is a number to return."""
    match response:
        case "hang":
            while True:
                pass
        case "hang in C":
            return 9 ** (9**9)
        case "hog":
            held = []
            while True:
                held.append(bytearray(16 << 20))
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            ctypes.string_at(0)
        case "exit":
            os._exit(3)
        case "sys.exit":
            sys.exit(3)
        case "raise":
            raise ValueError("as asked", Unprintable())
        case "interrupt":
            raise KeyboardInterrupt
        case "alarm":
            signal.alarm(1)
            return 0.5
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "none":
            return None
        case "nan":
            return float("nan")
        case "text":
            return "1.0"
        case "formula":
            return Unprintable()
        case "huge":
            return 10**400
        case "status":
            return Verdict(1.0, "splendid")  # type: ignore[arg-type]
        case "detail":
            return Verdict(1.0, "ok", "x" * 10**7)
        case "surrogate":
            return Verdict(1.0, "ok", "\ud800")
        case "print":
            print("noise\n" * 10_000)
            return 1.0
        case "babble":
            say(b"no reply\n")
        case "half a reply":
            say(b'[[0.5, "ok", "')
            os.kill(os.getpid(), signal.SIGKILL)
        case "wrong reply":
            say(b"[[0.5]]\n")
        case "empty reply":
            say(b"[]\n")
        case "endless reply":
            while True:
                say(b"[" * (1 << 16))
        case "drip":
            while True:
                say(b"[")
        case "close":
            os.closerange(3, 256)
        case "deaf":
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            while True:
                pass
        case "fork":
            os.fork()
            while True:
                time.sleep(1)
        case "child":
            subprocess.Popen(["sleep", "1000"])
            while True:
                time.sleep(1)
    return float(response)


def say(words: bytes) -> None:
    """Into the socket that goes to the owner of the worker."""
    for fd in range(3, 256):
        with contextlib.suppress(OSError):
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                os.write(fd, words)


def noted(response: str, meta: dict[str, str]) -> object:
    """As `behave`, once it has noted in the file that `meta` names that it was called."""
    with Path(meta["file"]).open("a") as file:
        file.write(f"{meta['item']}\n")
    return behave(response)


class Unprintable:
    """As a power tower is: printing it would never end."""

    def __str__(self) -> str:
        while True:
            pass

    __repr__ = __str__


def die_the_first_times(response: str, meta: dict[str, str]) -> float:
    """Dies `response` times in all, counting in the file that `meta` names."""
    counter = Path(meta["file"])
    with counter.open("a") as file:
        file.write("x")
    if len(counter.read_text()) <= int(response):
        os.kill(os.getpid(), signal.SIGKILL)
    return 1.0


async def later(response: str, *, seconds: float = 0.0) -> float:
    await asyncio.sleep(seconds)
    return float(response)


def together(response: list[str]) -> list[float]:
    return [float(item) for item in response]


def inline(response: str) -> float:
    """Runs on the event loop, in the process of its caller."""
    if response == "raise":
        raise RuntimeError("as asked")
    return float(response)
