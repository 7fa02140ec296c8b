"""The client of a reward service, against a server that misbehaves as it is told."""

from __future__ import annotations

import asyncio
import email.utils
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

import pytest

from morl.errors import UsageError
from morl.rewards.bound_reward import BoundReward
from morl.rewards.checks import check_examples
from morl.rewards.pool.worker_pool import WorkerPool
from morl.rewards.reward_input import RewardInput
from morl.types import Sample, TermScore

Reply = tuple[int, dict[str, str], bytes]


def scores(*values: Any, status: str = "ok", detail: str = "") -> bytes:
    term = {"status": status, "detail": detail, "seconds": 0.1}
    return json.dumps({"scores": [{"value": v, "terms": {"math": {"value": v, **term}}} for v in values]}).encode()


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 100


class Stub:
    """A server that replies what `reply` makes of each request's items and number."""

    def __init__(self, reply: Callable[[list[Any], int], Reply | bytes | float]) -> None:
        self.asked: list[list[Any]] = []
        self.heads: list[dict[str, str]] = []
        self.times: list[float] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                items = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["items"]
                stub.times.append(time.monotonic())
                stub.asked.append(items)
                stub.heads.append({"path": self.path, **{k.lower(): v for k, v in self.headers.items()}})
                replied = reply(items, len(stub.asked))
                if isinstance(replied, float):
                    time.sleep(replied)
                    return
                status, headers, body = replied if isinstance(replied, tuple) else (200, {}, replied)
                self.send_response(status)
                for name, value in ({"Content-Length": str(len(body))} | headers).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def serve() -> Iterator[Callable[..., Stub]]:
    made: list[Stub] = []

    def start(reply: Callable[[list[Any], int], Reply | bytes | float]) -> Stub:
        made.append(Stub(reply))
        return made[-1]

    yield start
    for stub in made:
        stub.close()


def ones(items: list[Any], _: int) -> bytes:
    return scores(*[1] * len(items))


def make(url: str, **options: Any) -> BoundReward:
    return BoundReward("remote", {"url": url, "objective": "math", **options}, 20.0, WorkerPool(workers=1))


def available(response: str = "4", **more: Any) -> RewardInput:
    return RewardInput(response, **more)


def ask(reward: BoundReward, *rows: RewardInput) -> list[TermScore]:
    async def run() -> list[TermScore]:
        try:
            return await asyncio.gather(*(reward(row) for row in rows or (available(),)))
        finally:
            reward.close()
            await asyncio.sleep(0)

    return asyncio.run(run())


def closed_port() -> str:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}"


def test_examples_hold() -> None:
    assert check_examples("remote") == []


def test_items_travel_together_and_each_gets_its_own_score(serve: Any) -> None:
    stub = serve(lambda items, _: scores(*[float(item["response"]) for item in items]))
    told = ask(make(stub.url + "/"), *(available(str(i / 100)) for i in range(64)))
    assert [score.value for score in told] == [i / 100 for i in range(64)]
    assert [len(items) for items in stub.asked] == [64]
    assert stub.heads[0]["path"] == "/score"
    assert "authorization" not in stub.heads[0]


def test_a_request_is_no_larger_than_it_may_be(serve: Any) -> None:
    stub = serve(ones)
    rows = [available("x" * 1000) for _ in range(64)]
    assert [score.value for score in ask(make(stub.url, max_items=10), *rows)] == [1.0] * 64
    assert sorted(len(items) for items in stub.asked) == [4, *[10] * 6]
    stub.asked.clear()
    stub.heads.clear()
    assert [score.value for score in ask(make(stub.url, max_request_mb=10_000 / 2**20), *rows)] == [1.0] * 64
    assert max(int(head["content-length"]) for head in stub.heads) <= 10_000
    assert len(stub.asked) == 8


