"""What the learner does when a step, a rank or the memory fails."""

from __future__ import annotations

import math
import os
import signal
import time
from dataclasses import fields, replace
from pathlib import Path

import broken_losses
import psutil
import pytest
import torch
from learner_groups import make_groups, make_image_groups
from safetensors.torch import load_file
from track.groups import make_group

from morl.cluster import ActorsFailedError, Cluster, gather
from morl.errors import DataError, RunError, UsageError
from morl.learner.learner import Learner
from morl.learner.packing import build_batch
from morl.learner.policy import PolicySettings
from morl.learner.rank_group import LearnerDiedError, LearnerMemoryError
from morl.learner.rows import group_rows
from morl.model.chat_codec import ChatCodec
from morl.recipe.schema.algorithm_section import AlgorithmSpec
from morl.recipe.schema.learner_section import LearnerSpec
from morl.recipe.schema.machine_sections import ClusterSpec
from morl.run.health import KEPT, HealthCheck, read_skipped
from morl.types import Batch, TermScore

LOSSES = Path(broken_losses.__file__)


def start(model: Path, *, dtype: str = "float32", loss: object = "on_policy", **learner: object) -> Learner:
    settings = PolicySettings(
        model=model,
        dtype=dtype,
        learner=LearnerSpec(lr=1e-2, weight_decay=0.1, **learner),
        algorithm=AlgorithmSpec.model_validate({"loss": loss}),
        temperature=0.9,
        banned_token_ids=(),
        seed=0,
        plugins=(str(LOSSES),),
    )
    local = settings.learner.ranks == 1
    return Learner.start(settings, Cluster(ClusterSpec(), local=local), total_steps=9, max_new_tokens=8)


def good(learner: Learner, seed: int) -> Batch:
    return learner.batch(make_groups(seed))


def with_advantage(batch: Batch, row: int, value: float) -> Batch:
    """The batch with another advantage in one row."""
    row_of_N = torch.bucketize(batch.sources_N, batch.row_starts_B1, right=True) - 1
    return replace(batch, advantages_N=torch.where(row_of_N == row, value, batch.advantages_N))


def weights_after(learner: Learner, folder: Path, batches: list[Batch]) -> dict[str, torch.Tensor]:
    for batch in batches:
        learner.step(batch)
    learner.publish(folder)
    learner.close()
    return load_file(folder / "model.safetensors")


BAD = {"both": math.nan, "gradient": -3.0, "loss": 3.0}
"""Advantages by what is not finite under the loss `explosive`."""


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("zero", [0, 1, 2, 3])
def test_a_step_that_is_not_finite_changes_nothing(tiny_model: Path, tmp_path: Path, zero: int, dtype: str) -> None:
    options = {"dtype": dtype, "loss": "explosive", "zero": zero}
    spared = start(tiny_model, **options)
    batches = [good(spared, 0), good(spared, 1)]
    expected = weights_after(spared, tmp_path / "spared", batches)
    hit = start(tiny_model, **options)
    # Before Adam has any state, too.
    for name, value in BAD.items():
        assert hit.step(with_advantage(batches[0], 1, value))["learner/skipped"] == 1, name
    hit.step(batches[0])
    for name, value in BAD.items():
        metrics = hit.step(with_advantage(batches[1], 2, value))
        assert metrics["learner/skipped"] == 1, name
        assert not math.isfinite(metrics["learner/grad_norm"]), name
        assert math.isfinite(metrics["learner/loss"]) == (name == "gradient"), name
    assert hit.nonfinite_rows(with_advantage(batches[1], 2, math.nan)) == [2]
    got = weights_after(hit, tmp_path / "hit", batches[1:])
    # Adam's moments and step count have a part in the last update.
    assert all(torch.equal(got[name], expected[name]) for name in expected)


def test_one_rank_s_bad_row_makes_all_skip(ray_cluster, tiny_model: Path, tmp_path: Path) -> None:
    learner = start(tiny_model, ranks=2, zero=2, tokens_per_microbatch=32)
    try:
        batch = good(learner, 0)
        learner.step(batch)
        learner.publish(tmp_path / "before")
        bad = with_advantage(batch, 1, math.nan)
        assert learner.step(bad)["learner/skipped"] == 1
        assert learner.nonfinite_rows(bad) == [1]
        learner.publish(tmp_path / "after")
        assert learner.step(batch)["learner/skipped"] == 0
    finally:
        learner.close()
    before, after = (load_file(tmp_path / name / "model.safetensors") for name in ("before", "after"))
    assert all(torch.equal(before[name], after[name]) for name in before)


def text_batch(seed: int = 0) -> Batch:
    groups = make_groups(seed)
    return build_batch(group_rows(groups, torch.ones((len(groups), 4)), torch.ones((len(groups), 4))))


def look(
    health: HealthCheck, step: int, batch: Batch, *, skipped: float = 0.0, loss: float = 0.5, **metrics: float
) -> None:
    names = [f"prompt {number}" for number in range(4)]
    said = {"learner/skipped": skipped} | {name.replace("__", "/"): value for name, value in metrics.items()}
    health.check_step(step, batch, said, loss=loss, nonfinite_rows=lambda _: [2], prompts=names)


