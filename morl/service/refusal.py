"""How a service says no: one form for all errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.responses import Response

RETRY_AFTER_S = 1
"""When a client may ask again that was turned away because others were served."""


class Refusal(HTTPException):
    """A request that gets no answer: the status, a code for programs, a sentence for people."""

    def __init__(self, status: int, code: str, message: str, path: str | None = None) -> None:
        super().__init__(status, message, {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else None)
        self.code = code
        self.path = path
        """Of the field that is wrong, as `items.3.response`."""


def error_response(
    status: int, code: str, message: str, path: str | None = None, headers: Mapping[str, str] | None = None
) -> Response:
    """The one form that all errors have."""
    error = {"code": code, "message": message, **({} if path is None else {"path": path})}
    return json_response({"error": error}, status, headers)


def json_response(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Plain ASCII, so that half a surrogate pair, which a client may have sent, can be told of."""
    return Response(json.dumps(content, allow_nan=False), status, headers, media_type="application/json")