def test_what_is_sent_is_chosen_and_is_always_json(serve: Any) -> None:
    import numpy as np

    stub = serve(ones)
    sample = Sample("p", 3, (5, 6), (1, 0), (0.0, 0.0), 7, "length", "4")
    row = available(
        gold=[np.int64(4), np.array([1.5, float("nan")])],
        messages=({"role": "user", "content": [{"type": "image", "image": object()}]},),
        media=(SimpleNamespace(size=(640, 480)), {"width": 3, "height": 4}, "no/such/file.png", (1, 2)),
        meta={"row": 7, "nan": float("inf"), "when": object(), 3: b"x"},
        sample=sample,
    )
    ask(make(stub.url), row)
    assert stub.asked[0] == [
        {
            "objective": "math",
            "response": "4",
            "gold": [4, [1.5, None]],
            "messages": [{"role": "user", "content": [{"type": "image", "image": None}]}],
            "media": [{"width": 640, "height": 480}, {"width": 3, "height": 4}],
            "meta": {"row": 7, "nan": None, "when": None, "3": None},
        }
    ]
    ask(make(stub.url, send=["sample"]), row)
    tokens = {"token_ids": [5, 6], "loss_mask": [1, 0], "index": 3, "policy_version": 7, "finish_reason": "length"}
    assert stub.asked[1] == [{"objective": "math", "response": "4", "sample": tokens}]


def test_an_item_that_cannot_be_sent_harms_no_other(serve: Any) -> None:
    endless: list[Any] = []
    endless.append(endless)
    stub = serve(ones)
    told = ask(make(stub.url), available(), available(gold=endless), available(meta={"n": 10**5000}))
    assert [score.value for score in told] == [1.0, None, None]
    assert all("cannot be sent" in score.detail for score in told[1:])


def test_no_score_keeps_its_reason(serve: Any) -> None:
    kinds = {"bad_gold": "bad_gold", "timeout": "timeout", "error": "error", "splendid": "error"}
    stub = serve(lambda items, _: scores(None, status=items[0]["response"], detail="why"))
    for kind, status in kinds.items():
        (told,) = ask(make(stub.url), available(kind))
        assert (told.value, told.status, told.detail) == (None, status, f"math no score ({kind}): why")


def test_what_was_no_answer_there_is_none_here(serve: Any) -> None:
    stub = serve(lambda *_: scores(0, status="no_answer", detail="empty"))
    (told,) = ask(make(stub.url))
    assert (told.value, told.status, told.detail) == (0.0, "no_answer", "math 0 (no_answer): empty")


WRONG_SCORES = ["1.0", True, -0.001, 1.001, float("nan"), float("inf"), 10**400, [1], {}]


@pytest.mark.parametrize("value", WRONG_SCORES, ids=lambda value: str(value)[:9])
def test_a_wrong_score_is_an_error_of_its_item_alone(serve: Any, value: Any) -> None:
    stub = serve(lambda items, _: scores(1.0, value, 0.5))
    told = ask(make(stub.url), *[available()] * 3)
    assert [score.value for score in told] == [1.0, None, 0.5]
    assert told[1].status == "error"
    assert "not in [0, 1]" in told[1].detail


