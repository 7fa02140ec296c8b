"""The HTTP application: endpoints, validation and error responses."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Callable, Coroutine
from importlib.metadata import version
from typing import Any

import jiter
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp

from morl.error_messages import explain
from morl.registry import REWARDS
from morl.service.guard import BEARER, Guard
from morl.service.limits import Limits
from morl.service.prometheus import Metrics
from morl.service.refusal import Refusal, error_response, json_response
from morl.service.router import Router
from morl.service.wire import (
    ErrorResponse,
    Health,
    Image,
    Item,
    ObjectiveInfo,
    RewardsResponse,
    ScoreRequest,
    ScoreResponse,
    TermInfo,
    Tokens,
)
from morl.types import Score

_CODES = {404: "not_found", 405: "method_not_allowed", 400: "invalid"}
_ERRORS: dict[int | str, dict[str, Any]] = {
    401: {"model": ErrorResponse, "description": "No valid token."},
    413: {"model": ErrorResponse, "description": "Too many bytes or items."},
    422: {"model": ErrorResponse, "description": "Malformed; `path` names the field."},
    500: {"model": ErrorResponse, "description": "A reward cannot work."},
    503: {"model": ErrorResponse, "description": "Overloaded or not ready: retry after `Retry-After`."},
    504: {"model": ErrorResponse, "description": "Not scored in time."},
}
_KEYS = [*ScoreRequest.model_fields, *Item.model_fields, *Tokens.model_fields, *Image.model_fields]


def make_app(
    router: Router, limits: Limits, metrics: Metrics, *, token: str | None, ready: Callable[[], bool]
) -> ASGIApp:
    """The service as an ASGI application.

    Args:
        token: bearer token of requests; None if none is needed.
        ready: returns whether every reward can score.
    """
    app = FastAPI(
        title="morl rewards",
        version=version("morl-rl"),
        summary="Scores responses with the rewards of a recipe.",
        docs_url=None,  # these pages would load scripts from other hosts
        redoc_url=None,
        # The guard checks the token; this adds it to the schema.
        dependencies=[] if token is None else [Depends(BEARER)],
    )
    app.router.route_class = _strict_route(limits)
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(Exception, _failed)

    @app.post("/score", response_model=ScoreResponse, responses=_ERRORS)
    async def score(body: ScoreRequest, request: Request) -> Response:
        """Score responses of any objectives; the scores are in the order of the items."""
        scores = await _unless_gone(request, router.score(body.items))
        return json_response({"scores": [one.as_json() for one in scores]})

    @app.get("/rewards", response_model=RewardsResponse, responses={401: _ERRORS[401]})
    async def rewards() -> Response:
        """The objectives of the service, and their rewards."""
        return json_response(_described(router, limits).model_dump(mode="json"))

    @app.get("/healthz", response_model=Health, responses={503: _ERRORS[503]})
    async def healthz() -> Response:
        """Whether every reward can score; needs no token."""
        if not ready():
            raise Refusal(503, "not_ready", "not every reward can score at the moment")
        return json_response(Health().model_dump())

    @app.get("/metrics", response_class=Response, responses={401: _ERRORS[401]})
    async def prometheus() -> Response:
        """Metrics in Prometheus' text format."""
        return Response(metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return Guard(app, limits, token, metrics)


def _strict_route(limits: Limits) -> type[APIRoute]:
    """Routes that read strict JSON: no NaN, no duplicate keys, no deep nesting."""

    class StrictRequest(Request):
        async def json(self) -> Any:
            try:
                content = jiter.from_json(await self.body(), allow_inf_nan=False, catch_duplicate_keys=True)
            except ValueError as error:
                raise Refusal(422, "invalid_json", f"not valid JSON: {error}") from error
            items = content.get("items") if isinstance(content, dict) else None
            if isinstance(items, list) and len(items) > limits.items:
                message = f"a request has at most {limits.items} items, not {len(items)}"
                raise Refusal(413, "too_many_items", message, "items")
            return content

    class StrictRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def strictly(request: Request) -> Response:
                return await handle(StrictRequest(request.scope, request.receive))

            return strictly

    return StrictRoute


async def _unless_gone(request: Request, work: Coroutine[Any, Any, list[Score]]) -> list[Score]:
    """The result of `work`, which is cancelled when the client disconnects."""
    working = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(request.receive())
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise Refusal(499, "client_gone", "the client disconnected")
        return working.result()
    finally:
        working.cancel()
        gone.cancel()


def _described(router: Router, limits: Limits) -> RewardsResponse:
    objectives = {}
    for name, spec in router.objectives.items():
        used = router.rewards_of(name)
        terms = {
            term.name: TermInfo(
                use=term.use,
                doc=(inspect.getdoc(REWARDS.load(term.use)) or "").partition("\n")[0],
                options=json.loads(json.dumps(dict(used[term.name].options), default=str)),
                weight=term.weight,
                scale=term.scale,
                gate=term.gate.model_dump() if term.gate else None,
                on_error=term.on_error,
                deadline_s=term.deadline_s,
            )
            for term in spec.rewards
        }
        reads = {field for reward in used.values() for field in reward.reads}
        objectives[name] = ObjectiveInfo(
            combine=spec.combine, reads=[field for field in Item.model_fields if field in reads], terms=terms
        )
    return RewardsResponse(
        objectives=objectives,
        max_items=limits.items,
        max_request_bytes=limits.request_bytes,
        timeout_s=limits.timeout_s,
    )


async def _refused(request: Request, error: Any) -> Response:
    code = getattr(error, "code", None) or _CODES.get(error.status_code, "error")
    return error_response(error.status_code, code, str(error.detail), getattr(error, "path", None), error.headers)


async def _malformed(request: Request, error: Any) -> Response:
    """The first validation error, and its path."""
    item = error.errors()[0]
    path = ".".join(str(part) for part in item["loc"][1:])
    message = explain(item, _KEYS)
    if not path:
        message = 'the body should be a JSON object {"items": [...]}'
    return error_response(422, "invalid", message, path or None)


async def _failed(request: Request, error: Exception) -> Response:
    """An unexpected error; the traceback goes to the log."""
    return error_response(500, "internal", "the service failed; its log says why")
