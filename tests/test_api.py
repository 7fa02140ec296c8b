"""The library from Python: without a file, in a notebook, and under other trainers."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from morl import api
from morl.errors import DataError, RecipeError, UsageError
from morl.event_loop import run_coroutine
from morl.rewards import RewardInput, as_trl, as_verl, reward


@reward("same_text", batch=True)
def same_text(response: list[str], gold: list[str]) -> list[float]:
    return [float(text == right) for text, right in zip(response, gold, strict=True)]


@reward("crowded")
def crowded(response: str, *, workers: int = 1) -> float:
    return float(workers)


ROWS = [
    {"response": r"\boxed{1/2}", "gold": "0.5"},
    {"response": "The answer is 3.", "gold": "4"},
    {"response": "4", "gold": None},
]


def recipe(model: Path, folder: Path) -> dict:
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps({"question": f"{i}+{i}?", "answer": str(2 * i)}) + "\n" for i in range(8)))
    objective = {
        "share": 1,
        "data": {"source": "jsonl", "path": str(data)},
        "prompt": "{{ question }}",
        "gold": "{{ answer }}",
        "rewards": [{"use": "length", "maximum": 20}, {"use": "number", "weight": 0.5}],
    }
    return {
        "run": {"name": "from-python", "steps": 2, "dir": str(folder / "runs")},
        "model": {"path": str(model)},
        "objectives": {"sums": objective},
        "rollout": {"engine": "hf", "prompts_per_step": 2, "samples_per_prompt": 4, "max_new_tokens": 8},
        "eval": {"sets": {"sums": {"data": objective["data"]}}},
    }


def test_score_takes_rows_and_says_why_there_is_no_score() -> None:
    right, wrong, missing = api.score("math", ROWS, workers=1)
    assert (right.value, wrong.value, missing.value) == (1.0, 0.0, None)
    assert missing.status == "bad_gold"
    (told,) = api.score("number", [RewardInput("95", 100)], workers=1, relative_tolerance=0.05)
    assert told.value == 1.0


def test_score_refuses_wrong_options_and_rows_without_a_response() -> None:
    with pytest.raises(UsageError, match="did you mean 'tolerance'"):
        api.score("number", ROWS, tolerence=1)
    with pytest.raises(UsageError, match="row 1: no text 'response'"):
        api.score("number", [ROWS[0], {"answer": "4"}])


def test_all_of_it_runs_where_an_event_loop_runs_already(tiny_model: Path, tmp_path: Path) -> None:
    async def notebook() -> tuple[float | None, api.Run, list]:
        (told,) = api.score("math", ROWS[:1], workers=1)
        run = api.train(recipe(tiny_model, tmp_path), local=True)
        return told.value, run, api.evaluate(recipe(tiny_model, tmp_path), [run.path], local=True)

    value, run, ((row,),) = asyncio.run(notebook())
    assert value == 1.0
    assert run.done
    assert [metrics["step"] for metrics in run.metrics] == [1, 2]
    assert {row["step"] for row in run.evaluations} == {0, 2}
    assert row["reward"] == run.evaluations[-1]["reward"], "the exported policy scores what the run measured"


def test_an_interrupt_of_a_notebook_cancels_the_work() -> None:
    cancelled = False

    async def work() -> None:
        nonlocal cancelled
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled = True
            raise

    async def notebook() -> None:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
        run_coroutine(work())

    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        loop = asyncio.new_event_loop()
        with pytest.raises(KeyboardInterrupt):
            loop.run_until_complete(notebook())
        loop.close()
    finally:
        signal.signal(signal.SIGINT, handler)
    assert cancelled


def test_an_error_of_the_work_is_raised_as_it_is() -> None:
    async def work() -> None:
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong") as raised:
        run_coroutine(work())
    assert raised.value.__context__ is None


def test_a_recipe_of_a_dictionary_is_checked_as_a_file_is(tmp_path: Path) -> None:
    keys = recipe(tmp_path, tmp_path)
    report = api.check(keys)
    assert (report.exit_code, report.golds) == (0, 16)
    assert api.check(api.load_recipe(keys)).golds == 16
    keys["rollout"]["temprature"] = 1
    with pytest.raises(RecipeError, match=r"^recipe: rollout\.temprature: unknown key; did you mean 'temperature'\?$"):
        api.load_recipe(keys)
    del keys["rollout"]["temprature"]
    assert api.load_recipe(keys, ["learner.lr=2e-6"]).learner.lr == 2e-6
    assert any("prompts" in item.what for item in api.plan(keys))


def test_trl_calls_a_reward_with_its_columns() -> None:
    number = as_trl("number", gold="answer")
    assert number.__name__ == "number"
    columns = {"answer": [4, 5], "trainer_state": object()}
    texts = number(prompts=["2+2?", "2+3?"], completions=["It is 4.", "It is 4."], completion_ids=[[1], [2]], **columns)
    assert texts == [1.0, 0.0]
    chats = [[{"role": "assistant", "content": "It is 4."}], [{"role": "assistant", "content": "many"}]]
    asked = [[{"role": "user", "content": "2+2?"}]] * 2
    assert number(prompts=asked, completions=chats, **columns) == [1.0, 0.0]
    assert number(prompts=asked, completions=chats, answer=[4, None]) == [1.0, None]
    brief = as_trl("length", maximum=2, margin=2)
    assert brief(prompts=asked, completions=chats, completion_ids=[[1, 2], [1, 2, 3]]) == [1.0, 0.5], "in tokens"
    with pytest.raises(DataError, match="no column 'answer'; did you mean 'answers'"):
        number(prompts=asked, completions=chats, answers=[4, 5])


def test_trl_awaits_a_reward_that_is_a_coroutine() -> None:
    assert inspect.iscoroutinefunction(as_trl("remote", url="http://127.0.0.1:9", objective="math"))
    assert not inspect.iscoroutinefunction(as_trl("math"))


def test_verl_gets_a_number_and_whether_it_is_one() -> None:
    number = as_verl("number")
    assert number("gsm8k", "It is 4.", 4, {"index": 0}) == {
        "score": 1.0,
        "no_score": 0.0,
        "status": "ok",
        "detail": "4",
    }
    assert number("gsm8k", "It is 4.", "many")["no_score"] == 1.0


def test_rows_of_trl_may_lack_images_and_messages_content() -> None:
    number = as_trl("number")
    chats = [[{"role": "assistant", "tool_calls": [{}]}], [{"role": "assistant", "content": "It is 4."}]]
    for columns in ({"images": [None, None]}, {"image": [None, None]}):
        assert number(prompts=["a", "b"], completions=chats, gold=(4, 4), **columns) == [0.0, 1.0]


def test_verl_calls_a_batch_reward_from_many_threads() -> None:
    together = as_verl("same_text")
    with ThreadPoolExecutor(8) as threads:
        results = list(threads.map(lambda i: together("x", "yes", "yes")["score"], range(16)))
    assert results == [1.0] * 16


def test_a_reward_of_verl_travels_and_can_be_closed() -> None:
    number = pickle.loads(pickle.dumps(as_verl("number", tolerance=0.5)))
    assert number.__name__ == "number"
    assert number("x", "4.4", 4)["score"] == 1.0
    number.close()
    assert number("x", "3", 4)["score"] == 0.0
    number.close()


def test_a_reward_of_verl_works_in_a_fork_which_has_none_of_the_threads() -> None:
    code = (
        "import os; from morl.rewards import as_verl; number = as_verl('number')\n"
        "assert number('x', '4', 4)['score'] == 1.0; child = os.fork()\n"
        "if child == 0: os._exit(0 if number('x', '4', 4)['score'] == 1.0 else 1)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_what_would_be_misunderstood_is_refused() -> None:
    with pytest.raises(UsageError, match="workers: should be at least 1, not -1"):
        api.score("number", ROWS, workers=-1)
    with pytest.raises(UsageError, match="row 0: should be a mapping or a RewardInput, not str"):
        api.score("number", ["4"])
    with pytest.raises(UsageError, match="has an option 'workers', which is an argument here"):
        api.score("crowded", ROWS)
    assert api.score("number", ROWS[1], workers=1)[0].value == 0.0, "one row alone"


def test_paths_and_folders_may_be_text_or_paths(tmp_path: Path) -> None:
    keys = recipe(tmp_path, tmp_path)
    keys["model"]["path"] = tmp_path
    assert api.load_recipe(keys).model.path == str(tmp_path)
    with pytest.raises(UsageError, match="there is no run here to resume"):
        api.train(keys, resume=str(tmp_path / "nowhere"), local=True)


def test_recipes_of_other_commands_are_checked_too() -> None:
    judge = api.load_document(api.PreferenceRecipe, "mini/judge")
    assert api.check(judge, rows=2).command == "rm"


def test_the_python_door_of_the_readme_opens(tmp_path: Path) -> None:
    text = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    block = text.split("## From Python\n")[1].split("```python\n")[1].split("```")[0]
    ran = subprocess.run(
        [sys.executable, "-c", block], cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False
    )
    assert ran.returncode == 0, ran.stderr
    lines = ran.stdout.splitlines()
    assert lines[0] == "1.0"
    assert "128" in lines
    assert "'reward':" in lines[-1]
