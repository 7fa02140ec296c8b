"""The algorithm on one page, and the framework: the same numbers from both."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PAGE = Path(__file__).parents[1] / "examples" / "one_page.py"
STEPS = 3
REWARDS: dict[str, tuple[float, str, dict[str, Any]]] = {
    "brief": (0.6, "length", {"unit": "characters", "maximum": 10, "margin": 40}),
    "digits": (0.4, "regex", {"pattern": " 3"}),
}
"""Share, reward and its options; of both, a random model's answers have some more and some less."""
ROLLOUT = {"prompts_per_step": 5, "samples_per_prompt": 4, "max_new_tokens": 24, "temperature": 0.9}
LEARNER = {"lr": 1e-3, "warmup_steps": 1, "max_grad_norm": 0.5}


@pytest.fixture(scope="module")
def one_page() -> ModuleType:
    spec = importlib.util.spec_from_file_location("one_page", PAGE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["one_page"] = module  # dataclasses look for the annotations of their module there
    spec.loader.exec_module(module)
    return module


def rows(name: str) -> list[dict[str, Any]]:
    # So few that epochs end within the steps; of many lengths, so that prompts are padded.
    return [{"prompt": f"{name}: what is {i} + {i}?" + " yes" * i, "gold": i} for i in range(6)]


@pytest.fixture(scope="module")
def framework(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, float]]:
    """The metrics of each step of `morl train --local`."""
    folder = tmp_path_factory.mktemp("framework")
    objectives = {}
    for name, (share, reward, options) in REWARDS.items():
        file = folder / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows(name)))
        objectives[name] = {
            "share": share,
            "data": {"source": "jsonl", "path": str(file)},
            "prompt": "{{ prompt }}",
            "gold": "{{ gold }}",
            "rewards": [{"use": reward, **options}],
        }
    recipe = {
        "run": {"name": "framework", "seed": 3, "steps": STEPS, "dir": str(folder / "runs")},
        "model": {"path": str(tiny_model)},
        "objectives": objectives,
        "rollout": {"engine": "hf", **ROLLOUT},
        "learner": {"schedule": "constant", **LEARNER},
    }
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    command = [sys.executable, "-m", "morl", "train", str(folder / "recipe.yaml"), "--local"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = (folder / "runs" / "framework" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_the_page_computes_what_the_framework_computes(
    one_page: ModuleType, framework: list[dict[str, float]], tiny_model: Path
) -> None:
    objectives = {
        name: one_page.Objective(share=share, rows=rows(name), reward=reward, options=options)
        for name, (share, reward, options) in REWARDS.items()
    }
    settings = one_page.Settings(seed=3, steps=STEPS, **ROLLOUT, **LEARNER)
    page = list(one_page.train(one_page.Policy(tiny_model, settings.temperature), objectives, settings))
    assert len(framework) == STEPS
    losses = [row["learner/loss"] for row in framework]
    assert [step.loss for step in page] == pytest.approx(losses, abs=1e-5, rel=0)
    for name in objectives:
        rewards = [row[f"objective/{name}/reward"] for row in framework]
        assert [step.rewards[name] for step in page] == pytest.approx(rewards, abs=1e-9, rel=0)
        assert all(0 < reward < 1 for reward in rewards), "no signal: the comparison would show nothing"
    lengths = [row[f"objective/{name}/length"] for row in framework for name in objectives]
    assert any(length < ROLLOUT["max_new_tokens"] for length in lengths), "no answer ended by itself"
    # Two hundred times the tolerance, so that a wrong weight, advantage or update shows.
    assert all(abs(loss) > 2e-3 for loss in losses)
    assert all(abs(a - b) > 2e-3 for a, b in pairwise(losses))


def test_the_page_runs_as_a_script_and_learns_from_a_file(tiny_model: Path, tmp_path: Path) -> None:
    for name in ("sums", "words"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(name)))
    data = [f"repetition={tmp_path / 'sums.jsonl'}", f"number={tmp_path / 'words.jsonl'}"]
    command = [sys.executable, str(PAGE), "--model", str(tiny_model), "--steps", "2", "--data", *data]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2
    assert all("sums" in line and "words" in line for line in lines)


def test_the_page_is_one_page() -> None:
    assert len(PAGE.read_text(encoding="utf-8").splitlines()) < 250
