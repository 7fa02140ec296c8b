"""Connections to a reward service, with retries, backoff and a circuit breaker."""

from __future__ import annotations

import asyncio
import email.utils
import json
import logging
import math
import os
import re
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from morl.errors import UsageError
from morl.rewards.resource import Resource
from morl.rewards.verdict import describe

if TYPE_CHECKING:
    import httpx
    from tenacity import RetryCallState

logger = logging.getLogger(__name__)

CONNECTIONS = 32
CONNECT_S = 5.0
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 10.0
"""Pauses between attempts are drawn between 0 and the first, then twice that, and so on."""
MAX_ANSWER_BYTES = 32 << 20
BUSY = (429, 502, 503, 504)
"""Statuses worth a retry."""


class FailedError(Exception):
    """An attempt without a usable response."""

    def __init__(self, reason: str, *, again: bool = False, wait_s: float | None = None) -> None:
        super().__init__(reason)
        self.again = again
        """Whether to retry."""
        self.wait_s = wait_s
        """Seconds that the service asks to wait before a retry."""


class Connection(Resource):
    """The connections to one service, and its circuit breaker."""

    def __init__(
        self,
        *,
        url: str,
        token_env: str | None,
        timeout_s: float,
        retries: int,
        breaker_failures: int,
        breaker_s: float,
        **_: Any,
    ) -> None:
        self._url = url
        self._token_env = token_env
        self._timeout_s = timeout_s
        self._retries = retries
        self._breaker_failures = breaker_failures
        self._breaker_s = breaker_s
        self._failed = 0
        """Failed attempts in a row: from `breaker_failures` on the breaker is open."""
        self._next_try = 0.0
        """When one call may test an open breaker; infinite during that call."""
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        self._client: httpx.AsyncClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Read the token. Raises: UsageError when it is missing. Does not contact the service."""
        if self._token_env is None:
            return
        token = os.environ.get(self._token_env, "")
        if not re.fullmatch(r"[\x21-\x7e]+", token):
            problem = "is not set" if not token else "holds no token: it has spaces or non-ASCII characters"
            raise UsageError(f"reward 'remote': the environment variable {self._token_env} {problem}")
        self._headers["Authorization"] = f"Bearer {token}"
        if self._url.startswith("http://") and urlsplit(self._url).hostname not in ("localhost", "127.0.0.1", "::1"):
            logger.warning("the token for %s travels unencrypted: use https", self._url)

    async def scores(self, body: bytes, size: int) -> list[Any]:
        """The service's scores of `size` items, each of them unchecked.

        Raises: FailedError when all attempts fail; TimeoutError after `timeout_s`.
        """
        import tenacity

        attempts = tenacity.AsyncRetrying(
            stop=tenacity.stop_after_attempt(self._retries + 1) | tenacity.stop_before_delay(self._timeout_s),
            wait=_pause,
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, FailedError) and error.again),
            reraise=True,
        )
        async with asyncio.timeout(self._timeout_s):
            scores: list[Any] = await attempts(self._attempt, body, size)
        return scores

    async def _attempt(self, body: bytes, size: int) -> list[Any]:
        import httpx

        self._enter()
        alive = False
        try:
            async with self._http().stream("POST", f"{self._url}/score", content=body, headers=self._headers) as answer:
                content = await _content(answer)
            if answer.status_code == 200:
                scores = _scores(content, size)
                alive = True
                return scores
            failed = _refused(answer, content)
            # A service that gives a Retry-After or names a wrong item is healthy.
            alive = failed.wait_s is not None or answer.status_code in (413, 422)
            raise failed
        except httpx.HTTPError as error:
            raise FailedError(f"no answer from {self._url}: {describe(error)}", again=True) from error
        finally:
            self._leave(alive)

    def _enter(self) -> None:
        """Raises: FailedError while the breaker is open. Otherwise a call of `_leave` must follow."""
        if self._failed < self._breaker_failures:
            return
        left = self._next_try - time.monotonic()
        if left > 0:
            when = "one call is trying" if left == math.inf else f"the next try is in {left:.0f} s"
            raise FailedError(f"not asked: it failed {self._failed} times in a row; {when}")
        self._next_try = math.inf

    def _leave(self, alive: bool) -> None:
        if alive:
            self._failed, self._next_try = 0, 0.0
            return
        self._failed += 1
        if self._failed == self._breaker_failures or self._next_try == math.inf:
            self._next_try = time.monotonic() + self._breaker_s

    def _http(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            import ssl

            import httpx

            # Connections belong to an event loop; those of a finished loop are unusable.
            self._loop = loop
            self._client = httpx.AsyncClient(
                # Proxies and passwords of the environment are not meant for this service.
                trust_env=False,
                verify=ssl.create_default_context() if self._url.startswith("https:") else True,
                follow_redirects=False,
                limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS),
                timeout=httpx.Timeout(None, connect=min(CONNECT_S, self._timeout_s)),
            )
        return self._client

    def close(self) -> None:
        """Close the connections, if their loop is open."""
        client, loop, self._client = self._client, self._loop, None
        if client is None or loop is None or loop.is_closed():
            return
        if loop.is_running():
            self._closing = loop.create_task(client.aclose())
        else:
            loop.run_until_complete(client.aclose())


def _pause(state: RetryCallState) -> float:
    """Seconds before the next attempt: the service's Retry-After, and a random pause."""
    import tenacity

    error = state.outcome.exception() if state.outcome else None
    drawn = tenacity.wait_random_exponential(multiplier=FIRST_PAUSE_S, max=LONGEST_PAUSE_S)(state)
    return (getattr(error, "wait_s", None) or 0.0) + drawn


async def _content(answer: httpx.Response) -> bytes:
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise FailedError("the answer is compressed, although the request forbids it")
    content = bytearray()
    async for chunk in answer.aiter_raw():
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            raise FailedError(f"the answer is larger than {MAX_ANSWER_BYTES >> 20} MB")
    return bytes(content)


def _parsed(content: bytes) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        return None


def _scores(content: bytes, size: int) -> list[Any]:
    parsed = _parsed(content)
    scores = parsed.get("scores") if isinstance(parsed, dict) else None
    if not isinstance(scores, list) or len(scores) != size:
        content_kind = f"{len(scores)} scores" if isinstance(scores, list) else "no JSON of scores"
        raise FailedError(f"the answer to {size} items holds {content_kind}")
    return scores


def _refused(answer: httpx.Response, content: bytes) -> FailedError:
    status = answer.status_code
    if 300 <= status < 400:
        return FailedError(f"status {status}: redirects are not followed; set url to their target")
    parsed = _parsed(content)
    error = parsed.get("error") if isinstance(parsed, dict) else None
    parts = [str(error[key])[:300] for key in ("path", "message") if key in error] if isinstance(error, dict) else []
    wait_s = _wait(answer.headers.get("retry-after", "")) if status in BUSY else None
    return FailedError(": ".join([f"status {status}", *parts]), again=status in BUSY, wait_s=wait_s)


def _wait(text: str) -> float | None:
    """Seconds of a Retry-After header, which holds seconds or a date; None if it holds neither."""
    if re.fullmatch(r"\d{1,9}", text.strip()):
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
