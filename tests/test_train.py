"""Whole runs of a tiny model, as a user starts them: `morl train` in a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from morl.errors import RunError
from morl.evaluation.held_out import evaluate
from morl.recipe.load import load_recipe
from morl.recipe.train_recipe import Recipe
from morl.run.checkpoint import newest_good
from morl.track.jsonl_files import read_samples
from morl.train import train

PLUGIN = """
import time
from morl.rewards import reward


@reward("digit_share")
def digit_share(response: str, *, nap_s: float = 0.0) -> float:
    time.sleep(nap_s)
    return sum(c.isdigit() for c in response) / max(1, len(response))


@reward("brevity")
def brevity(response: str) -> float:
    return 1.0 / (1.0 + len(response))
"""

RECIPE = """
run: {{name: tiny, seed: 3, steps: {steps}, checkpoint_every: 2, dir: {folder}/runs}}
model: {{path: {model}}}
plugins: [{folder}/tiny_rewards.py]
objectives:
  digits:
    share: 0.75
    data: {{source: jsonl, path: {folder}/rows.jsonl}}
    prompt: "{{{{ question }}}}"
    rewards: [{{use: digit_share, nap_s: {nap_s}}}]
  brief:
    share: 0.25
    data: {{source: jsonl, path: {folder}/rows.jsonl}}
    prompt: "Say something about {{{{ question }}}}."
    rewards: [{{use: brevity}}]
rollout: {{engine: hf, prompts_per_step: 8, samples_per_prompt: 4, max_new_tokens: 10, options: {{max_sequences: 8}}}}
learner: {{lr: 1.0e-3, warmup_steps: 1, schedule: linear}}
scoring: {{workers: 2}}
eval: {{sets: {{digits: {{data: {{source: jsonl, path: {folder}/rows.jsonl, take: 6}}}}}}}}
"""


def write_recipe(folder: Path, model: Path, *, steps: int = 6, nap_s: float = 0.0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tiny_rewards.py").write_text(PLUGIN)
    (folder / "rows.jsonl").write_text("".join(json.dumps({"question": f"{i} + {i}"}) + "\n" for i in range(60)))
    path = folder / "tiny.yaml"
    path.write_text(RECIPE.format(folder=folder, model=model, steps=steps, nap_s=nap_s))
    return path


def start(recipe: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "morl", "train", str(recipe), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = process.communicate(timeout=300)
    return process.returncode, said


def rows(run: Path) -> list[dict[str, Any]]:
    file = run / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def without_clock(row: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in row.items() if not (k.startswith("time/") or k.endswith(("_per_s", "/seconds")))}


def final_state(run: Path, step: int) -> list[bytes]:
    """All that the learner's ranks have saved."""
    files = sorted((run / "checkpoints" / f"step-{step:06d}" / "learner").iterdir())
    assert files
    return [file.read_bytes() for file in files]


def wait_until(condition: Callable[[], Any], process: subprocess.Popen[str], limit_s: float = 180) -> None:
    until = time.monotonic() + limit_s
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.01)


