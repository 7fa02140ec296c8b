"""Error responses: one JSON form for all of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

RETRY_AFTER_S = 1
"""Seconds after which a client may retry when the service is overloaded or not ready."""


class Refusal(HTTPException):
    """An error response: the status, a code for programs, a message for people."""

    def __init__(self, status: int, code: str, message: str, path: str | None = None) -> None:
        super().__init__(status, message, {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else None)
        self.code = code
        self.path = path
        """Path of the invalid field, such as `items.3.response`."""


def error_response(
    status: int, code: str, message: str, path: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """An error response in the common form."""
    error = {"code": code, "message": message, **({} if path is None else {"path": path})}
    return json_response({"error": error}, status, headers)


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response in plain ASCII, so that it can quote a lone surrogate sent by a client."""
    return Response(json.dumps(content, allow_nan=False), status, headers, media_type="application/json")