def same(one: Batch, other: Batch) -> bool:
    def equal(a: object, b: object) -> bool:
        return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b

    plain = all(equal(getattr(one, f.name), getattr(other, f.name)) for f in fields(one) if f.name != "features_B")
    pairs = zip(one.features_B, other.features_B, strict=True)
    return plain and all(
        (a is None) == (b is None)
        and (a is None or (torch.equal(a.positions_3T, b.positions_3T) and a.tensors.keys() == b.tensors.keys()))
        and (a is None or all(torch.equal(a.tensors[name], b.tensors[name]) for name in a.tensors))
        for a, b in pairs
    )


def test_a_skipped_batch_is_kept_and_its_prompts_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    health, batch = HealthCheck(LearnerSpec(), "float32", tmp_path), text_batch()
    look(health, 12, batch, skipped=1.0, loss=math.nan)
    kept = read_skipped(tmp_path / "step-000012.safetensors")
    assert (kept.step, kept.rows, kept.prompts) == (12, (2,), ("prompt 2",))
    assert same(kept.batch, batch)
    assert "step 12 is skipped" in caplog.text
    assert "row 2 is not finite (prompt prompt 2)" in caplog.text
    look(health, 13, batch, skipped=1.0)
    assert "the gradient is not finite although the loss is" in caplog.text
    assert read_skipped(tmp_path / "step-000013.safetensors").rows == ()
    (tmp_path / "torn.safetensors").write_bytes(b"1234")
    with pytest.raises(DataError, match="not the batch of a skipped step"):
        read_skipped(tmp_path / "torn.safetensors")


def test_a_skipped_batch_keeps_its_images(vision_model: Path, tmp_path: Path) -> None:
    groups = make_image_groups(ChatCodec.load(vision_model, 512))
    batch = build_batch(group_rows(groups, torch.ones((len(groups), 3)), torch.ones((len(groups), 3))))
    assert None in batch.features_B
    assert any(batch.features_B)
    look(HealthCheck(LearnerSpec(), "float32", tmp_path), 1, batch, skipped=1.0, loss=math.inf)
    assert same(read_skipped(tmp_path / "step-000001.safetensors").batch, batch)


def test_skipped_steps_in_a_row_end_the_run(tmp_path: Path) -> None:
    health, batch = HealthCheck(LearnerSpec(max_skipped_steps=3), "float32", tmp_path), text_batch()
    for step in range(1, 20, 3):
        look(health, step, batch, skipped=1.0, loss=math.nan)
        look(health, step + 1, batch, skipped=1.0, loss=math.nan)
        look(health, step + 2, batch)
    assert len(list(tmp_path.iterdir())) == KEPT
    look(health, 31, batch, skipped=1.0, loss=math.nan)
    look(health, 32, batch, skipped=1.0, loss=math.nan)
    with pytest.raises(RunError, match=r"max_skipped_steps=3.*step-000033.safetensors.*--resume"):
        look(health, 33, batch, skipped=1.0, loss=math.nan)


def test_a_full_disk_does_not_make_a_skipped_step_worse(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    look(
        HealthCheck(LearnerSpec(), "float32", tmp_path / "file" / "skipped"),
        1,
        text_batch(),
        skipped=1.0,
        loss=math.nan,
    )
    assert "not saved" in caplog.text


def test_float16_may_look_for_its_loss_scale(tmp_path: Path) -> None:
    health = HealthCheck(LearnerSpec(max_skipped_steps=1), "float16", tmp_path)
    for step in range(20):
        look(health, step, text_batch(), skipped=1.0, loss=0.5)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RunError, match="max_skipped_steps"):
        look(health, 20, text_batch(), skipped=1.0, loss=math.nan)


def test_a_mismatch_is_told_once_a_stretch_and_ends_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    health, batch = HealthCheck(LearnerSpec(mismatch_warn=0.1, mismatch_stop=1.0), "float32", tmp_path), text_batch()
    told = []
    for step, mismatch in enumerate([0.01, 0.2, 0.3, 2.0, 2.0, 0.05, math.nan, 0.2, 3.0, 3.0]):
        caplog.clear()
        look(health, step, batch, policy__logprob_mismatch=mismatch)
        told.append("mismatch_warn" in caplog.text)
    assert [step for step, said in enumerate(told) if said] == [1, 7]
    with pytest.raises(RunError, match=r"3, 3, 4.*mismatch_stop=1.*sync.folder.*temperature"):
        look(health, 10, batch, policy__logprob_mismatch=4.0)


