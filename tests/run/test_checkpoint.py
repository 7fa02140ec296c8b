"""A checkpoint is whole or not there, whatever happens while it is written."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from morl.errors import CheckpointError, RunError, UsageError
from morl.run.checkpoint import CheckpointStore, find_fault, newest_good, read_state, step_of, write_state

PAYLOAD = b"weights" * 1000


def write(store: CheckpointStore, step: int) -> None:
    with store.writing(step) as folder:
        (folder / "rank0").mkdir()
        (folder / "rank0" / "weights.bin").write_bytes(PAYLOAD)
        write_state(folder, {"step": step, "rng": 2**100, "cursor": [1, 2]})


def names(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir())


def test_a_checkpoint_is_found_and_its_state_comes_back(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "checkpoints", keep=2)
    assert store.newest_good() is None
    write(store, 7)
    found = store.newest_good()
    assert found == tmp_path / "checkpoints" / "step-000007"
    assert step_of(found) == 7
    assert read_state(found) == {"step": 7, "rng": 2**100, "cursor": [1, 2]}
    assert (found / "rank0" / "weights.bin").read_bytes() == PAYLOAD


def test_only_the_newest_are_kept_in_the_order_of_numbers(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    for step in (999_998, 999_999, 1_000_000):
        write(store, step)
    assert names(tmp_path) == ["step-1000000", "step-999999"]
    assert step_of(store.newest_good()) == 1_000_000


def truncate_file(folder: Path) -> None:
    os.truncate(folder / "rank0" / "weights.bin", 10)


def flip_a_bit(folder: Path) -> None:
    path = folder / "rank0" / "weights.bin"
    data = bytearray(path.read_bytes())
    data[1234] ^= 1
    path.write_bytes(data)


def lose_file(folder: Path) -> None:
    (folder / "trainer.json").unlink()


def lose_manifest(folder: Path) -> None:
    (folder / "manifest.json").unlink()


def tear_manifest(folder: Path) -> None:
    os.truncate(folder / "manifest.json", 50)


def rename_folder(folder: Path) -> None:
    """A folder that was copied under another step's name."""
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"step": 20', '"step": 15'))


def come_from_the_future(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))


@pytest.mark.parametrize(
    ("tear", "named"),
    [
        (truncate_file, "rank0/weights.bin: 10 bytes instead of 7000"),
        (flip_a_bit, "rank0/weights.bin: its contents"),
        (lose_file, "trainer.json: missing"),
        (lose_manifest, "manifest.json: missing"),
        (tear_manifest, "manifest.json: unreadable"),
        (rename_folder, "manifest.json: of step 15"),
        (come_from_the_future, "format 99"),
    ],
)
def test_a_torn_checkpoint_is_skipped_and_its_fault_told(tear, named, tmp_path, caplog) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    write(store, 10)
    write(store, 20)
    tear(tmp_path / "step-000020")
    assert store.newest_good() == tmp_path / "step-000010"
    assert named in caplog.text
    assert "step-000020" in caplog.text


