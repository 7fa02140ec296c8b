"""Scoring speed, compared with math-verify in a plain loop.

    python tests/bench/rewards.py [--rows 4000] [--boxes 16384] [--workers 2] [--priority 15]

Run by hand. The two sides take turns, so that other load on the machine slows both. Workers run in separate sessions,
and Linux schedules by session: `nice` does not affect them, but `--priority` (as root) does. Exit code 1 when the pool
and the loop disagree on a verdict, the pool is less than 1.6 times as fast, or it scores fewer than 20,000 boxes per
second.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import os
import pickle
import random
import sys
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pooled
import psutil
from math_verify import parse, verify

from morl.recipe.schema.objective_section import ObjectiveSpec
from morl.rewards.pool.worker_process import Call
from morl.rewards.scorer import Scorer
from morl.rewards.verifiers.box import box
from morl.types import Prompt, Sample

SLICE = 500
"""Rows of mathematics per turn."""
SAMPLES, PROMPTS = 16, 128
"""Of a step of boxes."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--boxes", type=int, default=16384)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--priority", type=int, default=0, help="over other sessions on the machine")
    options = parser.parse_args()
    print(f"{len(os.sched_getaffinity(0))} cores, {options.workers} workers, load {os.getloadavg()[0]:.1f}")
    return asyncio.run(measure(options))


async def measure(options: argparse.Namespace) -> int:
    uses = {"math": "math", "box": "box", "box_in_worker": "box_in_worker"}
    objectives = {name: objective({"use": use}) for name, use in uses.items()}
    with Scorer(objectives, workers=options.workers) as scorer:
        await scorer.start()
        await warm(scorer, options.workers)
        if options.priority:
            for process in (psutil.Process(), *psutil.Process().children()):
                Path(f"/proc/{process.pid}/autogroup").write_text(str(-options.priority))
        good = [await compare_math(scorer, options.rows), await count_boxes(scorer, options.boxes)]
    return 0 if all(good) else 1


def objective(*rewards: dict[str, Any]) -> ObjectiveSpec:
    data = {"source": "jsonl", "path": "none.jsonl"}
    return ObjectiveSpec.model_validate({"share": 1, "data": data, "prompt": "x", "rewards": list(rewards)})


async def warm(scorer: Scorer, workers: int) -> None:
    """Score enough formulas of each kind that all workers have imported everything."""
    for _ in range(3):
        rows = math_rows(100 * workers, seed=1)
        await asyncio.gather(*(scorer.score(*item("math", gold, response)) for _, gold, response in rows))
        await asyncio.sleep(0.5)


def item(name: str, gold: Any, response: str) -> tuple[Prompt, Sample]:
    prompt = Prompt(f"{name}/0", name, ({"role": "user", "content": "?"},), (), gold)
    return prompt, Sample(prompt.id, 0, (1,), (1,), (0.0,), 0, "stop", response)


# Mathematics


def math_rows(count: int, seed: int = 0) -> list[tuple[str, str, str]]:
    """`(kind, gold, response)`: every second response is right, half of them in another notation."""
    draw = random.Random(seed)

    def integer() -> tuple[str, str]:
        value = draw.choice([draw.randint(-50, 50), draw.randint(1000, 99_999)])
        return str(value), f"{value:,}"

    def decimal() -> tuple[str, str]:
        value = draw.randint(0, 999) + Fraction(draw.choice([1, 3, 7, 9]), draw.choice([2, 4, 5, 8, 10, 100]))
        value += value.denominator == 1 and Fraction(1, 2)
        return f"{float(value)}", rf"\frac{{{value.numerator}}}{{{value.denominator}}}"

    def fraction() -> tuple[str, str]:
        bottom, factor = draw.randint(2, 60), draw.randint(2, 4)
        top = bottom * draw.randint(0, 5) + draw.randint(1, bottom - 1)
        return rf"\frac{{{top}}}{{{bottom}}}", rf"\frac{{{top * factor}}}{{{bottom * factor}}}"

    def radical() -> tuple[str, str]:
        factor, root = draw.randint(2, 9), draw.choice([2, 3, 5, 6, 7, 10])
        return rf"{factor}\sqrt{{{root}}}", rf"\sqrt{{{factor**2 * root}}}"

    def sum_of_radicals() -> tuple[str, str]:
        number, root = draw.randint(1, 20), draw.choice([2, 3, 5, 7])
        return rf"{number}+\sqrt{{{root}}}", rf"\sqrt{{{root}}}+{number}"

    def finite_set() -> tuple[str, str]:
        numbers = [str(number) for number in draw.sample(range(-9, 30), 3)]
        return rf"\{{{', '.join(numbers)}\}}", rf"\{{{','.join(reversed(numbers))}\}}"

    def interval() -> tuple[str, str]:
        low, high = draw.randint(-9, 9), draw.randint(10, 30)
        return f"({low}, {high}]", f"({low},{high}]"

    def polynomial() -> tuple[str, str]:
        a, b = draw.randint(2, 9), draw.randint(1, 9)
        return f"{a}x^2+{b}x", f"x({a}x+{b})"

    kinds = [integer, integer, decimal, fraction, fraction, radical, sum_of_radicals, finite_set, interval, polynomial]
    rows = []
    for index in range(count):
        kind = draw.choice(kinds)
        gold, rewritten = kind()
        answer = kind()[0] if index % 2 else gold if index % 4 else rewritten
        steps = " ".join(f"Then we get $x_{{{step}}} = {draw.randint(2, 99)}$." for step in range(draw.randint(2, 8)))
        rows.append((kind.__name__, gold, f"Let us see. {steps} So the answer is $\\boxed{{{answer}}}$."))
    return rows


