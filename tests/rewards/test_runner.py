"""The pool: whatever a reward does, its own item alone is charged, and nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from morl.errors import RunError
from morl.rewards.pool.worker_pool import WorkerPool
from morl.rewards.pool.worker_process import Call
from morl.types import TermScore

HERE = Path(__file__).parent


async def run_all(
    runner: WorkerPool, responses: list[str], target: str = "hostile:behave", deadline_s: float = 5.0
) -> list[TermScore]:
    return await asyncio.gather(*(runner.run(target, {"response": text}, {}, deadline_s) for text in responses))


def wait_until(condition: Callable[[], bool]) -> None:
    for _ in range(400):
        if condition():
            return
        time.sleep(0.05)
    pytest.fail("it did not come to pass in 20 s")


@contextlib.contextmanager
def no_process_left() -> Iterator[set[int]]:
    """Collects process ids in the set that it gives; all must be gone when the block ends."""
    watched: set[int] = set()
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield watched
    watched |= {child.pid for child in psutil.Process().children(recursive=True)} - before
    wait_until(lambda: not any(alive(pid) for pid in watched))


def alive(pid: int) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def running(word: str) -> dict[int, psutil.Process]:
    """The processes below this one with the word on their command line, by id."""
    found = {}
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # which a zombie counts as
            if word in " ".join(process.cmdline()):
                found[process.pid] = process
    return found


def workers() -> dict[int, psutil.Process]:
    """The worker processes of this process, those of the shared runner too."""
    return running("morl.rewards.pool.worker")


@pytest.mark.parametrize("count", [1, 3])
def test_scores_do_not_depend_on_workers_or_order(count: int) -> None:
    responses = [str(i / 500) for i in range(500)]
    shuffled = random.Random(count).sample(responses, len(responses))
    with WorkerPool(workers=count) as runner:
        scores = asyncio.run(run_all(runner, shuffled))
    assert [score.value for score in scores] == [float(text) for text in shuffled]
    assert {score.status for score in scores} == {"ok"}


@pytest.mark.parametrize(
    ("behaviour", "value", "status", "detail"),
    [
        ("hang", None, "timeout", "longer than 1 s"),
        ("hang in C", None, "timeout", "longer than 1 s"),
        ("stop", None, "timeout", "longer than 1 s"),
        ("child", None, "timeout", "longer than 1 s"),
        ("deaf", None, "timeout", "longer than 1 s"),
        ("fork", None, "timeout", "longer than 1 s"),
        ("drip", None, "timeout", "longer than 1 s"),
        ("hog", None, "error", "out of memory: it needs more than 256 MB"),
        ("die", None, "error", "3 worker processes died of it"),
        ("segfault", None, "error", "3 worker processes died of it"),
        ("exit", None, "error", "3 worker processes died of it"),
        ("babble", None, "error", "3 worker processes died of it"),
        ("half a reply", None, "error", "3 worker processes died of it"),
        ("wrong reply", None, "error", "3 worker processes died of it"),
        ("empty reply", None, "error", "3 worker processes died of it"),
        ("endless reply", None, "error", "3 worker processes died of it"),
        ("close", None, "error", "3 worker processes died of it"),
        ("sys.exit", None, "error", "SystemExit: 3"),
        ("raise", None, "error", "ValueError: as asked"),
        ("none", None, "error", "no score"),
        ("nan", None, "error", "not a finite number"),
        ("text", None, "error", "returned str"),
        ("formula", None, "error", "returned Unprintable"),
        ("huge", None, "error", "returned int"),
        ("status", None, "error", "unknown status"),
        ("what?", None, "error", "ValueError"),
        ("detail", 1.0, "ok", "…"),
        ("surrogate", 1.0, "ok", "?"),
        ("print", 1.0, "ok", ""),
        ("alarm", 0.5, "ok", ""),
    ],
)
def test_one_bad_item_marks_only_itself(
    behaviour: str, value: float | None, status: str, detail: str, runner: WorkerPool
) -> None:
    responses = ["0.25"] * 6 + [behaviour] + ["0.75"] * 6
    scores = asyncio.run(run_all(runner, responses, deadline_s=1.0 if status == "timeout" else 30.0))
    bad = scores.pop(6)
    assert (bad.value, bad.status) == (value, status)
    assert detail in bad.detail
    assert len(bad.detail) <= 310
    assert [score.value for score in scores] == [0.25] * 6 + [0.75] * 6


def test_what_a_killed_reward_started_is_killed_with_it(runner: WorkerPool) -> None:
    async def run() -> tuple[TermScore, list[int]]:
        work = asyncio.ensure_future(run_all(runner, ["child"], deadline_s=3.0))
        started: list[int] = []
        while not work.done():
            await asyncio.sleep(0.1)
            started += running("sleep 1000")
        return (await work)[0], started

    score, started = asyncio.run(run())
    assert score.status == "timeout"
    assert started
    wait_until(lambda: not any(alive(pid) for pid in started))


@pytest.mark.parametrize(("behaviour", "calls"), [("hang", 1), ("hang in C", 1), ("die", 3), ("hog", 2)])
def test_what_was_scored_before_a_kill_is_kept_and_not_run_again(behaviour: str, calls: int, tmp_path: Path) -> None:
    async def run(responses: list[str]) -> list[TermScore]:
        note = {"file": str(tmp_path / "calls")}
        deadline_s = 1.0 if "hang" in behaviour else 30.0
        work = (
            runner.run("hostile:noted", {"response": text, "meta": note | {"item": str(i)}}, {}, deadline_s)
            for i, text in enumerate(responses)
        )
        return await asyncio.gather(*work)

    with WorkerPool(workers=1, memory_mb=256) as runner:
        asyncio.run(run(["0.5"] * 100))  # now it is known to be quick: chunks will be long
        (tmp_path / "calls").unlink()
        scores = asyncio.run(run([*["0.25"] * 200, behaviour, *["0.75"] * 200]))
    assert [score.value for score in scores] == [*[0.25] * 200, None, *[0.75] * 200]
    noted = Counter((tmp_path / "calls").read_text().split())
    again = {item: times for item, times in noted.items() if times > 1}
    assert len(noted) == 401
    # What others left behind may be to blame for a lack of memory, so that is tried in a new worker.
    assert again == ({"200": calls} if calls > 1 else {})


def test_a_deadline_counts_from_the_start_of_each_item_not_of_its_chunk(runner: WorkerPool) -> None:
    async def run() -> list[TermScore]:
        await run_all(runner, ["0.001"] * 100, "hostile:sleep")
        return await run_all(runner, ["0.02"] * 100, "hostile:sleep", deadline_s=0.3)

    assert {score.status for score in asyncio.run(run())} == {"ok"}


def test_an_event_loop_that_ended_waits_for_nothing(runner: WorkerPool) -> None:
    async def leave() -> None:
        for _ in range(20):
            runner.submit(Call("hostile:sleep", pickle.dumps({}), 5.0), {"response": "0.02"})

    asyncio.run(leave())
    assert asyncio.run(run_all(runner, ["0.5"]))[0].value == 0.5


def test_several_event_loops_share_a_runner(runner: WorkerPool) -> None:
    responses = [str(i / 200) for i in range(200)]
    with ThreadPoolExecutor(4) as threads:
        told = list(threads.map(lambda _: asyncio.run(run_all(runner, responses)), range(8)))
    assert [[score.value for score in scores] for scores in told] == [[float(text) for text in responses]] * 8


def test_work_that_comes_while_all_workers_are_busy_is_done_next(runner: WorkerPool) -> None:
    async def run() -> list[TermScore]:
        first = asyncio.ensure_future(run_all(runner, ["0.3"] * 4, "hostile:sleep"))
        later = []
        for i in range(20):
            await asyncio.sleep(0.01)
            later.append(asyncio.ensure_future(runner.run("hostile:echo", {"response": str(i / 20)}, {}, 5.0)))
        return await asyncio.wait_for(asyncio.gather(*later), 20.0) + await first

    assert [score.value for score in asyncio.run(run())] == [*(i / 20 for i in range(20)), *[1.0] * 4]


def test_a_busy_event_loop_stops_no_deadline(runner: WorkerPool) -> None:
    async def run() -> list[TermScore]:
        work = asyncio.ensure_future(run_all(runner, ["hang", *["0.5"] * 50], deadline_s=0.5))
        await asyncio.sleep(0)
        end = time.monotonic() + 2.0
        while time.monotonic() < end:
            pass
        begin = time.monotonic()
        scores = await work
        assert time.monotonic() - begin < 1.0
        return scores

    scores = asyncio.run(run())
    assert scores.pop(0).status == "timeout"
    assert {score.value for score in scores} == {0.5}


def test_an_item_is_run_again_when_its_worker_is_killed_and_not_for_ever(runner: WorkerPool, tmp_path: Path) -> None:
    async def run(times: int) -> TermScore:
        arguments = {"response": str(times), "meta": {"file": str(tmp_path / str(times))}}
        return await runner.run("hostile:die_the_first_times", arguments, {}, 5.0)

    for times in (0, 1, 2):
        assert asyncio.run(run(times)).value == 1.0
    assert asyncio.run(run(3)).status == "error"
    assert len((tmp_path / "3").read_text()) == 3


def test_workers_killed_from_outside_lose_nothing() -> None:
    async def run(runner: WorkerPool) -> list[TermScore]:
        await run_all(runner, ["0.1"] * 8, "hostile:sleep")  # as killing three that only start is another matter
        work = asyncio.ensure_future(run_all(runner, ["0.05"] * 40, "hostile:sleep"))
        for _ in range(3):
            await asyncio.sleep(0.3)
            for process in [process for pid, process in workers().items() if pid not in others][:1]:
                process.kill()
        return await work

    others = workers()

    with WorkerPool(workers=2) as runner:
        assert {(score.value, score.status) for score in asyncio.run(run(runner))} == {(1.0, "ok")}


def test_a_runner_serves_one_event_loop_after_another(runner: WorkerPool) -> None:
    assert [asyncio.run(run_all(runner, ["0.5"]))[0].value for _ in range(3)] == [0.5] * 3


def test_workers_are_replaced_after_some_items() -> None:
    with WorkerPool(workers=1, recycle_after=10) as runner:
        scores = [asyncio.run(run_all(runner, ["x"], "hostile:who"))[0] for _ in range(25)]
    assert len({score.detail for score in scores}) == 3


def test_options_and_arguments_arrive(runner: WorkerPool) -> None:
    score = asyncio.run(runner.run("hostile:double", {"response": "0.2"}, {"factor": 3.0}, 5.0))
    assert score.value == pytest.approx(0.6)


def test_what_cannot_be_sent_or_imported_is_told(runner: WorkerPool) -> None:
    async def run() -> list[TermScore]:
        return await asyncio.gather(
            runner.run("hostile:echo", {"response": lambda: None}, {}, 5.0),
            runner.run("hostile:nothing", {"response": ""}, {}, 5.0),
            runner.run("no.such.module:f", {"response": ""}, {}, 5.0),
            runner.run("hostile:echo", {"other": ""}, {}, 5.0),
        )

    scores = asyncio.run(run())
    assert [score.status for score in scores] == ["error"] * 4
    assert ["cannot be sent" in scores[0].detail, "hostile:nothing" in scores[1].detail] == [True, True]
    assert ["no.such.module" in scores[2].detail, "response" in scores[3].detail] == [True, True]


def test_an_import_that_kills_its_worker_costs_the_others_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def run(runner: WorkerPool) -> list[TermScore]:
        deadly = (runner.run("deadly:f", {"response": ""}, {}, 5.0) for _ in range(5))
        return [*await asyncio.gather(*deadly, runner.run("hostile:echo", {"response": "1"}, {}, 5.0))]

    (tmp_path / "deadly.py").write_text("import os\nos._exit(3)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with WorkerPool(workers=2) as runner:
        *scores, other = asyncio.run(run(runner))
    assert {score.status for score in scores} == {"error"}
    assert all("importing 'deadly:f' kills or hangs" in score.detail for score in scores)
    assert other.value == 1.0


def test_many_workers_import_a_slow_module_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(0.5)\ndef f(response):\n    return 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with WorkerPool(workers=5) as runner:
        runner.start(["slow:f"])
        # The import does not count towards the deadline.
        scores = asyncio.run(run_all(runner, ["x"] * 20, "slow:f", deadline_s=0.2))
    assert {(score.value, score.status) for score in scores} == {(1.0, "ok")}


def test_a_cancelled_call_leaves_the_pool_working(runner: WorkerPool) -> None:
    async def run() -> list[TermScore]:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(run_all(runner, ["0.3"] * 10, "hostile:sleep"), 0.1)
        return await run_all(runner, ["0.5"] * 5)

    assert [score.value for score in asyncio.run(run())] == [0.5] * 5


def test_workers_that_cannot_start_stop_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [])
    with WorkerPool(workers=2) as runner, pytest.raises(RunError, match="cannot start"):
        asyncio.run(run_all(runner, ["0.5"]))


def test_no_worker_starts_before_there_is_work() -> None:
    before = len(workers())
    with WorkerPool(workers=2) as runner:
        assert len(workers()) == before
        asyncio.run(run_all(runner, ["0.5"]))
        assert len(workers()) == before + 1


def test_workers_that_are_started_ahead_have_imported_what_they_are_told() -> None:
    async def run(runner: WorkerPool) -> list[TermScore]:
        runner.start(["hostile:who", "hostile:nothing"])
        await asyncio.to_thread(wait_until, lambda: len(workers()) == before + 2)
        return await run_all(runner, ["x"] * 40, "hostile:who")

    before = len(workers())
    with WorkerPool(workers=2) as runner:
        assert {score.status for score in asyncio.run(run(runner))} == {"ok"}


def test_a_batch_goes_and_comes_as_a_whole(runner: WorkerPool) -> None:
    async def run(target: str, responses: list[str]) -> list[TermScore]:
        call = Call(target, pickle.dumps({}), 5.0)
        return await runner.submit(call, {"response": responses, "gold": ["g"] * len(responses)}, len(responses))

    assert [score.value for score in asyncio.run(run("plugin:together", ["0.5", "1"]))] == [0.5, 1.0]
    failed = asyncio.run(run("plugin:nothing", ["0.5", "1", "0"]))
    assert [score.status for score in failed] == ["error"] * 3


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_fails_ends_all_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AttributeError("a mistake of ours")

    async def run(runner: WorkerPool) -> list[TermScore]:
        work = asyncio.ensure_future(run_all(runner, ["hang"] * 4, deadline_s=1.0))
        await asyncio.sleep(0.3)
        monkeypatch.setattr(WorkerPool, "_put_back", fail)
        await runner.run("hostile:echo", {"response": "1"}, {}, 5.0)
        return await work

    with no_process_left(), WorkerPool(workers=2) as runner:
        with pytest.raises(RunError, match="a mistake of ours"):
            asyncio.run(run(runner))
        with pytest.raises(RunError, match="closed"):
            asyncio.run(run_all(runner, ["0.5"]))


def test_a_system_without_processes_stops_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError("no more processes")

    monkeypatch.setattr("subprocess.Popen", refuse)
    with WorkerPool(workers=2) as runner, pytest.raises(RunError, match="no more processes"):
        asyncio.run(run_all(runner, ["0.5"]))


def test_close_leaves_nothing_and_ends_what_waits() -> None:
    async def run(runner: WorkerPool) -> None:
        work = asyncio.ensure_future(run_all(runner, ["hang"] * 4, deadline_s=60.0))
        await asyncio.sleep(0.5)
        await asyncio.to_thread(runner.close)
        with pytest.raises(RunError, match="closed"):
            await work

    files = psutil.Process().num_fds()
    with no_process_left():
        runner = WorkerPool(workers=2)
        asyncio.run(run(runner))
        runner.close()
    assert psutil.Process().num_fds() == files
    with pytest.raises(RunError, match="closed"):
        asyncio.run(runner.run("hostile:echo", {"response": "1"}, {}, 1.0))


OWNER = """
import asyncio, sys
sys.path.append(sys.argv[1])
from morl.rewards.pool.worker_pool import WorkerPool

