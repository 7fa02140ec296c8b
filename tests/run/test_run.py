"""The run's folder belongs to one process, and a signal is a request."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from morl.errors import RunError, UsageError
from morl.recipe.load import load_recipe
from morl.recipe.train_recipe import Recipe
from morl.run.folder import RunFolder, changes
from morl.run.interrupt import Interrupt

RECIPE = """
run: {{name: first, steps: 4, dir: {folder}/runs}}
model: {{path: models/tiny}}
objectives:
  math:
    share: 1
    data: {{source: jsonl, path: rows.jsonl}}
    prompt: "{{{{ question }}}}"
    gold: "{{{{ answer }}}}"
    rewards: [{{use: exact, weight: 0.5}}]
rollout: {{prompts_per_step: 2, samples_per_prompt: 2, max_new_tokens: 8}}
"""


def make_recipe(folder: Path, *overrides: str) -> Recipe:
    path = folder / "first.yaml"
    path.write_text(RECIPE.format(folder=folder))
    return load_recipe(path, overrides)


def leave_work(run: RunFolder) -> None:
    run.metrics.write_text('{"step": 1}\n')


def test_a_new_run_gets_its_folder_its_recipe_and_its_log(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    with RunFolder.open(recipe) as run:
        logging.getLogger("morl.somewhere").info("a word")
    assert run.path == tmp_path / "runs" / "first"
    assert load_recipe(run.recipe) == recipe
    assert "INFO morl.somewhere: a word" in run.log.read_text()
    assert run.samples(3) == run.path / "samples" / "step-000003.jsonl.zst"
    logging.getLogger("morl.somewhere").info("said too late")
    assert "too late" not in run.log.read_text()


def test_what_ended_a_run_is_the_last_word_of_its_log(tmp_path: Path, capsys) -> None:
    recipe = make_recipe(tmp_path)
    with pytest.raises(RunError), RunFolder.open(recipe) as run:
        raise RunError("no sample got a score")
    assert run.log.read_text().endswith(" ERROR morl.run.folder: the run failed: RunError: no sample got a score\n")
    with pytest.raises(ZeroDivisionError), RunFolder.open(recipe) as run:
        print(1 // 0)
    assert run.log.read_text().endswith("ZeroDivisionError: integer division or modulo by zero\n")
    assert "Traceback" in run.log.read_text()
    assert capsys.readouterr() == ("", "")


def test_a_finished_run_is_not_written_over(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    with RunFolder.open(recipe) as run:
        leave_work(run)
    with pytest.raises(UsageError, match=r"--resume.*run\.name="):
        RunFolder.open(recipe)
    with RunFolder.open(recipe, resume=True) as run:
        assert run.metrics.read_text() == '{"step": 1}\n'


def test_a_start_that_failed_before_any_work_can_be_repeated(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    for _ in range(2):
        with RunFolder.open(recipe) as run:
            assert not run.holds_a_run()


def test_a_resumed_run_logs_each_key_that_changed(tmp_path: Path, capsys) -> None:
    with RunFolder.open(make_recipe(tmp_path)) as run:
        leave_work(run)
    changed = make_recipe(tmp_path, "run.steps=9", "objectives.math.rewards.0.weight=0.25")
    with RunFolder.open(changed, resume=True) as run:
        log = run.log.read_text()
    assert "run.steps was 4, is now 9" in log
    assert "objectives.math.rewards.0.weight was 0.5, is now 0.25" in log
    assert log.count("has changed") == 2
    assert load_recipe(run.recipe) == changed


def test_a_recipe_that_came_to_nothing_leaves_that_of_the_checkpoints(tmp_path: Path) -> None:
    first, changed = make_recipe(tmp_path), make_recipe(tmp_path, "learner.lora={rank: 4, alpha: 8}")

    def fail(recipe: Recipe, checkpoint: int) -> None:
        with RunFolder.open(recipe, resume=True) as run:
            assert load_recipe(run.recipe) == recipe
            (run.checkpoints / f"step-{checkpoint:06d}").mkdir(exist_ok=True)
            raise RunError("it does not fit")

    with RunFolder.open(first) as run:
        (run.checkpoints / "step-000002").mkdir(parents=True)
    with pytest.raises(RunError, match="does not fit"):
        fail(changed, 2)
    assert load_recipe(run.recipe) == first
    # What ended well was used, as by an evaluation set that a finished run was to be measured on too.
    with RunFolder.open(changed, resume=True):
        pass
    assert load_recipe(run.recipe) == changed
    with pytest.raises(RunError, match="does not fit"):
        fail(first, 4)
    assert load_recipe(run.recipe) == first


def test_changes_name_the_path_of_each_difference() -> None:
    old = {"a": {"b": 1, "c": [1, {"d": 2}]}, "gone": 1}
    new = {"a": {"b": 1, "c": [1, {"d": 3}, 4]}, "new": None}
    assert set(changes(old, new)) == {
        ("a.c.1.d", "2", "3"),
        ("a.c.2", "not set", "4"),
        ("gone", "1", "not set"),
        ("new", "not set", "None"),
    }


def test_resuming_where_nothing_is(tmp_path: Path, capsys) -> None:
    recipe = make_recipe(tmp_path)
    with pytest.raises(UsageError, match="no run here to resume"):
        RunFolder.open(recipe, resume=True, path=tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()
    with RunFolder.open(recipe, resume=True) as run:
        assert "starts from the beginning" in run.log.read_text()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(UsageError, match=r"run\.dir"):
        RunFolder.open(make_recipe(tmp_path))


HOLD = """
import sys, time
from pathlib import Path
from test_run import make_recipe
from morl.run import RunFolder
run = RunFolder.open(make_recipe(Path(sys.argv[1])))
print("held", flush=True)
time.sleep(60)
"""


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A child process that has said its first line."""
    child = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=Path(__file__).parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if not child.stdout.readline():
        raise AssertionError(child.communicate()[1])
    return child