def test_a_stopped_rank_is_named_and_the_group_starts_again(ray_cluster, tiny_model: Path) -> None:
    options = {"ranks": 2, "zero": 2, "timeout_s": 4.0}
    learner = start(tiny_model, **options)
    batch = good(learner, 0)
    learner.step(batch)
    name = learner._ranks._names[1]
    stopped = psutil.Process(int(name.split("pid ")[1].split()[0]))
    stopped.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    with pytest.raises(LearnerDiedError, match=r"learner.step: no answer from rank 1 \(pid \d+ on .*rank 0 .*failed"):
        learner.step(batch)
    assert 3.5 < time.monotonic() - began < 4.0 + 12
    learner.close()
    again = start(tiny_model, **options)
    assert again.step(batch)["learner/grad_norm"] > 0
    again.close()
    assert psutil.wait_procs([stopped], timeout=20)[1] == []


def test_a_single_rank_that_hangs_is_noticed(ray_cluster, tiny_model: Path) -> None:
    settings = start(tiny_model).settings
    spec = settings.learner.model_copy(update={"timeout_s": 2.0})
    learner = Learner.start(
        replace(settings, learner=spec), Cluster(ClusterSpec(), local=False), total_steps=9, max_new_tokens=8
    )
    batch = good(learner, 0)
    os.kill(int(learner._ranks._names[0].split("pid ")[1].split()[0]), signal.SIGSTOP)
    with pytest.raises(LearnerDiedError, match=r"no answer within 2 s from rank 0 \(pid"):
        learner.step(batch)
    learner.close()


def test_a_rank_that_never_comes_is_named(ray_cluster, tiny_model: Path, tmp_path: Path) -> None:
    plugin = tmp_path / "sleepy_for_tests.py"
    plugin.write_text("import os, time\nif os.environ['RANK'] == '1':\n    time.sleep(600)\n")
    learner = LearnerSpec(ranks=2)
    settings = replace(start(tiny_model).settings, learner=learner, plugins=(str(LOSSES), str(plugin)))
    cluster = Cluster(ClusterSpec(start_timeout_s=12.0), local=False)
    with pytest.raises(
        LearnerDiedError, match=r"cluster.start_timeout_s=12\): no answer within 12 s from rank 0.* rank 1"
    ):
        Learner.start(settings, cluster, total_steps=9, max_new_tokens=8)


def test_a_rank_s_own_error_comes_through(ray_cluster, tiny_model: Path) -> None:
    with pytest.raises(UsageError, match=r"freeze: 'no\.such' names no parameter"):
        start(tiny_model, ranks=2, freeze=["no.such"])


@pytest.mark.parametrize("ranks", [1, 2])
def test_lack_of_memory_is_told_from_other_failures(ray_cluster, tiny_model: Path, ranks: int) -> None:
    learner = start(tiny_model, loss={"use": "hungry", "enough": 4}, ranks=ranks)
    try:
        with pytest.raises(LearnerMemoryError, match="can't allocate memory"):
            learner.step(good(learner, 0))
    finally:
        learner.close()


def test_gather_tells_who_died_who_failed_and_who_is_silent(ray_cluster) -> None:
    import ray

    @ray.remote(num_cpus=0.01, max_retries=0)
    def act(how: str) -> str:
        if how == "die":
            os._exit(1)
        if how == "fail":
            raise ValueError("no")
        time.sleep(60 if how == "sleep" else 0)
        return how

    def ask(*how: str, timeout_s: float | None = None) -> list[str]:
        return gather([act.remote(one) for one in how], "acting", timeout_s, [f"actor {one}" for one in how])

    assert ask("well", "fine") == ["well", "fine"]
    with pytest.raises(ActorsFailedError, match="acting: actor fail failed: ValueError: no") as failed:
        ask("well", "fail")
    assert not failed.value.died
    with pytest.raises(ActorsFailedError, match=r"no answer from actor sleep; .*actor die died") as died:
        ask("sleep", "die", "well")
    assert died.value.died
    assert died.value.silent == (0,)
    with pytest.raises(ActorsFailedError, match=r"no answer within 1 s from actor sleep$"):
        ask("well", "sleep", timeout_s=1.0)


def test_an_objective_without_a_score_is_told_of_once_and_too_few_end_the_run(tmp_path, caplog):
    health = HealthCheck(LearnerSpec(), "float32", tmp_path)
    silent = {"box": TermScore(None, "bad_gold", "the gold is no box")}
    boxes, sums = make_group("boxes", [None, None], terms=[silent] * 2), make_group("sums", [1.0, None])
    for step in (1, 2):
        health.check_scores(step, [boxes, sums], 0.25)
    (told,) = caplog.messages
    assert told.startswith("step 1: objectives.boxes: none of its 2 samples has a score")
    assert "the gold is no box" in told
    health.check_scores(3, [make_group("boxes", [1.0, None])], 0.25)
    health.check_scores(4, [boxes, sums], 0.25)
    assert len(caplog.messages) == 2
    with pytest.raises(RunError, match=r"only 1 of 4 samples .* scoring\.min_scored=0\.5; .* the gold is no box"):
        health.check_scores(5, [boxes, sums], 0.5)
    with pytest.raises(RunError, match="only 0 of 2"):
        health.check_scores(6, [boxes], 0.0)