def processes_of(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """Everything that the run has started, Ray's actors too."""
    return psutil.Process(process.pid).children(recursive=True)


@pytest.fixture(scope="module")
def uninterrupted(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("uninterrupted")
    code, said = finish(start(write_recipe(folder, tiny_model)))
    assert code == 0, said
    return folder / "runs" / "tiny"


def test_a_run_writes_what_it_promises(uninterrupted: Path) -> None:
    assert [row["step"] for row in rows(uninterrupted)] == [1, 2, 3, 4, 5, 6]
    for row in rows(uninterrupted):
        assert row["policy/logprob_mismatch"] < 1e-4
        assert row["objective/digits/samples"] == 24
        assert row["objective/brief/samples"] == 8
        assert row["term/digits/digit_share/value"] == row["objective/digits/reward"]
        for name in ("time/rollout_s", "time/reward_s", "time/learner_s", "time/sync_s", "rollout/tokens_per_s"):
            assert row[name] >= 0
    assert [row["learner/lr"] for row in rows(uninterrupted)][:2] == [0.0005, 0.001]
    evaluations = [json.loads(line) for line in (uninterrupted / "eval.jsonl").read_text().splitlines()]
    assert [(row["step"], row["set"], row["n"]) for row in evaluations] == [(0, "digits", 6), (6, "digits", 6)]
    for step in range(1, 7):
        seen = [
            (r["prompt_id"], r["index"]) for r in read_samples(uninterrupted / f"samples/step-{step:06d}.jsonl.zst")
        ]
        assert len(seen) == len(set(seen)) == 32
    assert sorted(path.name for path in (uninterrupted / "checkpoints").iterdir()) == ["step-000004", "step-000006"]


def test_every_sample_is_on_policy(uninterrupted: Path) -> None:
    for step in range(1, 7):
        samples = read_samples(uninterrupted / f"samples/step-{step:06d}.jsonl.zst")
        assert {row["policy_version"] for row in samples} == {step - 1}


def test_a_killed_run_goes_on_as_if_nothing_had_happened(uninterrupted: Path, tiny_model: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, tiny_model)
    run = tmp_path / "runs" / "tiny"
    process = start(recipe)
    wait_until(lambda: len(rows(run)) >= 3, process)
    time.sleep(0.2)  # into the rollout of the step after
    process.send_signal(signal.SIGKILL)
    finish(process)
    assert len(rows(run)) < 6
    code, said = finish(start(recipe, "--resume"))
    assert code == 0, said
    assert list(map(without_clock, rows(run))) == list(map(without_clock, rows(uninterrupted)))
    assert final_state(run, 6) == final_state(uninterrupted, 6)


def test_without_ray_the_same_run(uninterrupted: Path, tiny_model: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, tiny_model)
    code, said = finish(start(recipe, "--local", "learner.tokens_per_microbatch=64"))
    assert code == 0, said
    for ours, theirs in zip(rows(tmp_path / "runs" / "tiny"), rows(uninterrupted), strict=True):
        for name in ("objective/digits/reward", "objective/brief/reward", "rollout/tokens"):
            assert ours[name] == pytest.approx(theirs[name], abs=0.05)


def test_whatever_dies_costs_nothing_but_time(uninterrupted: Path, tiny_model: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, tiny_model, nap_s=0.05)
    run = tmp_path / "runs" / "tiny"
    process = start(recipe)

    def kill(name: str) -> None:
        victims = [p for p in processes_of(process) if name in " ".join(p.cmdline())]
        assert victims, f"no process is called {name}"
        for victim in victims:
            victim.kill()

    # The learner before the first checkpoint, and after the second.
    for after, name in ((1, "RankProcess"), (2, "EngineActor"), (3, "morl.rewards.pool.worker"), (5, "RankProcess")):
        wait_until(lambda after=after: len(rows(run)) >= after, process)
        kill(name)
        if name == "RankProcess":
            wait_until(lambda after=after: len(rows(run)) < after, process)
    code, said = finish(process)
    assert code == 0, said
    assert list(map(without_clock, rows(run))) == list(map(without_clock, rows(uninterrupted)))
    assert (run / "eval.jsonl").read_bytes() == (uninterrupted / "eval.jsonl").read_bytes()
    for step in range(1, 7):
        ours, theirs = (read_samples(own / f"samples/step-{step:06d}.jsonl.zst") for own in (run, uninterrupted))
        assert [(r["response"], r["logprobs"]) for r in ours] == [(r["response"], r["logprobs"]) for r in theirs]
    state = "checkpoints/step-000006/learner/rank-00000.safetensors"
    assert (run / state).read_bytes() == (uninterrupted / state).read_bytes()
    log = (run / "log.txt").read_text()
    assert "continues from its beginning (attempt 1 of 3): learner." in log
    assert "step-000004 (attempt 1 of 3)" in log


def test_restarts_without_progress_come_to_an_end(tiny_model: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, tiny_model)
    run = tmp_path / "runs" / "tiny"
    process = start(recipe, "learner.max_restarts=0")
    wait_until(lambda: len(rows(run)) >= 3, process)
    for rank in processes_of(process):
        if "RankProcess" in " ".join(rank.cmdline()):
            rank.kill()
    code, said = finish(process)
    assert code == 1
    assert "rank 0 (pid" in said
    assert "died" in said
    assert [path.name for path in (run / "checkpoints").glob("step-*")] == ["step-000002"]


@pytest.mark.parametrize("enough", [56, 2])
def test_too_large_microbatches_are_halved_once(tiny_model: Path, tmp_path: Path, enough: int) -> None:
    recipe = write_recipe(tmp_path, tiny_model, steps=2)
    loss = [f"algorithm.loss={{use: hungry, enough: {enough}}}", "learner.tokens_per_microbatch=200"]
    plugins = f"plugins=[{tmp_path}/tiny_rewards.py, {Path(__file__).parent}/broken_losses.py]"
    code, said = finish(start(recipe, "--local", "eval={}", plugins, *loss))
    log = (tmp_path / "runs/tiny/log.txt").read_text()
    assert log.count("ran out of memory with learner.tokens_per_microbatch=200; one retry with 100") == 1
    if enough == 2:
        assert code == 1
        assert "learner.tokens_per_microbatch=100: the learner is out of memory again" in said
    else:
        assert code == 0, said
        assert len(rows(tmp_path / "runs" / "tiny")) == 2


def test_a_signal_before_the_first_step_claims_nothing(tiny_model: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, tiny_model)
    process = start(recipe, "--local")
    log = tmp_path / "runs/tiny/log.txt"
    wait_until(lambda: log.exists() and "model" in log.read_text(), process)
    process.send_signal(signal.SIGTERM)
    code, said = finish(process)
    assert code == 1, said
    assert "SIGTERM before the first step was done: nothing is saved" in said
    assert "state saved" not in said
    assert list((tmp_path / "runs/tiny/checkpoints").iterdir()) == []


def test_a_run_that_is_done_stays_done(uninterrupted: Path) -> None:
    before = (uninterrupted / "metrics.jsonl").read_bytes()
    code, said = finish(start(uninterrupted.parent.parent / "tiny.yaml", "--resume"))
    assert code == 0, said
    assert "step 6" in said  # the table, once more
    assert (uninterrupted / "metrics.jsonl").read_bytes() == before
    code, said = finish(start(uninterrupted.parent.parent / "tiny.yaml"))
    assert code == 2
    assert "--resume" in said


def test_nothing_is_left_running(uninterrupted: Path) -> None:
    stray = [
        p.info["cmdline"]
        for p in psutil.process_iter(["cmdline"])
        if str(uninterrupted) in " ".join(p.info["cmdline"] or [])
    ]
    assert stray == []


def test_a_run_with_vllm_hears_sigterm_saves_and_goes_on_with_hf(tiny_model: Path, tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, tiny_model, steps=500)
    run = tmp_path / "runs" / "tiny"
    ranks = ["learner.ranks=2", "learner.zero=3", "rollout.temperature=0.8", "run.checkpoint_every=0"]
    process = start(recipe, *ranks, "rollout.engine=vllm", "rollout.options={max_model_len: 256}")
    wait_until(lambda: len(rows(run)) >= 3, process)
    os.killpg(process.pid, signal.SIGTERM)  # every process of the run hears it: vLLM's, Ray's, the ranks'
    code, said = finish(process)
    assert code == 130, said
    done = rows(run)[-1]["step"]
    assert [path.name for path in (run / "checkpoints").iterdir()] == [f"step-{done:06d}"]
    code, said = finish(start(recipe, "--resume", f"run.steps={done + 1}", *ranks))
    assert code == 0, said
    assert [row["step"] for row in rows(run)] == list(range(1, done + 2))
    assert all(row["policy/logprob_mismatch"] < 1e-4 for row in rows(run))
    exported = subprocess.run(
        [sys.executable, "-m", "morl", "export", str(run), "--out", str(tmp_path / "model")],
        capture_output=True,
        text=True,
    )
    assert exported.returncode == 0, exported.stderr
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    before = AutoModelForCausalLM.from_pretrained(tiny_model)
    assert not torch.equal(model.lm_head.weight, before.lm_head.weight)


def loaded(path: Path, *overrides: str) -> Recipe:
    """The recipe for this process, where a plugin of this name may be known already."""
    own = ["plugins=null", "objectives.brief=null", "objectives.digits.rewards=[{use: length, maximum: 10}]"]
    return load_recipe(path, [*own, *overrides])


def evaluations(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "eval.jsonl").read_text().splitlines()]


def test_an_evaluation_that_was_not_reached_is_made_up_for(tiny_model: Path, tmp_path: Path) -> None:
    recipe = loaded(write_recipe(tmp_path, tiny_model, steps=4), "eval.every=2", "run.keep_checkpoints=2")
    assert train(recipe, local=True)
    run = tmp_path / "runs" / "tiny"
    whole = evaluations(run)
    assert [row["step"] for row in whole] == [0, 2, 4]
    # As if it had been killed after the checkpoint of step 2, before its evaluation.
    shutil.rmtree(run / "checkpoints" / "step-000004")
    (run / "eval.jsonl").write_text(json.dumps(whole[0]) + "\n")
    assert train(recipe, resume=True, local=True)
    assert evaluations(run) == whole
    # And what was measured is not measured again.
    shutil.rmtree(run / "checkpoints" / "step-000004")
    assert train(recipe, resume=True, local=True)
    assert evaluations(run) == whole


@pytest.mark.parametrize("step", [0, 2, 4])
def test_who_asks_for_the_end_does_not_wait_for_an_evaluation(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    recipe = loaded(write_recipe(tmp_path, tiny_model, steps=4), "eval.every=2", "run.checkpoint_every=0")
    run, given_up = tmp_path / "runs" / "tiny", []

    async def evaluate_for_long(*parts: Any, **asked: Any) -> None:
        if asked["step"] == step:
            os.kill(os.getpid(), signal.SIGTERM)
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                given_up.append(asked["step"])
                raise
        await evaluate(*parts, **asked)

    with monkeypatch.context() as patch:
        patch.setattr("morl.train.evaluate", evaluate_for_long)
        if step:
            assert not train(recipe, local=True)
            assert newest_good(run / "checkpoints") == run / "checkpoints" / f"step-{step:06d}"
        else:
            with pytest.raises(RunError, match="SIGTERM before the first step was done"):
                train(recipe, local=True)
    assert given_up == [step]
    # The next process makes up for it.
    assert train(recipe, resume=True, local=True)
    assert [row["step"] for row in evaluations(run)] == [0, 2, 4]
    assert train(recipe, resume=True, local=True)
    assert len(evaluations(run)) == 3
