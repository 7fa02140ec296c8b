"""Supervised training in stages: what learns, what it learns from, and that a stopped run goes on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from learner_groups import noise
from safetensors.torch import load_file

from morl.errors import DataError, RecipeError, UsageError
from morl.learner.packing import microbatch
from morl.learner.policy import Policy
from morl.learner.supervised_rank import Example, example_batch
from morl.model.chat_codec import ChatCodec
from morl.model.loading import load_policy
from morl.recipe.load import load_document
from morl.recipe.sft_recipe import SftRecipe
from morl.run.export_policy import export
from morl.run.supervised_run import SupervisedRun
from morl.sft import train_supervised
from morl.types import Encoded

RECIPE = """
run: {{name: staged, dir: {folder}/runs, seed: 1, checkpoint_every: 2}}
model: {{path: {model}}}
learner: {{tokens_per_microbatch: 512}}
stages:
  head:
    steps: 2
    examples_per_step: 8
    train: [model.norm.*]
    lr: 1.0e-2
    datasets:
      sums: &sums
        data: {{source: jsonl, path: {folder}/rows.jsonl, skip: 10}}
        held_out: {{source: jsonl, path: {folder}/rows.jsonl, take: 10}}
        prompt: "{{{{ question }}}}"
        answer: "{{{{ answer }}}}"
  all:
    steps: 4
    examples_per_step: 8
    lr: 1.0e-2
    warmup_steps: 1
    measure_every: 2
    datasets: {{sums: *sums}}
"""


def write_recipe(folder: Path, model: Path, text: str = RECIPE) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{"question": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(50)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    path = folder / "staged.yaml"
    path.write_text(text.format(folder=folder, model=model))
    return path


def run(path: Path, *overrides: str, resume: bool = False) -> bool:
    return train_supervised(load_document(SftRecipe, path, overrides), resume=resume, local=True)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path / "model.safetensors")


def rows(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sft")
    assert run(write_recipe(folder, tiny_model))
    return folder / "runs" / "staged"


def test_each_stage_trains_what_it_names_and_starts_where_the_last_one_ended(finished: Path, tiny_model: Path) -> None:
    before, head, after = weights(tiny_model), weights(finished / "models/head"), weights(finished / "models/all")
    assert {name for name in head if not torch.equal(before[name], head[name])} == {"model.norm.weight"}
    # Adam's first steps move every weight that has a gradient by about the learning rate.
    assert all(not torch.equal(head[name], after[name]) for name in head)
    assert float((after["model.norm.weight"] - before["model.norm.weight"]).abs().max()) > 0.02


def test_it_learns_and_says_so(finished: Path) -> None:
    steps = rows(finished / "metrics.jsonl")
    assert [row["step"] for row in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[5]["sft/loss"] < 0.8 * steps[0]["sft/loss"]
    assert [row["learner/lr"] for row in steps[2:4]] == [5e-3, 1e-2]  # the schedule is the stage's own
    measured = rows(finished / "eval.jsonl")
    assert [(row["step"], row["stage"], row["set"], row["n"]) for row in measured] == [
        (2, "head", "sums", 10),
        (4, "all", "sums", 10),
        (6, "all", "sums", 10),
    ]
    assert measured[2]["nats_per_token"] < measured[0]["nats_per_token"]


def test_each_checkpoint_can_be_exported(finished: Path, tmp_path: Path) -> None:
    (last, whole) = finished / "checkpoints/step-000006", weights(finished / "models/all")
    for folder in (finished, last):
        export(folder, tmp_path / folder.name)
        assert all(torch.equal(whole[name], tensor) for name, tensor in weights(tmp_path / folder.name).items())
    between = finished / "checkpoints/step-000004"
    export(between, tmp_path / "between")
    moved = {name for name, tensor in weights(tmp_path / "between").items() if not torch.equal(whole[name], tensor)}
    assert moved == set(whole)


def test_an_export_has_what_earlier_stages_taught(tiny_model: Path, tmp_path: Path) -> None:
    tail = "  tail: {{steps: 2, examples_per_step: 8, train: [model.norm.*], lr: 1.0e-2, datasets: {{sums: *sums}}}}\n"
    assert run(write_recipe(tmp_path, tiny_model, RECIPE + tail))
    made = tmp_path / "runs" / "staged"
    export(made, tmp_path / "out")
    whole = weights(made / "models/tail")
    assert all(torch.equal(whole[name], tensor) for name, tensor in weights(tmp_path / "out").items())


def test_a_run_that_is_done_stays_done(finished: Path) -> None:
    before = (finished / "metrics.jsonl").read_bytes()
    assert run(finished.parent.parent / "staged.yaml", resume=True)
    assert (finished / "metrics.jsonl").read_bytes() == before
    with pytest.raises(UsageError, match="--resume"):
        run(finished.parent.parent / "staged.yaml")


@pytest.mark.parametrize("stopped_after", [1, 4])
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(
    finished: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stopped_after: int
) -> None:
    path = write_recipe(tmp_path, tiny_model)
    learn = SupervisedRun.learn

    def learn_or_stop(fit: SupervisedRun, *batch: Any, **schedule: Any) -> None:
        if fit.step == stopped_after:
            raise KeyboardInterrupt
        learn(fit, *batch, **schedule)

    with monkeypatch.context() as patch:
        patch.setattr(SupervisedRun, "learn", learn_or_stop)
        with pytest.raises(KeyboardInterrupt):
            run(path, "run.checkpoint_every=1")
    assert run(path, "run.checkpoint_every=1", resume=True)
    for stage in ("head", "all"):
        ours, theirs = weights(tmp_path / "runs/staged/models" / stage), weights(finished / "models" / stage)
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


EXAMPLES = [
    Example(Encoded((5, 6, 7)), (20, 21, 22, 2)),
    Example(Encoded((8,)), (30, 2)),
    Example(Encoded((5, 6)), (40, 2)),
]


@pytest.mark.parametrize("aggregation", ["batch_tokens", "sequence_mean"])
def test_the_loss_is_the_mean_over_tokens_or_over_answers(tiny_model: Path, aggregation) -> None:
    model = load_policy(tiny_model, "float32").eval()
    batch = example_batch(EXAMPLES, aggregation)
    micro = microbatch(batch, [0, 1, 2])
    with torch.no_grad():
        logprobs, _ = Policy(model, temperature=1.0, banned_token_ids=())(micro)
        alone = []
        for example in EXAMPLES:
            ids = torch.tensor([example.prompt.token_ids_T + example.answer_T])
            logits = model(input_ids=ids).logits[0, len(example.prompt.token_ids_T) - 1 : -1]
            nats = torch.nn.functional.cross_entropy(logits, torch.tensor(example.answer_T), reduction="none")
            alone.append(nats)
    expected = torch.cat(alone).mean() if aggregation == "batch_tokens" else sum(one.mean() for one in alone) / 3
    assert float(-(logprobs * micro.weights_N).sum()) == pytest.approx(float(expected), abs=1e-5)


def test_images_are_learnt_from_and_only_what_is_named(vision_model: Path, tmp_path: Path) -> None:
    tmp_path.mkdir(exist_ok=True)
    for number in range(4):
        noise((28, 56), number).save(tmp_path / f"{number}.png")
    (tmp_path / "4.png").write_bytes((tmp_path / "3.png").read_bytes()[:-100])
    lines = [{"image": str(tmp_path / f"{i}.png"), "answer": "yes" if i % 2 else "no"} for i in range(5)]
    (tmp_path / "images.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))
    (tmp_path / "projector.yaml").write_text(
        f"""
