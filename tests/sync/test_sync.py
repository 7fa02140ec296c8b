from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from morl.errors import RunError, StaleWeightsError, UsageError
from morl.learner.merged_weights import _whole
from morl.recipe.schema.machine_sections import SyncSpec
from morl.recipe.train_recipe import Recipe
from morl.sync.choose_sync import check_sync, plan_sync
from morl.sync.disk_sync import SHARED_MEMORY, DiskSync, sync_folder
from morl.sync.nccl_sync import EngineClient, Link, NcclSync


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
    one, other = (sync_folder(str(tmp_path / "sync"), tmp_path / place / "run") for place in ("a", "b"))
    assert one != other


def test_an_adapter_travels_alone_where_that_is_planned(tmp_path: Path) -> None:
    class WithLora(Learner):
        def publish_adapter(self, folder: Path) -> None:
            folder.mkdir(parents=True)
            (folder / "adapter_config.json").touch()

    engines = Engines(serves=4)
    asyncio.run(DiskSync(tmp_path / "sync", adapter=True).publish(WithLora(), engines))
    assert (Path(engines.loaded[0]) / "adapter_config.json").exists()


def recipe_with(lora: bool, sync: str) -> Recipe:
    return Recipe.model_validate(
        {
            "run": {"name": "r", "steps": 1},
            "model": {"path": "m"},
            "objectives": {
                "o": {
                    "share": 1,
                    "data": {"source": "jsonl", "path": "x"},
                    "prompt": "?",
                    "rewards": [{"use": "repetition"}],
                }
            },
            "rollout": {"prompts_per_step": 1, "samples_per_prompt": 2, "max_new_tokens": 1},
            "learner": {"lora": {"rank": 4, "alpha": 8} if lora else None},
            "sync": {"lora": sync},
        }
    )


@pytest.mark.parametrize(
    ("sync", "engine", "outside", "gpus", "adapter"),
    [
        ("auto", "vllm", [], 1, True),
        ("auto", "vllm", [], 0, False),
        ("auto", "hf", [], 1, False),
        ("auto", "vllm", ["model.visual.blocks.0.attn.qkv"], 1, False),
        ("adapter", "vllm", [], 0, True),
        ("merged", "vllm", [], 1, False),
    ],
)
def test_what_travels_of_lora(sync: str, engine: str, outside: list[str], gpus: int, adapter: bool) -> None:
    plan = plan_sync(recipe_with(True, sync), engine, outside, gpus)
    assert plan.adapter == adapter
    assert plan.engine_options == ({"max_lora_rank": 4} if adapter else {})
    assert plan.reason


def test_an_adapter_that_the_engine_cannot_take_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'hf' takes whole models only.*sync.lora=merged"):
        plan_sync(recipe_with(True, "adapter"), "hf", [], 0)
    with pytest.raises(UsageError, match=r"model\.visual\.merger.*learner.freeze"):
        plan_sync(recipe_with(True, "adapter"), "vllm", ["model.visual.merger.mlp.0"], 1)
    with pytest.raises(ValueError, match=r"learner.lora"):
        recipe_with(False, "adapter")


class Sending(Learner):
    def __init__(self) -> None:
        self.links: list[Link] = []

    def send_weights(self, link: Link) -> None:
        self.links.append(link)


class Receiving:
    def __init__(self, serves: int) -> None:
        self.serves = serves
        self.handles = ["a", "b"]

    async def actors(self) -> list[str]:
        return self.handles

    async def policy_version(self) -> int:
        return self.serves

    def restart_from(self, folder: Callable[[], str]) -> None:
        self.folder = folder


def test_a_group_is_made_anew_when_an_engine_was(tmp_path: Path) -> None:
    sync, learner, engines = NcclSync(tmp_path / "sync", workers=2), Sending(), Receiving(serves=4)
    for handles in (["a", "b"], ["a", "b"], ["a", "c"]):
        engines.handles = handles
        asyncio.run(sync.publish(learner, engines))
    first, second, third = learner.links
    assert first == second != third
    assert third.workers == (2, 2)
    # What a replacement loads is written when it is needed, and once.
    assert list(sync.root.iterdir()) == []
    assert [Path(engines.folder()).name for _ in range(2)] == ["v000004"] * 2
    engines.serves = 3
    with pytest.raises(StaleWeightsError, match="serves policy version 3, the learner is at 4"):
        asyncio.run(sync.publish(learner, engines))


