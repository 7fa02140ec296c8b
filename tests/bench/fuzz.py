"""Adversarial and malformed responses to every verifier: each must get a valid score in time and leave no process.

    python tests/bench/fuzz.py [--count 20000] [--seed 0] [--workers 2] [--only math,box] [--save bad.jsonl]

Run by hand. Responses and golds are mutations of each verifier's examples, texts of their words, random LaTeX, JSON
and Unicode, and a list of inputs that broke other verifiers. All run in worker processes, even those that a run calls
on its event loop. Exit code 1 when a score is invalid, a verifier raised or timed out, the same call scored
differently in another order, or a process is left.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import json
import math
import os
import pickle
import random
import re
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import psutil

from morl.registry import REWARDS, wanted_arguments
from morl.rewards.bound_reward import checked_options
from morl.rewards.pool.worker_pool import WorkerPool
from morl.rewards.pool.worker_process import Call
from morl.rewards.reward import Example
from morl.rewards.verdict import MAX_DETAIL
from morl.traits import traits_of
from morl.types import Sample, Status, TermScore

ELSEWHERE = frozenset({"remote", "reward_model"})
"""They call a service or a model."""
DEADLINE_S = 10.0
WAVE = 2000
"""Concurrent calls."""
HUGE = 1 << 20
EVERY = 400
"""One response in this many is a megabyte long."""
SLOW_S = 1.0

MONSTERS = "9^{9^{9^{9}}}", "((9!)!)!", "10^{10^{10}}", "1e-99999999"
PIECES = (
    *MONSTERS,
    "", " ", "\n", "\t", "\x00", "\ufeff", "\u200b", "\u202e", "\u2066", "\ud800", "é", "e\u0301", "٣", "43", "²",
    "½", "∞", "NaN", "nan", "Infinity", "-Infinity", "1e999", "-1e999", "1e-999", "-0", "0x10", "1_000", "1,000",
    "1.2.3", "9" * 400, "9" * 5000, "-" * 50, "[" * 200, "{" * 200, "(" * 60, '{"a":' * 200, "<" * 200, "<think>",
    "</think>", "</think></think>", "<answer>", "</answer>", "```", "```json\n", "~~~", "\\boxed{", "\\boxed{}",
    "\\boxed", "}", "]", ")", '"', "'", "\\", "\\\\", "$", "$$", "\\(", "\\[", "%", "\\frac{1}{0}", "\\frac{",
    "\\sqrt{-1}", "\\int_0^1 x dx", "\\sum_{n=1}^{\\infty} 1/n",
    "x" * 300, " or ", " and ", ", ", "Answer:", "The answer is", "####", "<|image_pad|>", "<|box_start|>",
    "<|box_end|>", "<|im_end|>", "<|endoftext|>", "(1,1),(0,0)", "[10, 10, 0, 0]", "[0, 0, -5, -5]", "[NaN, 0, 1, 1]",
    "[1e308, 1e308, -1e308, 1e308]", "null", "true", "{}", "[]", "[[]]", "[null]", "None", "1 2", "00:00", "99:99:99",
    "-1:-1", "click()", "click(start_box='(1,2)')",
)  # fmt: skip
GOLDS: tuple[Any, ...] = (
    None, "", " ", "gold", 0, -1, 1.5, True, 10**400, float("nan"), float("inf"), -float("inf"), [], {}, (), [None],
    [[]], [1, 2], [1, 2, 3, 4], [[1, 2, 3, 4]], [4, 3, 2, 1], [float("nan")] * 4, {"a": {"b": [1]}},
    {"bbox_2d": None}, "\ud800", "[" * 500, "9" * 5000, "(a+)+$", "(", "<think>", b"bytes", 1 + 2j,
    "A" * 5000, ["a"] * 1000,
)  # fmt: skip
FRAMES = (
    "\\boxed{%s}", "$%s$", "$$%s$$", "\\(%s\\)", "The answer is %s.", "Answer: %s", "#### %s",
    "<think>%s</think>", "<think>%s", "%s</think>", "<think>a</think>%s", "```json\n%s\n```", "```\n%s",
    "<answer>%s</answer>", "**%s**", "[%s]", "{%s}", '{"answer": %s}', "%s or %s", "%s, %s",
    "\\boxed{%s} or \\boxed{%s}", "<point>%s</point>",
)  # fmt: skip
LONG = "1", "[", '{"a":', "[1,2,3,4],", "a ", "$", "\\frac{1}{", "word. ", "- "
SYMBOLS = "x", "y", "\\pi", "e", "i", "\\infty", "2", "-3", "0.5", "10", "\\alpha", "n", "", "\\%"
FORMULAS = (
    "{a}+{b}", "{a}-{b}", "{a}{b}", "{a} \\cdot {b}", "\\frac{{{a}}}{{{b}}}", "\\sqrt{{{a}}}",
    "\\sqrt[{b}]{{{a}}}", "{{{a}}}^{{{b}}}", "{a}_{{{b}}}", "\\left({a}\\right)", "\\{{{a}, {b}\\}}",
    "({a}, {b})", "[{a}, {b})", "{a} = {b}", "{a} \\le {b}", "\\sin {a}", "\\log_{{{a}}} {b}", "|{a}|",
    "{a}!", "\\text{{{a}}}", "{a} \\text{{ or }} {b}",
    "\\begin{{pmatrix}} {a} & {b} \\\\ {b} & {a} \\end{{pmatrix}}", "\\int {a} dx",
    "\\sum_{{n=1}}^{{{a}}} {b}", "\\lim_{{x \\to {a}}} {b}", "{a} \\cup {b}", "\\binom{{{a}}}{{{b}}}",
    "{a} \\pm {b}", "{a}^\\circ", "{a} \\approx {b}",
)  # fmt: skip
SCALARS = (
    "0", "-1", "3.5", "1e999", "NaN", "Infinity", "true", "null", '"a"', '""', '"\\ud800"', "12", "500", "1e-9",
)  # fmt: skip
KEYS = (
    "bbox_2d", "bbox", "label", "point_2d", "point", "x", "y", "start", "end", "action", "coordinate", "text", "name",
    "arguments", "a", "answer", "direction", "key", "",
)  # fmt: skip
BLOCKS = (
    (32, 126), (0, 31), (0xA0, 0x24F), (0x590, 0x6FF), (0x4E00, 0x4FFF), (0x2000, 0x206F), (0xD800, 0xDFFF),
    (0x1F300, 0x1F6FF), (0xFF00, 0xFFEF), (0x300, 0x36F), (0x1D400, 0x1D7FF), (0xE0000, 0xE007F), (0, 0x10FFFF),
)  # fmt: skip
"""Unicode ranges, first and last code point."""


@dataclass(frozen=True, slots=True)
class Case:
    """One call."""

    response: str
    gold: Any
    options: Mapping[str, Any]
    meta: Mapping[str, Any]

    def arguments(self) -> dict[str, Any]:
        messages = ({"role": "user", "content": "What is it? " + self.response[:40]},)
        sample = Sample("p", 0, (1,) * 9, (1,) * 9, (0.0,) * 9, 0, "length", self.response[:HUGE])
        return {
            "response": self.response,
            "gold": self.gold,
            "messages": messages,
            "media": (),
            "meta": dict(self.meta),
            "sample": sample,
        }


class Writer:
    """Writes responses and golds that may break a verifier with these examples."""

    def __init__(self, examples: Sequence[Example], seed: int) -> None:
        self._draw = random.Random(seed)
        self._examples = examples
        texts = [example.response for example in examples] + [str(example.gold) for example in examples]
        self._words = sorted({word for text in texts for word in re.findall(r"\w+|\s+|[^\w\s]", text)}) or ["word"]

    def case(self, huge: bool) -> Case:
        example = self._draw.choice(self._examples)
        gold = example.gold
        if self._draw.random() < 0.1:
            gold = self._draw.choice(GOLDS)
        elif self._draw.random() < 0.1 and isinstance(gold, str):
            mutated = self._mutated(gold)
            # Golds with these take long to reject.
            gold = gold if any(monster in mutated for monster in MONSTERS) else mutated
        response = self._huge() if huge else self._response(example)
        return Case(response, gold, example.options, example.meta)

    def _response(self, example: Example) -> str:
        pick = self._draw.random()
        if pick < 0.45:
            text = example.response
        elif pick < 0.6:
            text = "".join(self._draw.choices(self._words, k=self._draw.randint(0, 60)))
        elif pick < 0.7:
            text = self._framed(self._latex(4))
        elif pick < 0.8:
            text = self._framed(self._json(4))
        elif pick < 0.9:
            text = "".join(self._draw.choices(PIECES, k=self._draw.randint(0, 6)))
        else:
            text = "".join(chr(self._codepoint()) for _ in range(self._draw.randint(0, 80)))
        for _ in range(self._draw.choice([0, 1, 1, 2, 3, 6])):
            text = self._mutated(text)
        return text

    def _mutated(self, text: str) -> str:
        draw = self._draw
        at, to = sorted((draw.randint(0, len(text)), draw.randint(0, len(text))))
        match draw.randrange(11):
            case 0:
                return text[:at] + text[to:]
            case 1:
                return text[:at] + draw.choice(PIECES) + text[at:]
            case 2:
                return text[:at] + draw.choice(PIECES) + text[to:]
            case 3:
                return text[:to]
            case 4:
                return text + text[at:to] * draw.randint(1, 5)
            case 5:
                other = draw.choice(self._examples).response
                return text + draw.choice(["", " ", "\n", " or ", "\n\n", ", "]) + other
            case 6:
                return re.sub(r"\d+", lambda _: draw.choice(["0", "-1", "7", "1e9", "1e999", "9" * 20, "０"]), text)
            case 7:
                return draw.choice([str.upper, str.lower, str.title, str.swapcase])(text)
            case 8:
                return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" and draw.random() < 0.3 else c for c in text)
            case 9:
                return self._framed(text)
            case _:
                return "".join(draw.sample(text, len(text))) if len(text) < 500 else text[::-1]

    def _framed(self, text: str) -> str:
        return self._draw.choice(FRAMES).replace("%s", text)

    def _latex(self, depth: int) -> str:
        draw = self._draw
        if depth == 0 or draw.random() < 0.25:
            return draw.choice(SYMBOLS)
        one, other = self._latex(depth - 1), self._latex(depth - 1)
        text = draw.choice(FORMULAS).format(a=one, b=other)
        return text if draw.random() > 0.05 else text[: draw.randint(0, len(text))]

    def _json(self, depth: int) -> str:
        draw = self._draw
        if depth == 0 or draw.random() < 0.2:
            return draw.choice([*SCALARS, json.dumps(draw.choice(self._words))])
        parts = [self._json(depth - 1) for _ in range(draw.choice([0, 1, 2, 2, 4, 4, 5]))]
        if draw.random() < 0.5:
            return f"[{', '.join(parts)}]"
        keys = [json.dumps(draw.choice([*KEYS, *self._words])) for _ in parts]
        pairs = ", ".join(f"{key}: {part}" for key, part in zip(keys, parts, strict=True))
        return f"{{{pairs}{draw.choice(['}', '}', ',}', ''])}"

    def _codepoint(self) -> int:
        return self._draw.randint(*self._draw.choice(BLOCKS))

    def _huge(self) -> str:
        piece = self._draw.choice([*PIECES, *LONG])
        text = (piece or "0") * (HUGE // max(1, len(piece)))
        return self._draw.choice(["", "The answer is ", "\\boxed{", "<think>", "```json\n", "[", "{"]) + text


def problem(score: TermScore) -> str | None:
    """Why a score is invalid, or None."""
    if not isinstance(score, TermScore) or score.status not in get_args(Status) or score.status == "gated":
        return "not a score"
    if (score.value is None) == (score.status in ("ok", "no_answer")):
        return "value and status contradict"
    if score.value is not None and not (math.isfinite(score.value) and 0 <= score.value <= 1):
        return "value outside [0, 1]"
    if len(score.detail) > MAX_DETAIL + 10 or "\n" in score.detail:
        return "a detail that is too long"
    score.detail.encode()
    return None


async def call_all(runner: WorkerPool, name: str, cases: Sequence[Case]) -> list[TermScore]:
    """The scores of the cases, in their order."""
    function = REWARDS.load(name)
    wanted = wanted_arguments(function)
    target = REWARDS.entry(name).target
    scores: list[TermScore] = []
    for first in range(0, len(cases), WAVE):
        futures = []
        for case in cases[first : first + WAVE]:
            options = pickle.dumps(checked_options(name, function, case.options))
            arguments = {key: value for key, value in case.arguments().items() if key in wanted}
            futures.append(runner.submit(Call(target, options, DEADLINE_S), arguments))
        scores += await asyncio.gather(*futures)
    return scores


def cases_of(name: str, count: int, seed: int, huge: bool = True) -> list[Case]:
    """`count` cases for a verifier, the same for the same seed; some are huge if `huge`."""
    writer = Writer(traits_of(REWARDS.load(name)).examples, seed)
    return [writer.case(huge and index % EVERY == EVERY - 1) for index in range(count)]


def fuzzable() -> list[str]:
    """The verifiers that need neither a service nor a model."""
    built_in = [name for name, entry in REWARDS.entries().items() if entry.target.startswith("morl.rewards.")]
    return [name for name in built_in if name not in ELSEWHERE]


@dataclass(frozen=True, slots=True)
class Outcome:
    """The results of one verifier's cases."""

    name: str
    statuses: Mapping[str, int]
    seconds: float
    slowest: float
    bad: Sequence[tuple[str, Case]]
    """Failures: the message and the input."""
    slow: Sequence[tuple[str, Case]]
    """The slowest calls above `SLOW_S`."""