run: {{name: projector, dir: {tmp_path}/runs}}
model: {{path: {vision_model}}}
stages:
  projector:
    steps: 1
    examples_per_step: 8
    lr: 1.0e-3
    train: ["*.merger.*"]
    datasets:
      images:
        data: &rows {{source: jsonl, path: {tmp_path}/images.jsonl, bad_media: skip}}
        held_out: *rows
        prompt: [{{image: "{{{{ image }}}}"}}, "Is it?"]
        answer: "{{{{ answer }}}}"
"""
    )
    assert run(tmp_path / "projector.yaml")
    before, after = weights(vision_model), weights(tmp_path / "runs/projector/models/projector")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {name for name in before if ".merger." in name}
    ChatCodec.load(tmp_path / "runs/projector/models/projector", 100)  # all its files came along
    (step,) = rows(tmp_path / "runs/projector/metrics.jsonl")
    assert step["sft/images/skipped_rows"] in (1, 2)  # an image that is cut off, once an epoch
    assert [row["n"] for row in rows(tmp_path / "runs/projector/eval.jsonl")] == [4]


def test_what_is_wrong_is_said(tiny_model: Path, tmp_path: Path) -> None:
    path = write_recipe(tmp_path, tiny_model)
    with pytest.raises(RecipeError, match=r"stages\.all\.lr: should be greater than 0, not 0"):
        run(path, "stages.all.lr=0")
    with pytest.raises(RecipeError, match="did you mean 'examples_per_step'"):
        run(path, "stages.all.example_per_step=4")
    with pytest.raises(DataError, match=r"rows\.jsonl:\d+: answer: should be text, not \d+; .*{{ … \| string }}"):
        run(path, "stages.head.datasets.sums.answer={{ answer | int }}", "run.name=numbers")
    with pytest.raises(DataError, match=r"rows\.jsonl:\d+: .*max_tokens=3; allow more"):
        run(path, "stages.head.max_tokens=3")
    with pytest.raises(DataError, match="1000 examples in a row have more than max_tokens=3 tokens"):
        run(path, "stages.head.max_tokens=3", "stages.head.too_long=skip", resume=True)
    with pytest.raises(UsageError, match=r"train: 'model\.nrm\.\*' names no parameter.*model\.norm"):
        run(path, "stages.head.train=[model.nrm.*]", resume=True)
