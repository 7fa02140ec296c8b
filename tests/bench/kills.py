"""A run whose processes are killed at random instants, compared bit by bit with an undisturbed run.

    python tests/bench/kills.py                    20 kills of learner ranks, driver, engine and reward workers
    python tests/bench/kills.py --kills 5 --seed 1

It uses the tiny model, the `hf` engine, Ray and a checkpoint every second step. A killed driver is restarted with
`--resume`. At the end, learner state, exported weights, metrics, evaluations and samples must be equal.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

import psutil
from safetensors.torch import load_file
from test_train import processes_of, rows, start, without_clock, write_recipe
from tiny import make_tiny_model

from morl.track.jsonl_files import read_rows, read_samples

VICTIMS = {"learner": "RankProcess", "driver": "", "engine": "EngineActor", "reward": "morl.rewards.pool.worker"}
"""The processes to kill, by a part of their command line."""
STUBBORN = ["learner.max_restarts=50", "rollout.max_restarts=50"]


@dataclass(frozen=True, slots=True)
class Kill:
    """One kill."""

    at_s: float
    victim: str
    pid: int
    rows: int
    """Metrics rows written before it."""


class Run:
    """A driver that is restarted after each kill."""

    def __init__(self, recipe: Path, folder: Path, ranks: int) -> None:
        self.recipe = recipe
        self.folder = folder
        self.layout = [f"learner.ranks={ranks}", f"learner.zero={2 if ranks > 1 else 0}"]
        self.starts = 0
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        self.starts += 1
        return start(self.recipe, "--resume", *STUBBORN, *self.layout)

    def victims(self, kind: str) -> list[psutil.Process]:
        """Living processes of a kind."""
        if kind == "driver":
            return [psutil.Process(self.process.pid)]
        return [child for child in processes_of(self.process) if VICTIMS[kind] in _command(child)]

    def kill(self, kind: str, draw: random.Random) -> int | None:
        """Kill one process of a kind; returns its id, or None if there is none."""
        try:
            victims = self.victims(kind)
        except psutil.NoSuchProcess:
            return None
        if not victims:
            return None
        chosen = draw.choice(victims)
        chosen.send_signal(signal.SIGKILL)
        if kind == "driver":
            self.process.communicate()
            self.process = self._start()
        return chosen.pid

    def finish(self) -> tuple[int, str]:
        """Wait for the end; returns exit code and output."""
        output, _ = self.process.communicate(timeout=1200)
        return self.process.returncode, output


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def disturb(run: Run, kills: int, draw: random.Random) -> Iterator[Kill]:
    """Kill at random instants: half of them right after a step, half at any time, including setup."""
    began = time.monotonic()
    done = 0
    while done < kills:
        if draw.random() < 0.5:
            before, until = len(rows(run.folder)), time.monotonic() + 60
            while len(rows(run.folder)) <= before and time.monotonic() < until and run.process.poll() is None:
                time.sleep(0.01)
            time.sleep(draw.random())
        else:
            time.sleep(draw.uniform(0, 8))
        if run.process.poll() is not None:
            return
        kind = draw.choice(list(VICTIMS))
        written = len(rows(run.folder))
        pid = run.kill(kind, draw)
        if pid is not None:
            done += 1
            yield Kill(time.monotonic() - began, kind, pid, written)


def contents(run: Path) -> dict[str, Any]:
    """Everything that must not depend on kills."""
    newest = max((run / "checkpoints").glob("step-*"))
    exported = run.parent / "exported"
    subprocess.run([sys.executable, "-m", "morl", "export", str(run), "--out", str(exported)], check=True)
    return {
        "learner state": {
            str(file.relative_to(newest)): _digest(file) for file in sorted(newest.rglob("*")) if file.is_file()
        },
        # Not the file: the order of its header's entries varies.
        "weights": {
            name: hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
            for file in sorted(exported.glob("*.safetensors"))
            for name, tensor in load_file(file).items()
        },
        "metrics": [without_clock(row) for row in read_rows(run / "metrics.jsonl")],
        "evaluations": list(read_rows(run / "eval.jsonl")),
        "samples": [_timeless(row) for row in read_samples(run / "samples")],
    }


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    terms = {name: {k: v for k, v in term.items() if k != "seconds"} for name, term in row["terms"].items()}
    return row | {"terms": terms}


def difference(one: Any, other: Any) -> str:
    """The first difference of two contents; empty if they are equal."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in {**one, **other}:
            if one.get(key) != other.get(key):
                return f"{key}: {difference(one.get(key), other.get(key))}"
    elif isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            return f"{len(one)} rows, {len(other)} undisturbed"
        for number, (a, b) in enumerate(zip(one, other, strict=True)):
            if a != b:
                return f"row {number}: {difference(a, b)}"
    return "" if one == other else f"{json.dumps(one):.60}, undisturbed {json.dumps(other):.60}"


def main() -> int:
    """Run both and compare them; returns 1 when anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ranks", type=int, default=2)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    folder = Path(tempfile.mkdtemp(prefix="morl-kills-"))
    model = make_tiny_model(folder / "model", seed=0)
    recipes = [write_recipe(folder / name, model, steps=options.steps) for name in ("calm", "hit")]

    calm = folder / "calm" / "runs" / "tiny"
    code, output = Run(recipes[0], calm, options.ranks).finish()
    if code:
        print(output)
        return 1
    hit = Run(recipes[1], folder / "hit" / "runs" / "tiny", options.ranks)
    print(f"{'#':>3} {'seconds':>8} {'victim':8} {'pid':>8} {'rows':>5}")
    number = 0
    for number, kill in enumerate(disturb(hit, options.kills, draw), 1):
        print(f"{number:3} {kill.at_s:8.1f} {kill.victim:8} {kill.pid:8} {kill.rows:5}", flush=True)
    code, output = hit.finish()
    print(f"{number} kills, {hit.starts} starts of the driver, exit code {code}, everything in {folder}")
    if code:
        print(output[-3000:])
        return 1
    expected, got = contents(calm), contents(hit.folder)
    differences = {name: difference(got[name], expected[name]) for name in expected}
    for name, first in differences.items():
        print(f"{name:14} {first or 'the same'}")
    return int(any(differences.values()))


if __name__ == "__main__":
    sys.exit(main())
