"""What stands before the rewards: bodies, tokens, errors. The application is asked in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from morl.service.app import make_app
from morl.service.limits import Limits
from morl.service.prometheus import Metrics
from morl.service.refusal import Refusal
from morl.types import Score, TermScore


class Router:
    """Scores everything 1, or does what the response says."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def score(self, items: list[Any]) -> list[Score]:
        text = items[0].response if items else ""
        if text == "overloaded":
            raise Refusal(503, "overloaded", "as asked")
        if text == "bug":
            raise ZeroDivisionError
        try:
            if text == "for ever":
                await asyncio.Event().wait()
        finally:
            self.ended.set()
        return [Score(1.0, {"t": TermScore(1.0, "ok", "\u00fc")}) for _ in items]


LIMITS = Limits(request_bytes=1000, items=4, timeout_s=0.3)


def application(router: Any = None, *, token: str | None = None, ready: bool = True, limits: Limits = LIMITS) -> Any:
    return make_app(router or Router(), limits, Metrics([]), token=token, ready=lambda: ready)


def ask(app: Any, method: str, path: str, **more: Any) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await client.request(method, path, **more)

    return asyncio.run(run())


BODY = {"items": [{"objective": "o", "response": "r"}]}


def test_without_a_token_pages_of_a_browser_are_turned_away() -> None:
    assert ask(application(), "POST", "/score", json=BODY).status_code == 200
    told = ask(application(), "POST", "/score", json=BODY, headers={"Origin": "https://elsewhere.example"})
    assert told.status_code == 403
    assert told.json()["error"]["code"] == "forbidden"


def test_a_token_is_compared_as_a_whole() -> None:
    app = application(token="abc")
    for given, status in [("abc", 200), ("ab", 401), ("abcd", 401), ("", 401), ("ABC", 401), ("é", 401)]:
        told = ask(app, "POST", "/score", json=BODY, headers=[(b"Authorization", f"bearer {given}".encode("latin-1"))])
        assert told.status_code == status, given


def test_before_it_is_ready_it_says_so() -> None:
    assert ask(application(ready=False), "GET", "/healthz").status_code == 503
    assert ask(application(ready=True), "GET", "/healthz").status_code == 200


def test_overload_says_when_to_come_back() -> None:
    told = ask(application(), "POST", "/score", json={"items": [{"objective": "o", "response": "overloaded"}]})
    assert (told.status_code, told.headers["Retry-After"]) == (503, "1")
    assert told.json() == {"error": {"code": "overloaded", "message": "as asked"}}


def test_what_nobody_thought_of_is_told_in_the_same_form_and_without_a_traceback() -> None:
    told = ask(application(), "POST", "/score", json={"items": [{"objective": "o", "response": "bug"}]})
    assert told.status_code == 500
    assert told.json()["error"]["code"] == "internal"
    assert "ZeroDivision" not in told.text


async def chunks(*parts: bytes, pause_s: float = 0.0) -> AsyncIterator[bytes]:
    for part in parts:
        await asyncio.sleep(pause_s)
        yield part


def test_a_body_that_comes_too_slowly_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("morl.service.guard.LINGER_S", 0.1)
    told = ask(application(), "POST", "/score", content=chunks(*[b" "] * 10, pause_s=0.1))
    assert told.status_code == 408


def test_no_more_of_a_large_body_is_kept_than_is_allowed() -> None:
    app = application()
    told = ask(app, "POST", "/score", content=chunks(*[b" " * 100] * 50))
    assert told.status_code == 413
    assert ask(app, "POST", "/score", content=chunks(json.dumps(BODY).encode())).status_code == 200


def test_large_bodies_of_many_requests_are_turned_away() -> None:
    limits = Limits(request_bytes=1000, items=4, timeout_s=5)
    router = Router()
    app = application(router, limits=limits)

    async def run() -> list[int]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
            body = json.dumps({"items": [{"objective": "o", "response": "for ever"}]}).ljust(1000)
            held = limits.held_bytes // 1000
            asked = [asyncio.create_task(client.post("/score", content=body)) for _ in range(held + 3)]
            done, waiting = await asyncio.wait(asked, timeout=1)
            for task in waiting:
                task.cancel()
            assert len(waiting) == held
            return [task.result().status_code for task in done]

    assert asyncio.run(run()) == [503] * 3


def test_work_that_nobody_waits_for_is_ended() -> None:
    router = Router()
    app = application(router, limits=Limits(timeout_s=60))
    body = json.dumps({"items": [{"objective": "o", "response": "for ever"}]}).encode()
    messages = [{"type": "http.request", "body": body, "more_body": False}, {"type": "http.disconnect"}]
    sent: list[Any] = []

    async def receive() -> Any:
        await asyncio.sleep(0.05)
        return messages.pop(0) if len(messages) > 1 else messages[0]

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": "/score", "raw_path": b"/score", "query_string": b""}
    scope |= {"headers": [], "http_version": "1.1", "scheme": "http", "server": ("service", 80), "root_path": ""}
    asyncio.run(asyncio.wait_for(app(scope, receive, send), 5))
    assert router.ended.is_set()
    assert sent[0]["status"] == 499
