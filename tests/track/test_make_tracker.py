"""The trackers together: what a run leaves behind, and what a resumed one goes on with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from track.groups import make_group

from morl.errors import MissingExtraError
from morl.recipe.load import load_recipe
from morl.recipe.train_recipe import Recipe
from morl.track.jsonl_files import read_rows, write_samples
from morl.track.metrics import step_metrics
from morl.track.trackers import make_tracker

RECIPE = """
run: {name: tracked, steps: 4}
model: {path: models/tiny}
objectives:
  math:
    share: 1
    data: {source: jsonl, path: rows.jsonl}
    prompt: "{{ question }}"
    gold: "{{ answer }}"
    rewards: [{use: exact}]
rollout: {prompts_per_step: 2, samples_per_prompt: 2, max_new_tokens: 8}
"""


def make_recipe(folder: Path, track: str = "{}") -> Recipe:
    path = folder / "tracked.yaml"
    path.write_text(f"{RECIPE}\ntrack: {track}\n")
    return load_recipe(path)


def run_steps(recipe: Recipe, run_dir: Path, steps: range, resumed_step: int = 0) -> None:
    tracker = make_tracker(recipe, run_dir, resumed_step)
    if resumed_step == 0:
        tracker.log_eval({"step": 0, "set": "math", "mean": 0.1})
    for step in steps:
        groups = [make_group("math", [0.0, step / 10])]
        tracker.log(step, step_metrics(groups, {"math": 1.0}))
        write_samples(run_dir / "samples" / f"step-{step:06d}.jsonl.zst", step, groups)
    tracker.log_eval({"step": steps[-1], "set": "math", "mean": 0.2})
    tracker.close()


def test_a_resumed_run_leaves_what_an_undisturbed_one_leaves(tmp_path: Path, capsys) -> None:
    recipe = make_recipe(tmp_path)
    once, twice = tmp_path / "once", tmp_path / "twice"
    for folder in (once, twice):
        folder.mkdir()
    run_steps(recipe, once, range(1, 5))
    run_steps(recipe, twice, range(1, 4))
    with (twice / "metrics.jsonl").open("a") as file:
        file.write('{"objective/math/rew')
    run_steps(recipe, twice, range(3, 5), resumed_step=2)
    for name in ("metrics.jsonl", "eval.jsonl"):
        assert (twice / name).read_bytes() == (once / name).read_bytes()
    assert [row["step"] for row in read_rows(once / "metrics.jsonl")] == [1, 2, 3, 4]


def test_samples_of_a_future_given_up_are_dropped(tmp_path: Path, capsys) -> None:
    recipe = make_recipe(tmp_path)
    run_steps(recipe, tmp_path, range(1, 4))
    make_tracker(recipe, tmp_path, 1).close()
    assert [path.name for path in (tmp_path / "samples").iterdir()] == ["step-000001.jsonl.zst"]


def test_a_run_that_begins_anew_repeats_no_row(tmp_path: Path, capsys) -> None:
    recipe = make_recipe(tmp_path)
    for _ in range(2):
        run_steps(recipe, tmp_path, range(1, 3))
    assert [row["step"] for row in read_rows(tmp_path / "eval.jsonl")] == [0, 2]


WANDB = """
import sys
from pathlib import Path
from track.test_make_tracker import make_recipe, run_steps
folder = Path(sys.argv[1])
recipe = make_recipe(folder, "{wandb: {project: objectives}}")
run_steps(recipe, folder, range(1, 3))
run_steps(recipe, folder, range(3, 5), resumed_step=2)
"""


def test_wandb_offline_keeps_one_run_through_a_resume(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    done = subprocess.run(
        [sys.executable, "-c", WANDB, tmp_path],
        cwd=Path(__file__).parents[1],
        env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    run_id = (tmp_path / "wandb-id.txt").read_text()
    files = sorted(tmp_path.glob("wandb/offline-run-*/run-*.wandb"))
    assert [file.name for file in files] == [f"run-{run_id}.wandb"] * 2
    for file in files:
        assert b"objective/math/reward" in file.read_bytes()
        assert b"eval/math/mean" in file.read_bytes()


def test_tensorboard_gets_every_metric(tmp_path: Path, capsys) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    recipe = make_recipe(tmp_path, "{tensorboard: true}")
    run_steps(recipe, tmp_path, range(1, 4))
    run_steps(recipe, tmp_path, range(3, 5), resumed_step=2)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    rewards = events.Scalars("objective/math/reward")
    assert [event.step for event in rewards] == [1, 2, 3, 4]
    assert [event.value for event in rewards] == pytest.approx([0.05, 0.1, 0.15, 0.2])
    assert events.Scalars("eval/math/mean")


@pytest.mark.parametrize(
    ("package", "track"), [("wandb", "{wandb: {project: p}}"), ("tensorboard", "{tensorboard: true}")]
)
def test_a_missing_package_is_named_with_its_remedy(package, track, tmp_path: Path, monkeypatch) -> None:
    recipe = make_recipe(tmp_path, track)
    for module in [*sys.modules, package]:
        if module.split(".")[0] == package or module.startswith("torch.utils.tensorboard"):
            monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingExtraError, match=rf"pip install 'morl-rl\[{package}\]'"):
        make_tracker(recipe, tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_rows_are_json_that_any_reader_takes(tmp_path: Path, capsys) -> None:
    run_steps(make_recipe(tmp_path), tmp_path, range(1, 2))

    def refuse(text: str) -> None:
        raise AssertionError(text)

    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        assert list(json.loads(line, parse_constant=refuse)) == sorted(json.loads(line))
