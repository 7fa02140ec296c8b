"""What stands before the application: who may ask, and how much.

It reads each body itself, so that nothing is parsed of a stranger's request or of one that is too
large, whether its length was announced or it comes in chunks.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from morl.service.limits import Limits
from morl.service.prometheus import Metrics
from morl.service.refusal import Refusal, error_response

LINGER_S = 2.0
"""For how long a refused body is still taken in: a client that writes does not read the refusal."""
OPEN_PATHS = ("/healthz",)
"""What needs no token: a probe has none."""


class Guard:
    """ASGI middleware.

    Args:
        token: that requests must bear; None to let everyone in who is no browser of another origin.
    """

    def __init__(self, app: ASGIApp, limits: Limits, token: str | None, metrics: Metrics) -> None:
        self._app = app
        self._limits = limits
        self._token = None if token is None else token.encode()
        self._metrics = metrics
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; uvicorn is told that there is nothing but HTTP."""
        start = time.perf_counter()
        statuses: list[int] = []

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
            await send(message)

        try:
            await self._serve(scope, receive, noted)
        finally:
            # A client that went away before its answer counts as 499, as web servers have it.
            self._metrics.answered(scope["path"], statuses[0] if statuses else 499, time.perf_counter() - start)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        body = bytearray()
        try:
            try:
                self._admit(scope, headers)
                await self._read(receive, body)
            except Refusal as refusal:
                if headers.get("expect", "").lower() != "100-continue":
                    await _swallow(receive)
                more = {**(refusal.headers or {}), "Connection": "close"}
                response = error_response(refusal.status_code, refusal.code, refusal.detail, headers=more)
                await response(scope, receive, send)
            except ConnectionAbortedError:
                pass  # nobody is there to be told anything
            else:
                await self._app(_as_json(scope), _replayed(bytes(body), receive), send)
        finally:
            self._held -= len(body)

    def _admit(self, scope: Scope, headers: Headers) -> None:
        """Raises: Refusal for what can be told before the body comes."""
        if scope["path"] not in OPEN_PATHS:
            if self._token is None:
                # A page that a browser on this machine shows could ask without its user's knowledge.
                if "origin" in headers:
                    raise Refusal(403, "forbidden", "requests of web pages need a token: start morl serve with one")
            else:
                self._authorise(headers)
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self._limits.request_bytes:
            raise self._too_large()

    def _authorise(self, headers: Headers) -> None:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        expected = self._token or b""
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), expected):
            refusal = Refusal(401, "unauthorized", "a bearer token is needed: 'Authorization: Bearer …'")
            wrong = ', error="invalid_token"' if given else ""
            refusal.headers = {"WWW-Authenticate": f'Bearer realm="morl"{wrong}'}
            raise refusal

    async def _read(self, receive: Receive, body: bytearray) -> None:
        """Raises: Refusal; ConnectionAbortedError when the client goes away."""
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                more = True
                while more:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise ConnectionAbortedError
                    chunk = message.get("body", b"")
                    if len(body) + len(chunk) > self._limits.request_bytes:
                        raise self._too_large()
                    if self._held + len(chunk) > self._limits.held_bytes:
                        raise Refusal(503, "overloaded", "too many large requests at once; ask again")
                    body += chunk
                    self._held += len(chunk)
                    more = message.get("more_body", False)
        except TimeoutError as error:
            message_ = f"the request did not arrive within {self._limits.timeout_s:g} s"
            raise Refusal(408, "request_timeout", message_) from error

    def _too_large(self) -> Refusal:
        limit = self._limits.request_bytes
        return Refusal(413, "request_too_large", f"a request has at most {limit} bytes: send fewer items at once")


async def _swallow(receive: Receive) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while (message := await receive())["type"] == "http.request" and message.get("more_body", False):
                pass


def _as_json(scope: Scope) -> Scope:
    """The request as one of JSON, whatever it calls itself: nothing else is understood here."""
    headers = [(name, value) for name, value in scope["headers"] if name != b"content-type"]
    return {**scope, "headers": [*headers, (b"content-type", b"application/json")]}


def _replayed(body: bytes, receive: Receive) -> Receive:
    messages: list[Mapping[str, object]] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return dict(messages.pop()) if messages else await receive()

    return again
