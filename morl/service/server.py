"""`morl serve`: the life of the service, from the port that it takes to the last answer that it gives."""

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
"""An idle connection is kept for longer than clients keep theirs, so that none is closed under a request."""
BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Address:
    """Where the service listens, and nowhere else."""

    host: str
    port: int
    """0 takes a free one."""

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
    """Serve the rewards of a recipe until a signal comes; then answer what was asked, and end.

    Args:
        token_env: name of the environment variable with the token that clients must bear; without a
            name, `MORL_TOKEN`, which need not be set where only this machine can connect.
        replicas: fewest and most of each reward.

    Returns: the signal.
    Raises: UsageError when the address cannot be had or needs a token; RunError when a reward cannot be started.
    """
    token = read_token(address.host, token_env)
    # Else a thread of Ray Serve that outlives the service starts a cluster of its own while the process ends.
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
    with _Signals() as signals, _taken(address) as (listener, here), Cluster(recipe.cluster, local=False):
        # Known by where it listens: one that is started again there takes over what a killed one left.
        name = f"morl-{recipe.run.name}-{socket.gethostname()}-{here.port}"
        deployments = Deployments(recipe, router.rewards, replicas, name)
        app = make_app(router, limits, metrics, token=token, ready=lambda: deployments.ready)
        try:
            router.backends.update(deployments.start())
            asyncio.run(_run(_server(app, limits), listener, signals, deployments, recipe, here))
        finally:
            signals.listener = lambda: None  # it is ending
            deployments.stop()
    return signals.first or signal.SIGTERM


async def _run(
    server: uvicorn.Server,
    listener: socket.socket,
    signals: _Signals,
    deployments: Deployments,
    recipe: Recipe,
    here: Address,
) -> None:
    loop = asyncio.get_running_loop()
    asked = asyncio.Event()

    def told() -> None:
        server.force_exit = asked.is_set()
        asked.set()

    signals.listener = lambda: loop.call_soon_threadsafe(told)
    stop = asyncio.create_task(asked.wait())
    # It answers at once, if only that it is not ready.
    serving = asyncio.create_task(server.serve([listener]))
    starting = asyncio.create_task(deployments.until_ready(recipe.cluster.start_timeout_s))
    watching = None
    try:
        await asyncio.wait({stop, serving, starting}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done() and not asked.is_set():
            starting.result()
            watching = asyncio.create_task(deployments.watch())
            print(f"serving {', '.join(recipe.objectives)} at {here}", flush=True)  # noqa: T201
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
            """Signals are handled here already."""
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
    """SIGINT and SIGTERM, from the first second to the last."""

    def __init__(self) -> None:
        self.first: signal.Signals | None = None
        """The one that ended the service."""
        self.listener: Callable[[], object] | None = None
        """Is told of each; while there is none, a signal ends the start of the service."""

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
def _taken(address: Address) -> Iterator[tuple[socket.socket, Address]]:
    """The listening socket, before anything else is started. Raises: UsageError when it cannot be had."""
    family, kind, protocol, _, where = _resolved(address.host, address.port)[0]
    with socket.socket(family, kind, protocol) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(where)
            listener.listen(BACKLOG)  # only now nobody else can have it
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
    found = re.fullmatch(r"([1-9]\d{0,4})(?::([1-9]\d{0,4}))?", text)
    fewest, most = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
    if fewest > most:
        raise UsageError(f"--replicas {text}: write MIN:MAX, two numbers above 0 of which MIN is not the larger")
    return fewest, most


def read_token(host: str, token_env: str | None) -> str | None:
    """The token that clients must bear; None where none is needed.

    Raises: UsageError when there is none although others can connect, or the variable is named and not set.
    """
    name = token_env or TOKEN_ENV
    token = os.environ.get(name, "")
    if token:
        if not re.fullmatch(r"[\x21-\x7e]+", token):
            raise UsageError(f"the token in {name} must be of ASCII letters, digits and signs, without spaces")
        return token
    if token_env:
        raise UsageError(f"--token-env {name}: this environment variable is not set")
    local = all(ipaddress.ip_address(str(found[4][0])).is_loopback for found in _resolved(host, 0))
    if not local:
        raise UsageError(
            f"--host {host} can be reached from other machines, and anybody there could ask: set a token, as in "
            f"`export {TOKEN_ENV}=$(openssl rand -hex 32)`, or listen at 127.0.0.1"
        )
    return None
