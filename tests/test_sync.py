from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from morl.errors import StaleWeightsError
from morl.sync.disk import DiskSync


class Learner:
    policy_version = 4

    def publish(self, folder: Path) -> None:
        folder.mkdir(parents=True)


class Engines:
    def __init__(self, serves: int) -> None:
        self.serves = serves
        self.loaded: list[str] = []

    async def load_weights(self, folder: str) -> int:
        assert Path(folder).is_dir()
        self.loaded.append(folder)
        return self.serves


def test_an_engine_with_old_weights_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(StaleWeightsError, match="serves policy version 3, the learner is at 4"):
        asyncio.run(DiskSync(tmp_path / "sync").publish(Learner(), Engines(serves=3)))


def test_only_the_latest_folder_stays(tmp_path: Path) -> None:
    sync, learner = DiskSync(tmp_path / "sync"), Learner()
    for version in (4, 5):
        learner.policy_version = version
        asyncio.run(sync.publish(learner, Engines(serves=version)))
    assert [path.name for path in (tmp_path / "sync").iterdir()] == ["v000005"]
    sync.close()
    assert not (tmp_path / "sync").exists()


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / "sync" / "v000001").mkdir(parents=True)
    DiskSync(tmp_path / "sync")
    assert list((tmp_path / "sync").iterdir()) == []


def test_two_runs_of_one_name_do_not_share_a_folder(tmp_path: Path) -> None:
    one, other = (DiskSync.open(str(tmp_path / "sync"), tmp_path / place / "run") for place in ("a", "b"))
    assert one.root != other.root
