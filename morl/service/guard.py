"""What stands before the application: who may ask, and how much.

It reads each body itself, so that nothing is parsed of a stranger's request or of one that is too
large, whether its length was announced or it comes in chunks.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import time

from fastapi import Request
from fastapi.security import HTTPBearer
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from morl.service.limits import Limits
from morl.service.prometheus import Metrics
from morl.service.refusal import Refusal, error_response

BEARER = HTTPBearer(auto_error=False)
"""Reads the token here; the application's schema describes it."""
LINGER_S = 2.0
"""For how long a refused body is still taken in: a client that writes does not read the refusal."""
OPEN_PATHS = ("/healthz",)
"""What needs no token: a probe has none."""


class Guard:
    """ASGI middleware around the whole application.

    A dependency of FastAPI would be too late, which reads the body first, and would leave out the schema and
    paths that do not exist.

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
        status = 499  # as web servers count a client that went away before its answer
        request, body = Request(scope, receive), bytearray()

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._admit(request)
            await self._read(request, body)
            # Nothing but JSON is understood here, whatever the request calls itself.
            MutableHeaders(scope=scope)["content-type"] = "application/json"
            await self._app(scope, _replayed(bytes(body), receive), noted)
        except ClientDisconnect:
            pass
        except Refusal as refusal:
            if request.headers.get("expect", "").lower() != "100-continue":
                await _swallow(receive)
            headers = {**(refusal.headers or {}), "Connection": "close"}
            response = error_response(refusal.status_code, refusal.code, refusal.detail, headers=headers)
            await response(scope, receive, noted)
        finally:
            self._held -= len(body)
            self._metrics.answered(scope["path"], status, time.perf_counter() - start)

    async def _admit(self, request: Request) -> None:
        """Raises: Refusal for what can be told before the body comes."""
        if request.scope["path"] not in OPEN_PATHS:
            if self._token is not None:
                await self._authorise(request, self._token)
            elif "origin" in request.headers:
                # A page that a browser on this machine shows could ask without its user's knowledge.
                raise Refusal(403, "forbidden", "requests of web pages need a token: start morl serve with one")
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self._limits.request_bytes:
            raise self._too_large()

    async def _authorise(self, request: Request, token: bytes) -> None:
        bearer = await BEARER(request)
        if bearer is None or not hmac.compare_digest(bearer.credentials.encode("latin-1"), token):
            refusal = Refusal(401, "unauthorized", "a bearer token is needed: 'Authorization: Bearer …'")
            wrong = ', error="invalid_token"' if bearer else ""
            refusal.headers = {"WWW-Authenticate": f'Bearer realm="morl"{wrong}'}
            raise refusal

    async def _read(self, request: Request, body: bytearray) -> None:
        """Raises: Refusal; ClientDisconnect when the client goes away."""
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                async for chunk in request.stream():
                    if len(body) + len(chunk) > self._limits.request_bytes:
                        raise self._too_large()
                    if self._held + len(chunk) > self._limits.held_bytes:
                        raise Refusal(503, "overloaded", "too many large requests at once; ask again")
                    body += chunk
                    self._held += len(chunk)
        except TimeoutError as error:
            message = f"the request did not arrive within {self._limits.timeout_s:g} s"
            raise Refusal(408, "request_timeout", message) from error

    def _too_large(self) -> Refusal:
        limit = self._limits.request_bytes
        return Refusal(413, "request_too_large", f"a request has at most {limit} bytes: send fewer items at once")


async def _swallow(receive: Receive) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_S):
            while (await receive()).get("more_body", False):
                pass


def _replayed(body: bytes, receive: Receive) -> Receive:
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def again() -> Message:
        return messages.pop() if messages else await receive()

    return again
