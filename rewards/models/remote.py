"""A reward that asks a service of `morl serve` over HTTP; a failure there is "no score", never 0."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from morl.rewards import reward
from morl.rewards.models.connection import Connection, FailedError
from morl.rewards.parsing.image_size import image_size
from morl.rewards.reward import Example, Verdict
from morl.rewards.verdict import clip, describe
from morl.types import Sample, Status

Sent = Literal["gold", "messages", "meta", "media", "sample"]


def _service(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0 or re.search(r"[\s\0-\x1f]", url):
        raise ValueError("should be http://HOST:PORT or https://…")
    if parts.username or parts.password:
        raise ValueError("should hold no password: 'token_env' names a variable with the token")
    if parts.query or parts.fragment or parts.path.rstrip("/").endswith("/score"):
        raise ValueError("should be the service's address alone, without /score, query and fragment")
    return url.rstrip("/")


Url = Annotated[str, AfterValidator(_service)]


@reward(
    "remote",
    batch=True,
    resource=Connection,
    deadline_s=35.0,
    examples=[
        # Nothing listens there: no score, which is not 0.
        Example("4", "4", None, {"url": "http://127.0.0.1:9", "objective": "math", "retries": 0}),
        Example("4", None, None, {"url": "http://[::1]:9/rewards/", "objective": "math", "retries": 0}),
    ],
)
async def remote(
    response: list[str],
    messages: list[Sequence[Mapping[str, Any]]],
    media: list[Sequence[Any]],
    meta: list[Mapping[str, Any]],
    sample: list[Sample | None],
    resource: Connection,
    gold: list[Any] | None = None,
    *,
    url: Url,
    objective: Annotated[str, Field(min_length=1)],
    token_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None,
    send: Sequence[Sent] = ("gold", "messages", "meta", "media"),
    timeout_s: Annotated[float, Field(gt=0, le=3600, allow_inf_nan=False)] = 30.0,
    retries: Annotated[int, Field(ge=0, le=100)] = 3,
    max_items: Annotated[int, Field(ge=1, le=65536)] = 64,
    max_request_mb: Annotated[float, Field(gt=0, le=1024, allow_inf_nan=False)] = 8.0,
    breaker_failures: Annotated[int, Field(ge=1)] = 5,
    breaker_s: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 15.0,
) -> list[Verdict]:
    """The score from a remote reward service: `morl serve` with its own recipe.

    Responses are sent in batches to `POST url/score`. A failure gives no score, never 0: the service does not answer,
    or its answer has anything but scores in [0, 1].

    url, objective: the service's address (http or https), and the objective to score.
    token_env: name of the environment variable with the token; a recipe never holds the token.
    send: fields sent with the response. `sample` holds its tokens, for rewards that read them. Of `media` only the
        images' sizes are sent. Values that JSON cannot hold become null.
    timeout_s: seconds for an answer, retries included; the term's `deadline_s` applies too, if shorter.
    retries: further attempts after a failed connection or status 429, 502, 503 or 504, after random pauses that grow
        and not before the service's `Retry-After`.
    max_items, max_request_mb: limits of one request.
    breaker_failures, breaker_s: after this many failed attempts in a row, the service is not called for this many
        seconds; then one request tests it.
    """
    verdicts = [Verdict(None, "error", "it was not sent")] * len(response)
    rows = {
        "gold": gold or [None] * len(response),
        "messages": messages,
        "meta": meta,
        "media": media,
        "sample": sample,
    }
    parts: list[tuple[int, bytes]] = []
    for i, text in enumerate(response):
        try:
            item = {"objective": objective, "response": text}
            parts.append((i, _item(item | {name: rows[name][i] for name in send})))
        except (ValueError, TypeError, RecursionError) as error:
            verdicts[i] = Verdict(None, "error", f"the item cannot be sent as JSON: {describe(error)}")

    async def ask(group: list[tuple[int, bytes]]) -> None:
        body = b'{"items":[' + b",".join(part for _, part in group) + b"]}"
        try:
            results = [_verdict(score) for score in await resource.scores(body, len(group))]
        except FailedError as error:
            results = [Verdict(None, "error", clip(str(error)))] * len(group)
        except TimeoutError:
            results = [Verdict(None, "timeout", f"no answer from {url} within {timeout_s:g} s")] * len(group)
        for (i, _), verdict in zip(group, results, strict=True):
            verdicts[i] = verdict

    await asyncio.gather(*(ask(group) for group in _groups(parts, max_items, int(max_request_mb * 2**20))))
    return verdicts


def _groups(parts: list[tuple[int, bytes]], items: int, size: int) -> Iterator[list[tuple[int, bytes]]]:
    """Groups of at most `items` items and `size` bytes; a larger item is its own group."""
    group: list[tuple[int, bytes]] = []
    group_bytes = 0
    for part in parts:
        part_bytes = len(part[1]) + 1
        if group and (len(group) >= items or group_bytes + part_bytes + 12 > size):
            yield group
            group, group_bytes = [], 0
        group.append(part)
        group_bytes += part_bytes
    if group:
        yield group


def _item(item: dict[str, Any]) -> bytes:
    if "media" in item:
        item["media"] = list(_sizes(item["media"] or ()))
    sample = item.get("sample")
    if sample is not None:
        renamed = {"token_ids": "token_ids_T", "loss_mask": "loss_mask_T"}
        same = ("index", "policy_version", "finish_reason")
        item["sample"] = {name: getattr(sample, renamed.get(name, name)) for name in (*renamed, *same)}
    return json.dumps(_plain(item), allow_nan=False).encode()


def _sizes(media: Sequence[Any]) -> Iterator[dict[str, int]]:
    """The sizes of the images before the first of unknown size."""
    for image in media:
        try:
            size = image_size((image,), {})
        except ValueError:
            return
        if size is None:
            return
        yield {"width": size.width, "height": size.height}


def _plain(value: Any) -> Any:
    """The value as plain JSON; null for what JSON cannot hold."""
    if value is None or isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    as_list = getattr(value, "tolist", None)  # numbers and arrays of numpy and torch
    return _plain(as_list()) if callable(as_list) else None


def _verdict(score: Any) -> Verdict:
    if not isinstance(score, dict) or "value" not in score:
        return Verdict(None, "error", "the service's score has no value")
    value = score["value"]
    fields = score.get("terms")
    terms = [_Term(name, term) for name, term in fields.items()] if isinstance(fields, dict) else []
    detail = clip("; ".join(term.text for term in terms))
    statuses = {term.status for term in terms} - {"gated"}
    if value is None:
        status: Status = next((s for s in ("bad_gold", "timeout") if s in statuses), "error")
        return Verdict(None, status, detail or "the service gives no score")
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        return Verdict(None, "error", f"the service's score is not in [0, 1]: {str(value)[:50]}")
    return Verdict(float(value), "no_answer" if statuses == {"no_answer"} else "ok", detail)


class _Term:
    """Summary of one term of a service's score."""

    def __init__(self, name: str, content: Any) -> None:
        fields = content if isinstance(content, dict) else {}
        value = fields.get("value")
        number = isinstance(value, int | float) and abs(value) < 1e300
        self.status = str(fields.get("status"))[:20]
        shown = f"{value:g}" if number else "no score"
        why = "" if self.status == "ok" else f" ({self.status})"
        detail = str(fields.get("detail") or "")[:200]
        self.text = f"{name[:50]} {shown}{why}{f': {detail}' if detail else ''}"