def test_one_process_at_a_time_until_it_dies_however_it_dies(tmp_path: Path) -> None:
    recipe = make_recipe(tmp_path)
    with start(HOLD, tmp_path) as child:
        try:
            for resume in (False, True):
                with pytest.raises(UsageError, match="another process"):
                    RunFolder.open(recipe, resume=resume)
        finally:
            child.kill()
        child.wait()
    RunFolder.open(recipe).close()


STEPS = """
import os, signal, sys, time
from morl.run import Interrupt
with Interrupt() as interrupt:
    print("ready", flush=True)
    while interrupt.requested is None:
        time.sleep(0.01)
    print("finishing after", interrupt.requested, flush=True)
    if sys.argv[1] == "linger":
        time.sleep(60)
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
print("saved", flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_lets_the_step_finish(number: signal.Signals) -> None:
    with start(STEPS, "") as child:
        child.send_signal(number)
        out, err = child.communicate(timeout=30)
    assert out == f"finishing after {number.name}\nsaved\n"
    assert f"{number.name}: the step under way will be finished, and what is done saved" in err
    assert child.returncode == 0


def test_a_second_sigint_stops_at_once_and_a_second_sigterm_does_not() -> None:
    with start(STEPS, "linger") as child:
        child.send_signal(signal.SIGTERM)
        child.stdout.readline()
        child.send_signal(signal.SIGTERM)
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=30)
    assert "saved" not in out
    assert "KeyboardInterrupt" in err


def test_a_handler_that_a_library_puts_in_between_is_replaced_and_not_restored() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Interrupt() as interrupt:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
        interrupt.install()
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupt.requested == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before


def test_outside_the_main_thread_it_leaves_signals_alone() -> None:
    found = []

    def enter() -> None:
        with Interrupt() as interrupt:
            found.append((interrupt.requested, signal.getsignal(signal.SIGINT)))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert found == [(None, before)]


def test_handlers_come_back_although_the_block_fails() -> None:
    before = signal.getsignal(signal.SIGTERM)

    def fail() -> None:
        with Interrupt() as interrupt:
            os.kill(os.getpid(), signal.SIGTERM)
            raise RuntimeError(interrupt.requested)

    with pytest.raises(RuntimeError, match="SIGTERM"):
        fail()
    assert signal.getsignal(signal.SIGTERM) is before