def fuzz(runner: WorkerPool, name: str, count: int, seed: int = 0, *, huge: bool = True) -> Outcome:
    """Call a verifier with `count` cases, and with a tenth of them again in another order."""
    cases = cases_of(name, count, seed, huge)
    begin = time.perf_counter()
    scores = asyncio.run(call_all(runner, name, cases))
    seconds = time.perf_counter() - begin
    bad = []
    for case, score in zip(cases, scores, strict=True):
        message = problem(score)
        if message is None and score.status in ("error", "timeout"):
            message = f"{score.status}: {score.detail}"
        if message is not None:
            bad.append((message, case))
    again = random.Random(seed).sample(range(count), count // 10)
    repeated = asyncio.run(call_all(runner, name, [cases[index] for index in again]))
    for index, score in zip(again, repeated, strict=True):
        first = scores[index]
        if "timeout" not in (first.status, score.status) and (first.value, first.status) != (score.value, score.status):
            bad.append((f"{first.value} ({first.status}), then {score.value} ({score.status})", cases[index]))
    statuses = collections.Counter(score.status for score in scores)
    longest = sorted(range(count), key=lambda index: -scores[index].seconds)[:2]
    slow = [(f"{scores[i].seconds:.1f} s", cases[i]) for i in longest if scores[i].seconds > SLOW_S]
    return Outcome(name, statuses, seconds, scores[longest[0]].seconds, bad, slow)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000, help="responses for each verifier")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", help="verifiers, with commas")
    parser.add_argument("--save", type=Path, help="file for the inputs that failed")
    options = parser.parse_args()
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    bad = []
    print(f"{'':14s}{'ok':>8s}{'no_answer':>10s}{'bad_gold':>9s}{'error':>7s}{'timeout':>8s}{'rows/s':>9s}   slowest")
    with WorkerPool(workers=options.workers, memory_mb=1024) as runner:
        for name in options.only.split(",") if options.only else fuzzable():
            outcome = fuzz(runner, name, options.count, options.seed)
            tally = [outcome.statuses.get(status, 0) for status in ("ok", "no_answer", "bad_gold", "error", "timeout")]
            numbers = "{:8d}{:10d}{:9d}{:7d}{:8d}".format(*tally)
            print(f"{name:14s}{numbers}{options.count / outcome.seconds:9.0f}{outcome.slowest:8.2f} s", flush=True)
            for message, case in [*outcome.bad[:5], *outcome.slow]:
                shown = case.response if len(case.response) < 300 else f"{case.response[:300]}… ({len(case.response)})"
                print(f"    {message}\n      response {shown!a}")
                print(f"      gold {case.gold!a:.200} options {dict(case.options)!r}", flush=True)
            bad += [(name, message, case) for message, case in outcome.bad]
    left = {child.pid for child in psutil.Process().children(recursive=True)} - before
    print(f"{len(bad)} inputs failed; {len(left)} processes are left")
    if options.save and bad:
        lines = [
            {"reward": name, "wrong": message, "response": case.response, "gold": repr(case.gold), **case.options}
            for name, message, case in bad
        ]
        options.save.write_text("".join(json.dumps(line, default=repr) + os.linesep for line in lines))
    return 1 if bad or left else 0


if __name__ == "__main__":
    sys.exit(main())