def test_torn_checkpoints_do_not_push_out_the_good_ones(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    for step in (10, 20):
        write(store, step)
    truncate_file(tmp_path / "step-000020")
    for name in ("step-000030", "step-000040"):
        shutil.copytree(tmp_path / "step-000020", tmp_path / name)
    write(store, 15)
    assert names(tmp_path) == ["step-000010", "step-000015"]


def test_a_step_can_be_written_again(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    write(store, 10)
    truncate_file(tmp_path / "step-000010")
    write(store, 10)
    assert names(tmp_path) == ["step-000010"]
    assert find_fault(tmp_path / "step-000010") is None


def test_a_block_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    write(store, 10)

    def fail(error: BaseException) -> None:
        with store.writing(20) as folder:
            (folder / "half").write_bytes(PAYLOAD)
            raise error

    for error in (RuntimeError("a bug"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            fail(error)
        assert names(tmp_path) == ["step-000010"]
    assert store.newest_good() == tmp_path / "step-000010"


def test_a_replaced_checkpoint_survives_a_kill_between_its_two_renames(tmp_path: Path) -> None:
    write(CheckpointStore(tmp_path, keep=1), 10)
    (tmp_path / "step-000010").rename(tmp_path / ".step-000010.old-0a1b2c3d")
    assert CheckpointStore(tmp_path, keep=1).newest_good() == tmp_path / "step-000010"


def test_the_work_goes_on_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    write(store, 10)
    all_there = threading.Event()
    with store.writing(20, written=all_there.is_set) as folder:
        write_state(folder, {"step": 20})
    store.check()
    assert newest_good(tmp_path) == tmp_path / "step-000010", "it does not count before all is in it"
    (folder / "late").write_bytes(PAYLOAD)
    all_there.set()
    store.wait()
    assert newest_good(tmp_path) == tmp_path / "step-000020"
    assert (tmp_path / "step-000020" / "late").read_bytes() == PAYLOAD
    store.close()


def test_one_checkpoint_is_written_at_a_time(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=1)
    began = time.monotonic()
    with store.writing(10, written=lambda: time.monotonic() > began + 0.3):
        pass
    with store.writing(20, written=lambda: True):
        assert names(tmp_path)[-1] == "step-000010", "the one before is whole before the next begins"
    store.close()
    assert names(tmp_path) == ["step-000020"], "the end waits for the last one"


def test_a_failure_in_the_background_is_told_at_the_next_look(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    write(store, 10)

    def torn() -> bool:
        raise PermissionError(13, "Permission denied", "rank-00001.safetensors")

    def look_until_told() -> None:
        for _ in range(500):
            store.check()
            time.sleep(0.01)

    with store.writing(20, written=torn) as folder:
        (folder / "half").write_bytes(PAYLOAD)
    with pytest.raises(CheckpointError, match=r"step-000020.*can be written.*older checkpoints are intact"):
        look_until_told()
    assert names(tmp_path) == ["step-000010"]
    write(store, 30)
    assert store.newest_good() == tmp_path / "step-000030", "it is told once"


def test_a_rank_that_dies_is_no_fault_of_the_disk(tmp_path: Path) -> None:
    def dead() -> bool:
        raise RunError("rank 1 died") from ConnectionResetError(104, "Connection reset by peer")

    store = CheckpointStore(tmp_path, keep=2)
    with store.writing(10, written=dead):
        pass
    with pytest.raises(RunError, match=r"^rank 1 died"):
        store.wait()
    assert names(tmp_path) == []


def test_at_the_end_a_failed_checkpoint_does_not_hide_a_worse_error(tmp_path: Path, caplog) -> None:
    def torn() -> bool:
        raise OSError(28, "No space left on device")

    store = CheckpointStore(tmp_path, keep=2)
    with store.writing(10, written=torn):
        pass
    store.close(ValueError, ValueError("the run's own"), None)
    assert "no space left on the disk" in caplog.text
    store = CheckpointStore(tmp_path, keep=2)
    with store.writing(10, written=torn):
        pass
    with pytest.raises(CheckpointError, match="no space left"):
        store.close()


KILLED = """
import os, signal, sys
from pathlib import Path
from morl.run.checkpoint import CheckpointStore
store = CheckpointStore(Path(sys.argv[1]), keep=1)
with store.writing(10) as folder:
    (folder / "weights.bin").write_bytes(b"good")
if sys.argv[2] == "now":
    with store.writing(20) as folder:
        (folder / "weights.bin").write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
with store.writing(20, written=lambda: os.kill(os.getpid(), signal.SIGKILL)) as folder:
    (folder / "weights.bin").write_bytes(b"half")
store.wait()
"""


@pytest.mark.parametrize("when", ["now", "in the background"])
def test_kill_9_while_writing_leaves_the_last_good_one(tmp_path: Path, when: str) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path, when], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [name.partition(".tmp")[0] for name in names(tmp_path)] == [".step-000020", "step-000010"]
    assert newest_good(tmp_path) == tmp_path / "step-000010", "a reader is not disturbed by the leftover"
    assert CheckpointStore(tmp_path, keep=1).newest_good() == tmp_path / "step-000010"
    assert names(tmp_path) == ["step-000010"]


FILLED = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import torch
from morl.run.checkpoint import CheckpointStore
from morl.errors import CheckpointError
from morl.learner.shards import About, Shard
root = Path(sys.argv[1])
store = CheckpointStore(root, keep=2)
with store.writing(10) as folder:
    (folder / "weights.bin").write_bytes(bytes(100_000))

def ours(folder):
    (folder / "weights.bin").write_bytes(bytes(10_000_000))

def library(folder):
    try:
        ours(folder)
    except OSError:
        raise RuntimeError("enforce fail at inline_container.cc") from None

for write in (ours, library):
    try:
        with store.writing(20) as folder:
            write(folder)
    except CheckpointError as error:
        print(error)

shard = Shard(0, About(1, {"p": (2_500_000,)}, {"p": 1}), {("p", 0, "weight"): torch.ones(2_500_000)}, {})
with store.writing(20, written=lambda: writing.done() and not writing.result()) as folder:
    writing = ThreadPoolExecutor(1).submit(shard.write, folder / "learner")
try:
    store.wait()
except CheckpointError as error:
    print(error)
assert [path.name for path in root.iterdir()] == ["step-000010"]
assert store.newest_good() == root / "step-000010"
with store.writing(30) as folder:
    (folder / "weights.bin").write_bytes(bytes(100_000))
assert store.newest_good() == root / "step-000030"
"""


def test_a_full_disk_is_told_and_harms_nothing(tmp_path: Path) -> None:
    mount = f'mount -t tmpfs -o size=4m tmpfs "{tmp_path}"'
    private = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*private, mount], capture_output=True, check=False).returncode
    ):
        pytest.skip("no file system can be mounted here; the limit on file sizes is tested instead")
    command = f'{mount} && exec "$0" -c "$1" "$2"'
    done = subprocess.run(
        [*private, command, sys.executable, FILLED, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = done.stdout.splitlines()
    assert len(told) == 3, "a library that hides the cause is seen through"
    for line in told:
        assert str(tmp_path / "step-000020") in line
        assert "no space left" in line
        assert "run.keep_checkpoints" in line


LIMITED = """
import resource, sys
from pathlib import Path
from morl.run.checkpoint import CheckpointStore
resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, 500_000))
store = CheckpointStore(Path(sys.argv[1]), keep=2)
with store.writing(10) as folder:
    (folder / "weights.bin").write_bytes(bytes(100_000))
with store.writing(20) as folder:
    (folder / "weights.bin").write_bytes(bytes(1_000_000))
"""


def test_a_limit_on_file_sizes_is_told_and_harms_nothing(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", LIMITED, tmp_path], capture_output=True, text=True, check=False)
    assert "CheckpointError" in done.stderr
    assert "ulimit -f" in done.stderr
    assert names(tmp_path) == ["step-000010"]
    assert newest_good(tmp_path) == tmp_path / "step-000010"


def test_wrong_use_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        step_of(tmp_path / "models")
    with pytest.raises(UsageError, match="keep_checkpoints"):
        CheckpointStore(tmp_path, keep=0)
    with pytest.raises(CheckpointError, match=r"trainer\.json"):
        read_state(tmp_path)
    assert newest_good(tmp_path / "nowhere") is None


def test_a_run_whose_checkpoints_are_all_torn_does_not_begin_anew(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep=2)
    for step in (10, 20):
        write(store, step)
    for step in (10, 20):
        truncate_file(tmp_path / f"step-{step:06d}")
    with pytest.raises(CheckpointError, match=r"step-000020/.*; step-000010/.* start another run"):
        store.newest_good()
    assert names(tmp_path) == ["step-000010", "step-000020"]