def test_workers_are_numbered_through_all_engines_and_none_is_waited_for_in_vain(ray_cluster) -> None:
    import ray

    @ray.remote
    class Engine:
        def __init__(self) -> None:
            self.heard: list[tuple[str, object]] = []

        def receive_weights(self, stage: str, argument: object = None) -> None:
            if stage == "start" and argument is None and self.heard[-1][0] == "finish":
                time.sleep(60)
            self.heard.append((stage, argument))

        def what(self) -> list[tuple[str, object]]:
            return self.heard

    engines = tuple(Engine.options(num_cpus=0.01).remote() for _ in range(2))
    client = EngineClient(Link(0, 20.0, (2, 1), engines))
    client.policy_version = 7
    client.init_weight_transfer_engine({"rank_offset": 1, "world_size": 4})
    client.start_weight_update()
    client.update_weights({"names": []})
    client.finish_weight_update()
    heard = ray.get([engine.what.remote() for engine in engines])
    assert [own[0][1]["rank_offset"] for own in heard] == [1, 3]
    assert [stage for stage, _ in heard[0]] == ["init", "start", "update", "finish"]
    assert heard[0][-1] == heard[1][-1] == ("finish", 7)
    client.link = replace(client.link, timeout_s=0.5)
    with pytest.raises(RunError, match=r"did not answer 'start' within 0\.5 s"):
        client.start_weight_update()
    for engine in engines:
        ray.kill(engine)


def test_a_transport_that_is_not_there_is_refused() -> None:
    recipe = recipe_with(False, "auto")
    check_sync(recipe, "hf", gpus=0, local=True)
    broadcast = recipe.model_copy(update={"sync": SyncSpec(kind="nccl")})
    with pytest.raises(UsageError, match="needs GPUs, and there are none"):
        check_sync(broadcast, "vllm", gpus=0, local=False)
    with pytest.raises(UsageError, match="--local"):
        check_sync(broadcast, "vllm", gpus=1, local=True)
    with pytest.raises(UsageError, match="'hf' takes weights from files only"):
        check_sync(broadcast, "hf", gpus=1, local=False)
    check_sync(broadcast, "vllm", gpus=1, local=False)
    assert plan_sync(broadcast, "vllm", [], 1).engine_options == {"weight_transfer": "nccl"}


@pytest.mark.parametrize(
    ("engine", "sync", "where"),
    [
        ("hf", {"kind": "nccl"}, "'hf' takes weights from files only"),
        ("vllm", {"kind": "nccl", "lora": "adapter"}, "an adapter is sent as files: set 'kind' to 'disk'"),
    ],
)
def test_what_cannot_be_is_told_when_the_recipe_is_read(engine: str, sync: dict[str, str], where: str) -> None:
    read = recipe_with(True, "auto").model_dump()
    with pytest.raises(ValueError, match=where):
        Recipe.model_validate(read | {"rollout": read["rollout"] | {"engine": engine}, "sync": sync})
    Recipe.model_validate(read | {"rollout": read["rollout"] | {"engine": engine}, "sync": {"lora": "merged"}})


def test_several_nodes_need_a_folder_that_all_of_them_see() -> None:
    recipe = recipe_with(False, "auto")
    with pytest.raises(UsageError, match=r"sync\.folder: the cluster has 2 nodes"):
        check_sync(recipe, "hf", gpus=0, local=False, nodes=2)
    check_sync(recipe.model_copy(update={"sync": SyncSpec(folder="/shared")}), "hf", gpus=0, local=False, nodes=2)


def test_shared_memory_that_is_too_small_is_not_used(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert sync_folder(None, run, need=1).parent == SHARED_MEMORY
    assert sync_folder(None, run, need=2**60) == run / "sync"
    assert sync_folder(str(tmp_path), run, need=2**60).parent == tmp_path


def test_a_full_disk_is_told_with_its_remedy(tmp_path: Path) -> None:
    def fill(target: Path) -> None:
        with _whole(target) as folder:
            (folder / "half").write_bytes(b"x")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(RunError, match=r"v000001: the weights could not be written: no space left.*sync\.folder"):
        fill(tmp_path / "v000001")
    assert list(tmp_path.iterdir()) == []
