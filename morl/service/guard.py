"""Middleware that checks the token and the size of requests.

It reads each body itself, so that unauthorised and oversized requests are never parsed, with or without a
Content-Length.
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
"""Reads the token; the application's schema describes it."""
LINGER_S = 2.0
"""How long the rest of a refused body is read: a client that still writes does not read the response."""
OPEN_PATHS = ("/healthz",)
"""Paths without a token, for health probes."""


class Guard:
    """ASGI middleware around the whole application.

    A FastAPI dependency would run after the body is read, and not for the schema and unknown paths.

    Args:
        token: bearer token of requests; None admits all requests without an Origin header.
    """

    def __init__(self, app: ASGIApp, limits: Limits, token: str | None, metrics: Metrics) -> None:
        self._app = app
        self._limits = limits
        self._token = None if token is None else token.encode()
        self._metrics = metrics
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; uvicorn is configured for HTTP only."""
        start = time.perf_counter()
        status = 499  # nginx's code for a client that disconnected before the response
        request, body = Request(scope, receive), bytearray()

        async def send_noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._admit(request)
            await self._read(request, body)
            # Every body is read as JSON, whatever its Content-Type.
            MutableHeaders(scope=scope)["content-type"] = "application/json"
            await self._app(scope, _replayed(bytes(body), receive), send_noted)
        except ClientDisconnect:
            pass
        except Refusal as refusal:
            if request.headers.get("expect", "").lower() != "100-continue":
                await _swallow(receive)
            headers = {**(refusal.headers or {}), "Connection": "close"}
            response = error_response(refusal.status_code, refusal.code, refusal.detail, headers=headers)
            await response(scope, receive, send_noted)
        finally:
            self._held -= len(body)
            self._metrics.answered(scope["path"], status, time.perf_counter() - start)

    async def _admit(self, request: Request) -> None:
        """Check what is known before the body. Raises: Refusal."""
        if request.scope["path"] not in OPEN_PATHS:
            if self._token is not None:
                await self._authorise(request, self._token)
            elif "origin" in request.headers:
                # A web page in a local browser could send requests without its user's knowledge.
                raise Refusal(403, "forbidden", "requests from web pages need a token: start morl serve with one")
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length[:20]) > self._limits.request_bytes:
            raise self._too_large()

    async def _authorise(self, request: Request, token: bytes) -> None:
        bearer = await BEARER(request)
        if bearer is None or not hmac.compare_digest(bearer.credentials.encode("latin-1"), token):
            refusal = Refusal(401, "unauthorized", "a bearer token is needed: 'Authorization: Bearer …'")
            invalid = ', error="invalid_token"' if bearer else ""
            refusal.headers = {"WWW-Authenticate": f'Bearer realm="morl"{invalid}'}
            raise refusal

    async def _read(self, request: Request, body: bytearray) -> None:
        """Read the body. Raises: Refusal; ClientDisconnect."""
        try:
            async with asyncio.timeout(self._limits.timeout_s):
                async for chunk in request.stream():
                    if len(body) + len(chunk) > self._limits.request_bytes:
                        raise self._too_large()
                    if self._held + len(chunk) > self._limits.held_bytes:
                        raise Refusal(503, "overloaded", "too many large requests at once; retry later")
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
