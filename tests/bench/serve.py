"""`morl serve` under load: many clients for a minute, while one replica is killed.

    python tests/bench/serve.py [--clients 64] [--seconds 60] [--items 1] [--replicas 2:2]

Run by hand; it starts a service. Exit code 1 when a request failed, or an item got no score or a wrong one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import httpx
import psutil

RECIPE = """
run: {name: bench, steps: 1}
model: {path: none}
objectives:
  math:
    share: 1
    data: {source: jsonl, path: none.jsonl}
    prompt: "{{ q }}"
    gold: "{{ a }}"
    rewards: [{use: math, weight: 3}, {use: length, unit: words, maximum: 20}]
rollout: {prompts_per_step: 1, samples_per_prompt: 2, max_new_tokens: 8}
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--items", type=int, default=1, help="items per request")
    parser.add_argument("--replicas", default="2:2")
    parser.add_argument("--spare", action="store_true", help="kill nothing, for comparison")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        recipe = Path(folder) / "bench.yaml"
        recipe.write_text(RECIPE)
        command = [sys.executable, "-m", "morl", "serve", str(recipe), "--port", "0", "--replicas", options.replicas]
        environment = {key: value for key, value in os.environ.items() if key != "MORL_TOKEN"}
        service = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
        try:
            line = service.stdout.readline().strip()
            print(line or "the service did not start")
            return asyncio.run(load(line.rpartition(" ")[2], service.pid, options)) if line else 1
        finally:
            service.send_signal(signal.SIGTERM)
            service.wait(60)


async def load(url: str, service: int, options: argparse.Namespace) -> int:
    seconds: list[float] = []
    failures: Counter[str] = Counter()
    lost = wrong = 0
    start = time.monotonic()

    async def client(number: int) -> None:
        nonlocal lost, wrong
        async with httpx.AsyncClient(base_url=url, timeout=60) as http:
            count = 0
            while time.monotonic() - start < options.seconds:
                count += 1
                answers = [(number + count + i) % 7 for i in range(options.items)]
                rows = [{"objective": "math", "response": rf"It is \boxed{{{a}}}", "gold": "3"} for a in answers]
                before = time.perf_counter()
                try:
                    answer = await http.post("/score", json={"items": rows})
                    answer.raise_for_status()
                    values = [score["value"] for score in answer.json()["scores"]]
                except (httpx.HTTPError, ValueError) as error:
                    failures[type(error).__name__ + " " + str(error)[:60]] += 1
                    lost += len(rows)
                    continue
                seconds.append(time.perf_counter() - before)
                lost += sum(value is None for value in values) + abs(len(values) - len(rows))
                expected = [1.0 if a == 3 else 0.25 for a in answers]
                wrong += sum(v is not None and v != e for v, e in zip(values, expected, strict=False))

    async def killer() -> None:
        if options.spare:
            return
        await asyncio.sleep(options.seconds / 3)
        victims = replicas(service)
        print(f"after {options.seconds / 3:.0f} s: kill -9 of one of {len(victims)} replicas of math")
        victims[0].kill()

    await asyncio.gather(killer(), *(client(number) for number in range(options.clients)))
    took = time.monotonic() - start
    seconds.sort()
    requests = len(seconds) + sum(failures.values())
    metrics = httpx.get(f"{url}/metrics").text
    retries = sum(map(float, re.findall(r"^morl_replica_retries_total\{.*\} (.*)$", metrics, re.MULTILINE)))
    print(f"clients {options.clients}, items per request {options.items}, load average {os.getloadavg()[0]:.1f}")
    print(f"replicas of math at the end: {len(replicas(service))}")
    rate = requests / took
    print(f"requests {requests} in {took:.1f} s: {rate:.0f} requests/s, {rate * options.items:.0f} items/s")
    print(f"errors {sum(failures.values())} {dict(failures) or ''}; calls retried {retries:.0f}")
    print(f"items lost {lost}, scored wrongly {wrong}")
    if seconds:
        p50, p99 = seconds[len(seconds) // 2], seconds[int(len(seconds) * 0.99)]
        print(f"p50 {p50 * 1e3:.0f} ms, p99 {p99 * 1e3:.0f} ms, slowest {seconds[-1] * 1e3:.0f} ms")
    return int(bool(failures or lost or wrong or not seconds))


def replicas(service: int) -> list[psutil.Process]:
    """Replicas of the reward `math`."""
    matches = []
    for process in psutil.Process(service).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            title = " ".join(process.cmdline())
            if title.startswith("ray::ServeReplica") and ":math" in title:
                matches.append(process)
    return matches


if __name__ == "__main__":
    sys.exit(main())
