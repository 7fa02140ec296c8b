"""A learner's state goes from any layout to any other, and nothing of it is written twice."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from learner_groups import make_groups
from safetensors.torch import load_file

from morl.cluster import Cluster
from morl.errors import CheckpointError
from morl.learner.learner import Learner
from morl.learner.policy import PolicySettings
from morl.learner.rank_group import RankGroup
from morl.learner.rank_metrics import RankMetrics
from morl.learner.shards import About, Shard, Shards
from morl.recipe.schema.algorithm_section import AlgorithmSpec
from morl.recipe.schema.learner_section import LearnerSpec
from morl.recipe.schema.machine_sections import ClusterSpec

BEFORE, AFTER = (0, 1), (5, 6, 7)
"""Seeds of the steps that are taken before a state is saved, and after."""

NUMBERS = torch.arange(24, dtype=torch.float32)


def start(model: Path, *, dtype: str = "float32", seed: int = 0, **learner: object) -> Learner:
    settings = PolicySettings(
        model=model,
        dtype=dtype,
        # The decay tells steps that were not asked for; below epsilon Adam makes a full step of rounding.
        learner=LearnerSpec(lr=1e-3, eps=1e-5, weight_decay=0.1, **learner),
        algorithm=AlgorithmSpec(),
        temperature=0.9,
        banned_token_ids=(),
        seed=seed,
    )
    local = settings.learner.ranks == 1
    return Learner.start(settings, Cluster(ClusterSpec(), local=local), total_steps=9, max_new_tokens=8)


def losses(learner: Learner, seeds: tuple[int, ...]) -> list[float]:
    return [learner.step(learner.batch(make_groups(seed)))["learner/loss"] for seed in seeds]


def write(folder: Path, *cuts: int, step: int = 3) -> Path:
    """The shards of ranks that hold the elements of one parameter of shape 4 x 6 between two cuts."""
    bounds = list(zip((0, *cuts), (*cuts, 24), strict=True))
    for rank, (low, high) in enumerate(bounds):
        kinds = {"weight": 0.0, "exp_avg": 100.0, "exp_avg_sq": 200.0}
        slices = {("p", low, kind): NUMBERS[low:high] + plus for kind, plus in kinds.items() if high > low}
        about = About(len(bounds), {"p": (4, 6)}, {"p": step} if high > low else {})
        Shard(rank, about, slices, {"cpu": torch.get_rng_state()}).write(folder)
    return folder


@pytest.mark.parametrize("cuts", [(), (12,), (1, 2, 23), (0, 7, 7, 24)], ids=str)
def test_any_range_is_read_from_whoever_holds_it(tmp_path: Path, cuts: tuple[int, ...]) -> None:
    saved = Shards(write(tmp_path, *cuts))
    assert torch.equal(saved.weight("p"), NUMBERS.view(4, 6))
    for low in range(24):
        for high in range(low + 1, 25):
            assert torch.equal(saved.read("p", "weight", low, high - low), NUMBERS[low:high])
    assert torch.equal(saved.read("p", "exp_avg_sq", 3, 9), NUMBERS[3:12] + 200)
    assert saved.step == 3


def test_a_missing_or_torn_shard_is_told(tmp_path: Path) -> None:
    folder = write(tmp_path, 8, 16)
    last = folder / "rank-00002.safetensors"
    os.truncate(last, last.stat().st_size - 4)
    with pytest.raises(CheckpointError, match=r"rank-00002.*delete the checkpoint's folder"):
        Shards(folder)
    last.unlink()
    with pytest.raises(CheckpointError, match="2 of 3 ranks"):
        Shards(folder)
    with pytest.raises(CheckpointError, match="0 ranks"):
        Shards(tmp_path / "nowhere")


def test_elements_that_nobody_wrote_are_told(tmp_path: Path) -> None:
    about = About(1, {"p": (4, 6)}, {"p": 3})
    Shard(0, about, {("p", 0, "weight"): NUMBERS[:10], ("p", 12, "weight"): NUMBERS[12:]}, {}).write(tmp_path)
    with pytest.raises(CheckpointError, match="lacks weight of 'p' from element 10 on"):
        Shards(tmp_path).weight("p")
    with pytest.raises(CheckpointError, match="lacks exp_avg of 'p' from element 0 on"):
        Shards(tmp_path).read("p", "exp_avg", 0, 24)


def test_before_the_first_step_moments_are_zero(tmp_path: Path) -> None:
    Shard(0, About(1, {"p": (24,)}, {"p": 0}), {("p", 0, "weight"): NUMBERS}, {}).write(tmp_path)
    assert not Shards(tmp_path).read("p", "exp_avg", 0, 24).any()


@pytest.mark.parametrize(
    ("shapes", "named"),
    [
        ({"p": (6, 4)}, r"'p' has the shape \[4, 6\] in the checkpoint and has the shape \[6, 4\] among"),
        ({"p": (4, 6), "q": (2,)}, r"'q' is missing in the checkpoint and has the shape \[2\] among"),
        ({}, r"'p' has the shape \[4, 6\] in the checkpoint and is missing among"),
    ],
    ids=["reshaped", "new", "gone"],
)
def test_another_model_is_refused(tmp_path: Path, shapes: dict[str, tuple[int, ...]], named: str) -> None:
    with pytest.raises(CheckpointError, match=named + ".*learner.lora"):
        Shards(write(tmp_path)).require(shapes)


LAYOUTS: dict[str, dict[str, Any]] = {
    "1z0": {"zero": 0},
    "1z1": {"zero": 1},
    "1z3": {"zero": 3},
    "1z3-offload": {"zero": 3, "offload": True},
    "2z0": {"ranks": 2, "zero": 0},
    "2z2": {"ranks": 2, "zero": 2},
    "2z3": {"ranks": 2, "zero": 3},
}


@pytest.fixture(scope="module")
def odd_model(tiny_model: Path, tmp_path_factory) -> Path:
    """A tiny model whose parameters are not shared out evenly by two."""
    from transformers import AutoConfig, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("odd")
    config = AutoConfig.from_pretrained(tiny_model, hidden_size=63, intermediate_size=127)
    config.head_dim = 32
    torch.manual_seed(0)
    Qwen2ForCausalLM(config).float().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def saved(ray_cluster, odd_model: Path, tmp_path_factory) -> dict[str, tuple[Path, Any, list[float]]]:
    """For each layout the folder of a state, what is plain JSON of it, and the losses of the steps that followed."""
    found = {}
    for name, layout in LAYOUTS.items():
        learner = start(odd_model, **layout)
        losses(learner, BEFORE)
        folder = tmp_path_factory.mktemp(name)
        found[name] = (folder, learner.save(folder), losses(learner, AFTER))
        learner.close()
    return found


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name != "2z0"])
def test_every_layout_goes_on_from_every_other(saved, odd_model: Path, layout: str) -> None:
    learner = start(odd_model, seed=1, **LAYOUTS[layout])
    try:
        # Its own first: what a new process makes of it. Several ranks are slow here: for them one other does.
        sources = saved if layout.startswith("1") else {"2z2": ["2z3"], "2z3": ["1z0"]}[layout]
        for source in sorted({layout, *sources}, key=lambda name: name != layout):
            folder, state, expected = saved[source]
            learner.load(folder, state)
            got = losses(learner, AFTER)
            if source == layout:
                assert got == expected
            assert got == pytest.approx(expected, abs=1e-5), source
    finally:
        learner.close()


def test_nothing_is_written_twice(saved) -> None:
    for name, (folder, *_) in saved.items():
        files = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
        assert len(files) == LAYOUTS[name].get("ranks", 1)
        sizes = [sum(own.numel() for key, own in file.items() if not key.startswith("rng:")) for file in files]
        shapes = Shards(folder).about.shapes
        assert sum(sizes) == 3 * sum(torch.Size(shape).numel() for shape in shapes.values()), name
        assert max(sizes) < 1.1 * min(sizes), "the ranks share the work"
        assert not any("lm_head" in parameter for parameter in shapes), "it is tied"


def test_states_agree_whatever_the_layout(saved) -> None:
    reference = Shards(saved["1z0"][0])
    for name, (folder, *_) in saved.items():
        found = Shards(folder)
        assert found.about.shapes == reference.about.shapes
        assert set(found.about.steps.values()) == {len(BEFORE)}, name
        for parameter in found.about.shapes:
            assert torch.allclose(found.weight(parameter), reference.weight(parameter), atol=1e-5), (name, parameter)


def test_random_numbers_go_on_where_there_are_as_many_ranks(saved, odd_model: Path, caplog) -> None:
    learner = start(odd_model, **LAYOUTS["1z0"])
    draws = {}
    with caplog.at_level(logging.INFO, "morl"):
        for name in ("1z0", "1z3", "2z3", "2z2"):
            torch.rand(3)
            learner.load(*saved[name][:2])
            draws[name] = torch.get_rng_state()
    learner.close()
    for name in ("1z0", "1z3"):
        assert torch.equal(draws[name], Shards(saved[name][0]).rng(0)["cpu"])
    assert torch.equal(draws["2z3"], draws["2z2"]), "they depend on seed, step and rank alone"
    assert not torch.equal(draws["2z3"], draws["1z0"])
    assert caplog.text.count("random numbers restart") == 2


@pytest.mark.parametrize("zero", [0, 1, 3])
def test_low_precision_keeps_its_master_weights(tiny_model: Path, tmp_path: Path, zero: int) -> None:
    learner = start(tiny_model, dtype="bfloat16", zero=zero)
    losses(learner, BEFORE)
    state = learner.save(tmp_path)
    expected = losses(learner, AFTER)
    learner.close()
    found = Shards(tmp_path)
    assert set(found.about.steps.values()) == {len(BEFORE)}
    master = found.weight(next(iter(found.about.shapes)))
    assert not torch.equal(master, master.bfloat16().float()), "it is finer than what the model computes with"
    for other in (zero, {0: 3, 1: 0, 3: 1}[zero]):
        learner = start(tiny_model, dtype="bfloat16", zero=other)
        learner.load(tmp_path, state)
        got = losses(learner, AFTER)
        learner.close()
        assert got == expected if other == zero else got == pytest.approx(expected, abs=1e-3)


def test_many_small_groups_of_parameters_are_one_state(odd_model: Path, tmp_path: Path, saved, monkeypatch) -> None:
    from morl.learner import rank

    def in_small_groups(*arguments: Any, whole: Any = rank.deepspeed_config) -> dict[str, Any]:
        config: dict[str, Any] = whole(*arguments)
        config["zero_optimization"] |= {"sub_group_size": 10_000, "stage3_param_persistence_threshold": 0}
        return config

    monkeypatch.setattr(rank, "deepspeed_config", in_small_groups)
    learner = start(odd_model, zero=3)
    assert len(learner._ranks._rank.engine.optimizer.fp16_groups) > 3
    folder, state, expected = saved["2z2"]
    learner.load(folder, state)
    learner.save(tmp_path)
    ours, theirs = Shards(tmp_path), Shards(folder)
    for parameter in theirs.about.shapes:
        assert torch.equal(ours.weight(parameter), theirs.weight(parameter))
    assert losses(learner, AFTER) == pytest.approx(expected, abs=1e-5)
    learner.close()


def test_of_adapters_nothing_else_is_saved(tiny_model: Path, tmp_path: Path) -> None:
    learner = start(tiny_model, lora={"rank": 4, "alpha": 8})
    losses(learner, BEFORE)
    state = learner.save(tmp_path)
    expected = losses(learner, AFTER)
    learner.close()
    assert all(".lora_" in name for name in Shards(tmp_path).about.shapes)
    learner = start(tiny_model, zero=3, lora={"rank": 4, "alpha": 8})
    learner.load(tmp_path, state)
    assert losses(learner, AFTER) == pytest.approx(expected, abs=1e-5)
    learner.close()
    learner = start(tiny_model, lora={"rank": 2, "alpha": 8})
    with pytest.raises(CheckpointError, match=r"q_proj.*\[4, 64\].*\[2, 64\]"):
        learner.load(tmp_path, state)
    learner.close()


def test_a_state_of_the_moment_is_saved_while_the_next_step_runs(saved, odd_model: Path, tmp_path: Path) -> None:
    learner = start(odd_model, **LAYOUTS["1z0"])
    learner.load(*saved["1z0"][:2])
    learner.save(tmp_path, background=True)
    losses(learner, AFTER)
    while not learner.saved():
        pass
    learner.close()
    for ours, theirs in zip(sorted(tmp_path.iterdir()), sorted(saved["1z0"][0].iterdir()), strict=True):
        assert ours.read_bytes() == theirs.read_bytes()


def test_a_file_that_is_not_to_be_seen_from_here_is_not_saved(tmp_path: Path) -> None:
    class Elsewhere(RankGroup[RankMetrics]):
        """Ranks of which one writes to a disk that this process does not see."""

        def __init__(self, *files: Path | None) -> None:
            super().__init__(LearnerSpec(lr=1e-3))
            self.files = list(files)

        def call(self, method: str, *arguments: Any) -> list[Any]:
            return self.files

        def close(self) -> None: ...

    here = tmp_path / "rank-00000.safetensors"
    here.touch()
    assert Elsewhere(here).saved()
    assert not Elsewhere(here, None).saved()
    with pytest.raises(CheckpointError, match=r"rank-00001.*run\.dir must be a folder that all nodes share"):
        Elsewhere(here, tmp_path / "rank-00001.safetensors").saved()
