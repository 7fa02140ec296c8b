"""Rewards that each break one rule, for the conformance kit's tests; workers import this module."""

from __future__ import annotations

import asyncio
import os
import random
import time
from typing import Any

from morl.rewards import reward
from morl.rewards.resource import Resource
from morl.rewards.reward import Example, Verdict

RIGHT_AND_WRONG = [Example("yes", "yes", 1.0), Example("no", "yes", 0.0)]
FIRST: list[str] = []


def said(response: str, gold: Any) -> Verdict:
    """The verdict of a correct reward."""
    if not isinstance(gold, str) or not gold.strip(" \u200b"):
        return Verdict(None, "bad_gold", "the gold must be text")
    text = response.rpartition("</think>")[2].strip()
    return Verdict(float(text == gold and "<think>" not in response.rpartition("</think>")[2]), "ok", text[:50])


@reward("good_for_tests", examples=RIGHT_AND_WRONG, answer=str)
def good(response: str, gold: Any) -> Verdict:
    """A correct reward."""
    return said(response, gold)


@reward("good_batch_for_tests", examples=RIGHT_AND_WRONG, answer=str, batch=True)
def good_batch(response: list[str], gold: list[Any]) -> list[Verdict]:
    """A correct batch reward."""
    return [said(*item) for item in zip(response, gold, strict=True)]


class Kept(Resource):
    started = False

    async def start(self) -> None:
        self.started = True


@reward("good_resource_for_tests", examples=RIGHT_AND_WRONG, answer=str, resource=Kept)
async def good_resource(response: str, gold: Any, resource: Kept) -> Verdict:
    """A correct reward with a resource."""
    await asyncio.sleep(0)
    assert resource.started
    return said(response, gold)


@reward("undocumented_for_tests", examples=RIGHT_AND_WRONG)
def undocumented(response: str, gold: Any) -> Verdict:
    return said(response, gold)


@reward("one_example_for_tests", examples=RIGHT_AND_WRONG[:1])
def one_example(response: str, gold: Any) -> Verdict:
    """Its examples do not distinguish right from wrong."""
    return said(response, gold)


@reward("wrong_example_for_tests", examples=[*RIGHT_AND_WRONG, Example("maybe", "yes", 1.0)])
def wrong_example(response: str, gold: Any) -> Verdict:
    """One of its examples does not hold."""
    return said(response, gold)


@reward("wrong_option_for_tests", examples=[*RIGHT_AND_WRONG, Example("yes", "yes", 1.0, {"strikt": True})])
def wrong_option(response: str, gold: Any, *, strict: bool = False) -> Verdict:
    """One of its examples cannot be called."""
    return said(response, gold)


@reward("taken_option_for_tests", examples=RIGHT_AND_WRONG)
def taken_option(response: str, gold: Any, *, weight: float = 1.0) -> Verdict:
    """Its option has the name of a key of every term."""
    return said(response, gold)


@reward("raises_for_tests", examples=RIGHT_AND_WRONG)
def raises(response: str, gold: Any) -> Verdict:
    """Assumes that the response is not empty."""
    return said(response, gold) if response[0] else Verdict(0.0)


@reward("hashes_gold_for_tests", examples=RIGHT_AND_WRONG)
def hashes_gold(response: str, gold: Any) -> Verdict:
    """Assumes that golds are hashable."""
    return Verdict(0.0) if response not in {gold} else said(response, gold)


@reward("not_a_number_for_tests", examples=RIGHT_AND_WRONG)
def not_a_number(response: str, gold: Any) -> float:
    """Returns NaN for an empty response."""
    return float("nan") if not response else float(response == gold)


@reward("text_for_tests", examples=RIGHT_AND_WRONG)
def text(response: str, gold: Any) -> Any:
    """Returns text instead of a number for a long response."""
    return "1.0" if len(response) > 1000 else said(response, gold)


@reward("unbounded_for_tests", examples=RIGHT_AND_WRONG)
def unbounded(response: str, gold: Any) -> Any:
    """Its value grows with the length, beyond 1."""
    return len(response) / 3 if response != "no" and gold == "yes" else 0.0