async def compare_math(scorer: Scorer, count: int) -> bool:
    rows = math_rows(count)
    for _, gold, response in math_rows(200, seed=1):
        plainly(gold, response)
    alone, pooled_s, agree = 0.0, 0.0, 0
    by_kind: dict[str, list[float]] = collections.defaultdict(lambda: [0, 0.0])
    for first in range(0, count, SLICE):
        part = rows[first : first + SLICE]
        expected = []
        for kind, gold, response in part:
            begin = time.perf_counter()
            expected.append(plainly(gold, response))
            passed = time.perf_counter() - begin
            alone += passed
            by_kind[kind][0] += 1
            by_kind[kind][1] += passed
        samples = [item("math", gold, response) for _, gold, response in part]
        begin = time.perf_counter()
        scores = await asyncio.gather(*(scorer.score(*one) for one in samples))
        pooled_s += time.perf_counter() - begin
        agree += sum(bool(score.value) == same for score, same in zip(scores, expected, strict=True))
    print(f"\nmath, {count} responses                 rows/s")
    print(f"  math-verify in a plain loop       {count / alone:8.0f}")
    print(f"  Scorer.score, all at once         {count / pooled_s:8.0f}   {alone / pooled_s:.2f} times")
    print(f"  the same verdict                  {agree / count:8.1%}")
    shares = ", ".join(f"{kind} {n:.0f} x {1000 * s / n:.1f} ms" for kind, (n, s) in sorted(by_kind.items()))
    print(f"  the loop's time: {shares}")
    return agree == count and alone >= 1.6 * pooled_s


def plainly(gold: str, response: str) -> bool:
    return bool(verify(parse(f"${gold}$"), parse(response)))


# Boxes


def box_rows(count: int, seed: int = 0) -> list[tuple[list[int], str]]:
    draw = random.Random(seed)
    rows = []
    for _ in range(count // SAMPLES):
        gold = [draw.randint(0, 500), draw.randint(0, 400), draw.randint(510, 1000), draw.randint(410, 900)]
        for _ in range(SAMPLES):
            boxes = [{"bbox_2d": [side + draw.randint(-9, 9) for side in gold], "label": "dog"}]
            rows.append((gold, f"The dog is left of the tree.\n```json\n{str(boxes).replace(chr(39), chr(34))}\n```"))
    return rows


async def count_boxes(scorer: Scorer, count: int) -> bool:
    rows = box_rows(count)
    call = Call("morl.rewards.verifiers.box:box", pickle.dumps({}), 10.0)

    async def function_only(part: Sequence[tuple[Prompt, Sample]]) -> None:
        for prompt, sample in part:
            box(sample.text, prompt.gold, (), {})

    async def runner_only(part: Sequence[tuple[Prompt, Sample]]) -> None:
        calls = ({"response": s.text, "gold": p.gold, "media": p.media, "meta": p.meta} for p, s in part)
        await asyncio.gather(*(scorer.runner.submit(call, arguments) for arguments in calls))

    async def group(part: Sequence[tuple[Prompt, Sample]]) -> None:
        await asyncio.gather(*(scorer.score(*one) for one in part))

    async def step(part: Sequence[tuple[Prompt, Sample]]) -> None:
        await asyncio.gather(*(group(part[first : first + SAMPLES]) for first in range(0, len(part), SAMPLES)))

    ways = {
        "the function alone, in one process": ("box", function_only),
        "WorkerPool.submit, in workers": ("box", runner_only),
        "Scorer.score, in workers": ("box_in_worker", step),
        "Scorer.score, as registered (inline)": ("box", step),
    }
    seconds: dict[str, list[float]] = collections.defaultdict(list)
    work: collections.Counter[str] = collections.Counter()
    size = SAMPLES * PROMPTS
    for first in range(-size, len(rows), size):  # the first turn warms up
        for name, (use, way) in ways.items():
            part = [item(use, gold, response) for gold, response in rows[max(first, 0) :][:size]]
            begin, before = time.perf_counter(), cpu_seconds()
            await way(part)
            seconds[name].append(time.perf_counter() - begin)
            work[name] += cpu_seconds() - before
    print(f"\nbox, steps of {PROMPTS} prompts x {SAMPLES} samples    scores/s    fastest step    processor time of one")
    for name, taken in seconds.items():
        each = 1e6 * work[name] / (len(rows) + size)
        print(f"  {name:38s} {len(rows) / sum(taken[1:]):9.0f} {size / min(taken[1:]):15.0f} {each:21.0f} us")
    return all(len(rows) >= 20_000 * sum(seconds[name][1:]) for name in list(ways)[1:])


def cpu_seconds() -> float:
    """CPU seconds of this process and its workers."""
    driver = psutil.Process()
    return sum(sum(process.cpu_times()[:2]) for process in (driver, *driver.children()))


assert pooled.EXAMPLES, "the import registers it"

if __name__ == "__main__":
    sys.exit(main())
