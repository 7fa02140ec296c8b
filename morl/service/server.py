"""`morl serve`: binds the port, starts the rewards, serves HTTP and shuts down."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType
from typing import TYPE_CHECKING

from morl.cluster import Cluster
from morl.errors import MissingExtraError, RunError, UsageError
from morl.recipe import Recipe, go_offline

if TYPE_CHECKING:
    import uvicorn
    from starlette.types import ASGIApp

    from morl.service.deploy import Deployments
    from morl.service.limits import Limits

logger = logging.getLogger(__name__)

TOKEN_ENV = "MORL_TOKEN"  # noqa: S105  # the name of a variable
KEEP_ALIVE_S = 75
"""Longer than clients keep idle connections, so that none is closed during a request."""
BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Address:
    """The address at which the service listens."""

    host: str
    port: int
    """0 picks a free port."""

    def __str__(self) -> str:
        return f"http://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def serve(
    recipe: Recipe,
    address: Address,
    limits: Limits,
    *,
    token_env: str | None = None,
    replicas: tuple[int, int] = (1, 4),
) -> signal.Signals:
    """Serve the rewards of a recipe until a signal arrives; then answer pending requests and stop.

    Args:
        token_env: name of the environment variable with the clients' bearer token; `MORL_TOKEN` if None, which may
            be unset when only this machine can connect.
        replicas: minimum and maximum per reward.

    Returns: the signal.
    Raises: UsageError when the address is unavailable or needs a token; RunError when a reward cannot be started.
    """
    token = read_token(address.host, token_env)
    # Otherwise a thread of Ray Serve that outlives the service starts a new cluster while the process exits.
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    try:
        import ray.serve  # noqa: F401

        from morl.service.app import make_app
        from morl.service.deploy import Deployments
        from morl.service.prometheus import Metrics
        from morl.service.router import Router
    except ImportError as error:
        raise MissingExtraError(error.name or "ray[serve]", "serve", "morl serve") from error
    go_offline(recipe)
    metrics = Metrics(recipe.objectives)
    router = Router(recipe, limits, metrics)
    with _Signals() as signals, _listening(address) as (listener, bound), Cluster(recipe.cluster, local=False):
        # Named by its address, so that a restarted service takes over the replicas of a killed one.
        name = f"morl-{recipe.run.name}-{socket.gethostname()}-{bound.port}"
        deployments = Deployments(recipe, router.rewards, replicas, name)
        app = make_app(router, limits, metrics, token=token, ready=lambda: deployments.ready)
        try:
            router.backends.update(deployments.start())
            asyncio.run(_run(_server(app, limits), listener, signals, deployments, recipe, bound))
        finally:
            signals.listener = lambda: None  # already stopping
            deployments.stop()
    return signals.first or signal.SIGTERM


async def _run(
    server: uvicorn.Server,
    listener: socket.socket,
    signals: _Signals,
    deployments: Deployments,
    recipe: Recipe,
    address: Address,
) -> None:
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()

    def on_signal() -> None:
        server.force_exit = stopping.is_set()
        stopping.set()

    signals.listener = lambda: loop.call_soon_threadsafe(on_signal)
    stop = asyncio.create_task(stopping.wait())
    # It serves at once, and answers "not ready" until it is.
    serving = asyncio.create_task(server.serve([listener]))
    starting = asyncio.create_task(deployments.until_ready(recipe.cluster.start_timeout_s))
    watching = None
    try:
        await asyncio.wait({stop, serving, starting}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done() and not stopping.is_set():
            starting.result()
            watching = asyncio.create_task(deployments.watch())
            print(f"serving {', '.join(recipe.objectives)} at {address}", flush=True)  # noqa: T201
            await asyncio.wait({stop, serving}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
            raise RunError("the HTTP server ended")
    finally:
        server.should_exit = True
        await asyncio.wait({serving})
        for task in (stop, starting, watching):
            if task is not None:
                task.cancel()


def _server(app: ASGIApp, limits: Limits) -> uvicorn.Server:
    import uvicorn

    class Server(uvicorn.Server):
        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            """`_Signals` handles them."""
            yield

    config = uvicorn.Config(
        app,
        lifespan="off",
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(limits.timeout_s)),
    )
    return Server(config)


class _Signals:
    """Handlers of SIGINT and SIGTERM for the whole life of the service."""

    def __init__(self) -> None:
        self.first: signal.Signals | None = None
        """The signal that stopped the service."""
        self.listener: Callable[[], object] | None = None
        """Called for each signal; while it is None, a signal aborts the start."""

    def __enter__(self) -> _Signals:
        self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.first = self.first or signal.Signals(number)
        if self.listener is not None:
            self.listener()
        elif number == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            raise SystemExit(0)


@contextlib.contextmanager
def _listening(address: Address) -> Iterator[tuple[socket.socket, Address]]:
    """The listening socket and its address, before anything else starts. Raises: UsageError when it cannot listen."""
    family, kind, protocol, _, endpoint = _resolved(address.host, address.port)[0]
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(endpoint)
            listener.listen(BACKLOG)  # the port is ours only now
        except OSError as error:
            remedy = "--port N takes another port, --port 0 a free one"
            raise UsageError(f"cannot listen at {address}: {error.strerror}; {remedy}") from error
        yield listener, Address(address.host, listener.getsockname()[1])


def _resolved(
    host: str, port: int
) -> list[tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[object, ...]]]:
    try:
        return list(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE))
    except OSError as error:
        raise UsageError(f"--host {host}: no such address ({error.strerror})") from error


def to_replicas(text: str) -> tuple[int, int]:
    """`MIN:MAX`, or one number for both. Raises: UsageError."""
    match = re.fullmatch(r"([1-9]\d{0,4})(?::([1-9]\d{0,4}))?", text)
    minimum, maximum = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if minimum > maximum:
        raise UsageError(f"--replicas {text}: write MIN:MAX with 1 <= MIN <= MAX")
    return minimum, maximum


def read_token(host: str, token_env: str | None) -> str | None:
    """The clients' bearer token; None if none is needed.

    Raises: UsageError when other machines can connect and there is no token, or the named variable is not set.
    """
    name = token_env or TOKEN_ENV
    token = os.environ.get(name, "")
    if token:
        if not re.fullmatch(r"[\x21-\x7e]+", token):
            raise UsageError(
                f"the token in {name} must consist of ASCII letters, digits and punctuation, without spaces"
            )
        return token
    if token_env:
        raise UsageError(f"--token-env {name}: this environment variable is not set")
    local = all(ipaddress.ip_address(str(info[4][0])).is_loopback for info in _resolved(host, 0))
    if not local:
        raise UsageError(
            f"--host {host} can be reached from other machines: set a token, as in "
            f"`export {TOKEN_ENV}=$(openssl rand -hex 32)`, or listen at 127.0.0.1"
        )
    return None