@reward("mutates_for_tests", examples=[Example("a", ["a"], 1.0), Example("b", ["a"], 0.0)])
def mutates(response: str, gold: Any) -> Verdict:
    """Modifies the gold."""
    if not isinstance(gold, list):
        return Verdict(None, "bad_gold", "the gold must be a list")
    gold.append("seen")
    return Verdict(float(response in gold[:1]))


@reward("mutates_row_for_tests", examples=[Example("a", None, 1.0, meta={"x": [1]}), Example("b", None, 0.0)])
def mutates_row(response: str, meta: dict[str, Any]) -> float:
    """Modifies the row."""
    meta["seen"] = True
    return float(response == "a")


@reward("random_for_tests", examples=RIGHT_AND_WRONG)
def by_chance(response: str, gold: Any) -> Verdict:
    """Returns a random value for wrong responses."""
    verdict = said(response, gold)
    return Verdict(random.random()) if verdict.value == 0.0 and response != "no" else verdict


@reward("remembers_for_tests", examples=RIGHT_AND_WRONG)
def remembers(response: str, gold: Any) -> Verdict:
    """Its detail depends on the first response it saw."""
    FIRST.append(response)
    verdict = said(response, gold)
    return Verdict(verdict.value, verdict.status, f"{verdict.detail} after {FIRST[0][:9]!r}")


@reward("address_for_tests", examples=RIGHT_AND_WRONG)
def address(response: str, gold: Any) -> Verdict:
    """Its detail depends on the process."""
    verdict = said(response, gold)
    return Verdict(verdict.value, verdict.status, f"process {os.getpid()}")


@reward("neighbours_for_tests", examples=RIGHT_AND_WRONG, batch=True)
def neighbours(response: list[str], gold: list[Any]) -> list[Verdict]:
    """Its values depend on the size of the batch."""
    alone = [said(*item) for item in zip(response, gold, strict=True)]
    return [Verdict(v.value and v.value / len(response), v.status, v.detail) for v in alone]


@reward("slow_for_tests", examples=RIGHT_AND_WRONG)
def slow(response: str, gold: Any) -> Verdict:
    """Takes quadratic time."""
    time.sleep(len(response) ** 2 / 1e10)
    return said(response, gold)


@reward("dies_for_tests", examples=RIGHT_AND_WRONG)
def dies(response: str, gold: Any) -> Verdict:
    """Ends its process on one input."""
    if "NaN" in response:
        os._exit(1)
    return said(response, gold)


@reward("hides_for_tests", examples=RIGHT_AND_WRONG)
def hides(response: str, gold: Any) -> Verdict:
    """Returns status "error" for anything but letters."""
    return said(response, gold) if response.isalpha() else Verdict(None, "error", "no word")


@reward("empty_gold_for_tests", examples=RIGHT_AND_WRONG)
def empty_gold(response: str, gold: Any) -> float:
    """Ignores that the empty text is in every text."""
    return float(str(gold or "") in response)


@reward("wrong_answer_for_tests", examples=RIGHT_AND_WRONG, answer=lambda gold: f"The answer is {gold}")
def wrong_answer(response: str, gold: Any) -> Verdict:
    """Does not accept the answer that it writes for a gold."""
    return said(response, gold)


@reward("no_answer_for_tests", examples=RIGHT_AND_WRONG, answer=lambda gold: gold.text)
def no_answer(response: str, gold: Any) -> Verdict:
    """Fails to write an answer for its golds."""
    return said(response, gold)


@reward("thinking_for_tests", examples=RIGHT_AND_WRONG, answer=str)
def thinking(response: str, gold: Any) -> Verdict:
    """Reads an answer from unfinished thinking."""
    if not isinstance(gold, str) or not gold.strip(" \u200b"):
        return Verdict(None, "bad_gold", "the gold must be text")
    return Verdict(float(response.endswith(gold)))


@reward("gone_for_tests", examples=RIGHT_AND_WRONG)
def gone(response: str, gold: Any) -> Verdict:
    """Workers cannot import it by its name."""
    return said(response, gold)


gone_for_tests = gone
del gone


@reward("uneven_batch_for_tests", examples=[Example("a", None, 1.0), Example("b", None, 0.0)], batch=True)
def uneven_batch(response: list[str]) -> list[float]:
    """Does not return a value for every response."""
    return []