async def own():
    runner = WorkerPool(workers=3)
    tasks = [
        asyncio.create_task(runner.run("hostile:behave", {"response": response}, {}, 600.0))
        for response in ("hang in C", "hang", "0.5")
    ]
    await asyncio.sleep(0)
    print("started", flush=True)
    await asyncio.sleep(float(sys.argv[2]))

asyncio.run(own())
"""


@pytest.mark.parametrize("end", ["kill -9", "exit without close", "interrupt"])
def test_workers_do_not_outlive_their_owner(end: str) -> None:
    seconds = "2" if end == "exit without close" else "600"
    owner = subprocess.Popen(
        [sys.executable, "-c", OWNER, HERE, seconds], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == b"started\n"
    wait_until(lambda: len(psutil.Process(owner.pid).children()) == 3)
    pids = [child.pid for child in psutil.Process(owner.pid).children()]
    if end == "kill -9":
        time.sleep(1.0)  # the interesting moment is in the middle of a computation
        owner.kill()
    elif end == "interrupt":
        os.kill(owner.pid, signal.SIGINT)
    owner.wait(30)
    owner.stdout.close()
    wait_until(lambda: not any(alive(pid) for pid in pids))


def test_an_interrupt_does_not_reach_the_workers(runner: WorkerPool) -> None:
    async def run() -> list[TermScore]:
        work = asyncio.ensure_future(run_all(runner, ["0.5"] * 4, "hostile:sleep"))
        await asyncio.sleep(0.3)
        for process in workers().values():
            process.send_signal(signal.SIGINT)
            process.send_signal(signal.SIGTERM)
        return await work

    asyncio.run(run_all(runner, ["0.5"]))
    before = workers()
    assert {score.value for score in asyncio.run(run())} == {1.0}
    assert before.keys() <= workers().keys()
