from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from morl.errors import StaleWeightsError, UsageError
from morl.recipe import Recipe
from morl.sync.disk import DiskSync
from morl.sync.plan import plan_sync


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