WRONG_ANSWERS = {
    "empty": b"",
    "html": b"<html>hello</html>",
    "no scores": b"{}",
    "a list": b"[1]",
    "too few": scores(),
    "too many": scores(1, 1),
    "no value": b'{"scores": [{}]}',
    "text": b'{"scores": ["1"]}',
    "null": b'{"scores": [null]}',
    "nested": b'{"scores": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "digits": b'{"scores": [{"value": ' + b"1" * 10_000 + b"}]}",
    "not utf-8": b'{"scores": [{"value": 1, "terms": {"\xff": 1}}]}',
    "torn": scores(1)[:-5],
    "pickle": b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94.",
}


@pytest.mark.parametrize("body", WRONG_ANSWERS.values(), ids=WRONG_ANSWERS)
def test_a_wrong_answer_is_no_score(serve: Any, body: bytes) -> None:
    stub = serve(lambda *_: body)
    (told,) = ask(make(stub.url, retries=5))
    assert (told.value, told.status) == (None, "error")
    assert len(stub.asked) == 1  # asking again would not help


@pytest.mark.parametrize("terms", [None, [], {"a": 1, "b": {"value": "x", "status": 3, "detail": []}}, {"c": {}}])
def test_a_score_with_odd_terms_is_a_score(serve: Any, terms: Any) -> None:
    stub = serve(lambda *_: json.dumps({"scores": [{"value": 0.5, "terms": terms}]}).encode())
    assert ask(make(stub.url))[0].value == 0.5


def test_an_answer_without_end_or_compressed_is_not_taken_in(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("morl.rewards.models.connection.MAX_ANSWER_BYTES", 10_000)
    stub = serve(lambda *_: b" " * 10_001)
    assert "larger than" in ask(make(stub.url))[0].detail
    stub = serve(lambda *_: (200, {"Content-Encoding": "gzip"}, scores(1)))
    assert "compressed" in ask(make(stub.url))[0].detail


def test_a_redirect_is_not_followed(serve: Any) -> None:
    target = serve(ones)
    stub = serve(lambda *_: (307, {"Location": f"{target.url}/score"}, b""))
    (told,) = ask(make(stub.url))
    assert told.value is None
    assert "redirects are not followed" in told.detail
    assert target.asked == []


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_what_may_go_away_is_tried_again(serve: Any, status: int) -> None:
    stub = serve(lambda items, n: (status, {}, b"busy") if n <= 2 else ones(items, n))
    assert ask(make(stub.url, retries=2))[0].value == 1.0
    assert len(stub.asked) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 413, 422, 500, 501])
def test_what_will_not_go_away_is_told_at_once(serve: Any, status: int) -> None:
    error = {"error": {"code": "c", "message": "the message", "path": "items.0.gold"}}
    stub = serve(lambda *_: (status, {}, json.dumps(error).encode()))
    (told,) = ask(make(stub.url))
    assert (told.value, told.status) == (None, "error")
    assert told.detail == f"status {status}: items.0.gold: the message"
    assert len(stub.asked) == 1


def test_attempts_are_counted(serve: Any) -> None:
    stub = serve(lambda *_: (503, {}, b""))
    (told,) = ask(make(stub.url, retries=3, breaker_failures=100))
    assert (told.value, told.status) == (None, "error")
    assert len(stub.asked) == 4


@pytest.mark.parametrize("as_date", [False, True], ids=["seconds", "date"])
def test_the_service_says_when_to_come_back(serve: Any, as_date: bool) -> None:
    after = email.utils.formatdate(time.time() + 2, usegmt=True) if as_date else "1"
    stub = serve(lambda items, n: (429, {"Retry-After": after}, b"") if n == 1 else ones(items, n))
    assert ask(make(stub.url))[0].value == 1.0
    assert stub.times[1] - stub.times[0] >= 0.9


def test_a_wait_beyond_the_deadline_is_not_begun(serve: Any) -> None:
    stub = serve(lambda *_: (503, {"Retry-After": "3600"}, b""))
    start = time.monotonic()
    (told,) = ask(make(stub.url, timeout_s=5))
    assert told.value is None
    assert time.monotonic() - start < 2
    assert len(stub.asked) == 1


def test_a_service_that_does_not_answer_is_a_timeout(serve: Any) -> None:
    stub = serve(lambda *_: 3.0)
    start = time.monotonic()
    (told,) = ask(make(stub.url, timeout_s=0.3))
    assert (told.value, told.status) == (None, "timeout")
    assert time.monotonic() - start < 2


def test_a_connection_that_breaks_off_is_tried_again(serve: Any) -> None:
    stub = serve(lambda items, n: 0.0 if n == 1 else ones(items, n))  # hangs up without a word
    assert ask(make(stub.url))[0].value == 1.0
    assert len(stub.asked) == 2


def test_a_service_that_is_down_gives_no_score() -> None:
    told = ask(make(closed_port(), retries=1), *[available()] * 20)
    assert {(score.value, score.status) for score in told} == {(None, "error")}


def test_who_keeps_failing_is_left_alone_then_tried_once(serve: Any) -> None:
    healthy = threading.Event()
    stub = serve(lambda items, n: ones(items, n) if healthy.is_set() else (500, {}, b""))
    reward = make(stub.url, breaker_failures=3, breaker_s=0.5)

    async def run() -> None:
        for _ in range(6):
            assert (await reward(available())).value is None
        assert len(stub.asked) == 3
        start = time.monotonic()
        told = await reward(available())
        assert "not asked: it failed 3 times in a row" in told.detail
        assert time.monotonic() - start < 0.3
        await asyncio.sleep(0.6)
        # One call tries, and fails: the others wait for the next.
        await asyncio.gather(*(reward(available()) for _ in range(5)))
        assert len(stub.asked) == 4
        await asyncio.sleep(0.6)
        healthy.set()
        assert (await reward(available())).value == 1.0
        told = await asyncio.gather(*(reward(available()) for _ in range(5)))
        assert [score.value for score in told] == [1.0] * 5
        reward.close()

    asyncio.run(run())


def test_a_service_that_asks_for_patience_is_not_given_up(serve: Any) -> None:
    stub = serve(lambda *_: (503, {"Retry-After": "0"}, b""))
    ask(make(stub.url, retries=4, breaker_failures=2))
    assert len(stub.asked) == 5


def test_one_bad_item_of_a_batch_is_found_and_opens_nothing(serve: Any) -> None:
    stub = serve(lambda items, n: (422, {}, b"{}") if "bad" in [i["response"] for i in items] else ones(items, n))
    told = ask(make(stub.url, breaker_failures=2), *(available("bad" if i == 7 else "good") for i in range(20)))
    assert [score.value for score in told] == [None if i == 7 else 1.0 for i in range(20)]


def test_the_token_comes_from_the_environment(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    stub = serve(ones)
    monkeypatch.setenv("A_TOKEN", "abc")
    ask(make(stub.url, token_env="A_TOKEN"))
    assert stub.heads[0]["authorization"] == "Bearer abc"
    for value in ("", "two words", "new\nline", "é"):
        monkeypatch.setenv("A_TOKEN", value)
        with pytest.raises(UsageError, match="A_TOKEN"):
            ask(make(stub.url, token_env="A_TOKEN"))


def test_the_environments_proxies_are_not_used(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", closed_port())
    monkeypatch.setenv("ALL_PROXY", closed_port())
    assert ask(make(serve(ones).url))[0].value == 1.0


def test_it_works_in_one_event_loop_after_another(serve: Any) -> None:
    reward = make(serve(ones).url)

    async def once() -> float | None:
        return (await reward(available())).value

    assert [asyncio.run(once()) for _ in range(3)] == [1.0] * 3
    reward.close()


@pytest.mark.parametrize(
    "options",
    [
        {"url": "ftp://host/"},
        {"url": "file:///etc/passwd"},
        {"url": "host:8000"},
        {"url": "http://"},
        {"url": "http://user:secret@host"},
        {"url": "http://host:port"},
        {"url": "http://host/score"},
        {"url": "http://host?token=secret"},
        {"url": "http://host/a b"},
        {"objective": ""},
        {"token_env": "not a name"},
        {"send": ["everything"]},
        {"timeout_s": 0},
        {"timeout_s": float("nan")},
        {"retries": -1},
        {"max_items": 0},
        {"token": "secret"},
    ],
    ids=str,
)
def test_wrong_options_are_told_before_anything_is_sent(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        make(**{"url": "http://127.0.0.1:1", **options})


def test_only_failures_in_a_row_count_and_one_call_at_a_time_tries(serve: Any) -> None:
    answered = threading.Event()

    def reply(items: list[Any], number: int) -> Reply | bytes:
        if number == 5:
            answered.wait(10)
        return (500, {}, b"") if number in (1, 3, 4, 5) else ones(items, number)

    stub = serve(reply)
    reward = make(stub.url, breaker_failures=2, breaker_s=0.5)

    async def run() -> None:
        assert [(await reward(available())).value for _ in range(4)] == [None, 1.0, None, None]
        assert "failed 2 times in a row; the next try is in" in (await reward(available())).detail
        await asyncio.sleep(0.6)
        trying = asyncio.create_task(reward(available()))
        while len(stub.asked) < 5:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.6)  # longer than it is left alone
        assert "one call is trying" in (await reward(available())).detail
        answered.set()
        assert (await trying).value is None
        assert "failed 3 times in a row; the next try is in" in (await reward(available())).detail
        await asyncio.sleep(0.6)
        assert [(await reward(available())).value for _ in range(2)] == [1.0, 1.0]
        assert len(stub.asked) == 7
        reward.close()

    asyncio.run(run())
