"""Rewards of every kind, registered as a user's plugin file would register them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from morl.rewards import reward
from morl.rewards.reward import Example, Verdict
from morl.types import Sample


@reward("test_async", examples=[Example("0.5", None, 0.5)])
async def later(response: str, *, seconds: float = 0.0) -> float:
    await asyncio.sleep(seconds)
    return float(response)


SIZES: list[int] = []


@reward("test_batch_inline", batch=True, runs="inline")
def together_inline(response: list[str]) -> list[float]:
    SIZES.append(len(response))
    return [float(item) for item in response]


@reward("test_batch_worker", batch=True, examples=[Example("1", "g", 1.0)])
def together(response: list[str], gold: list[Any]) -> list[float | Verdict]:
    return [Verdict(float(item), "ok", f"{len(response)}") for item in response]


@reward("test_batch_async", batch=True)
async def together_later(response: list[str]) -> list[float]:
    await asyncio.sleep(0)
    return [float(item) for item in response][: 3 if "short" in response else None]


@reward("test_inline", runs="inline")
def inline(response: str) -> float:
    return float(response)


@reward("test_everything")
def everything(
    response: str, gold: Any, messages: Any, media: Any, meta: Mapping[str, Any], sample: Sample, *, least: int = 0
) -> Verdict:
    seen = [response, gold, messages[0]["content"], list(media), meta["row"], sample.index, least, os.getpid() > 0]
    return Verdict(1.0, "ok", str(seen))


@reward("test_wrong_examples", examples=[Example("0.5", None, 1.0), Example("x", None, 0.0), Example("1", None, 1.0)])
def wrong(response: str) -> float:
    return float(response)


@reward("test_gold_list", answer=lambda gold: ",".join(gold))
def gold_list(response: str, gold: list[str]) -> float:
    return float(response.split(",") == list(gold) and len(gold) > 1)
