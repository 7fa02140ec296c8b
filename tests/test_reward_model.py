"""`morl rm` as a user starts it, and what it trained as a reward of a run."""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file
from test_train import finish, rows, start, without_clock, write_recipe

from morl.cli.main import main
from morl.learner.reward_model_server import RewardModelServer, ServerSettings
from morl.recipe.schema.objective_section import ObjectiveSpec
from morl.rewards.models.reward_model import ServedModel, reward_model
from morl.rewards.scorer import Scorer
from morl.run.checkpoint import newest_good, read_state
from morl.track.jsonl_files import read_rows
from morl.types import Prompt, Sample

RECIPE = """
run: {{name: rm, seed: 0, steps: {steps}, checkpoint_every: 4, dir: {folder}/runs}}
model: {{path: {model}}}
preference:
  data: {{source: jsonl, path: {folder}/pairs.jsonl}}
  prompt: "{{{{ question }}}}"
  chosen: "{{{{ good }}}}"
  rejected: "{{{{ bad }}}}"
  pairs_per_step: 16
  held_out: 0.25
learner: {{lr: 3.0e-3, tokens_per_microbatch: 512}}
"""
STEPS = 12
YES, NO = "The answer is yes", "The answer is no no"


def write_preferences(folder: Path, model: Path, steps: int = STEPS) -> Path:
    """People who want to hear yes, whatever was asked and however long it takes."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    lines = []
    for number in range(200):
        good, bad = (YES, NO) if draw.random() < 0.5 else (f"{YES} yes yes", "no")
        lines.append(json.dumps({"question": f"What is {number} + {number}?", "good": good, "bad": bad}))
    (folder / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    path = folder / "rm.yaml"
    path.write_text(RECIPE.format(folder=folder, model=model, steps=steps))
    return path


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rm")
    assert main(["rm", str(write_preferences(folder, tiny_model)), "--local"]) == 0
    return folder / "runs" / "rm"


def test_a_reward_model_learns_what_people_prefer(trained):
    first, last = (row for row in read_rows(trained / "eval.jsonl"))
    assert first["accuracy"]["mean"] == 0.5
    assert first["log_loss"] == pytest.approx(0.6931, abs=1e-4)
    assert last["accuracy"]["low"] > 0.8
    assert last["log_loss"] < 0.5
    assert last["step"] == STEPS


def test_it_is_stopped_and_goes_on_as_if_nothing_had_happened(trained, tiny_model, tmp_path):
    recipe = write_preferences(tmp_path, tiny_model)
    assert main(["rm", str(recipe), "--local", "run.steps=4"]) == 0
    assert main(["rm", str(recipe), "--local", "--resume"]) == 0
    resumed = tmp_path / "runs" / "rm"
    ours, theirs = (load_file(run / "model" / "model.safetensors") for run in (resumed, trained))
    assert all(ours[name].equal(theirs[name]) for name in theirs)
    assert [without_clock(row) for row in rows(resumed)] == [without_clock(row) for row in rows(trained)]


def test_two_ranks_learn_what_one_learns(trained, tiny_model, tmp_path):
    recipe = write_preferences(tmp_path, tiny_model, steps=2)
    assert main(["rm", str(recipe), "learner.ranks=2", "learner.zero=2"]) == 0
    alone = [row["preference/loss"] for row in rows(trained)[:2]]
    assert [row["preference/loss"] for row in rows(tmp_path / "runs" / "rm")] == pytest.approx(alone, rel=1e-4)


def test_a_frozen_part_stays_as_it_was(tiny_model, tmp_path):
    recipe = write_preferences(tmp_path, tiny_model, steps=2)
    assert main(["rm", str(recipe), "--local", "learner.freeze=['model.layers.0.*']"]) == 0
    before = load_file(tiny_model / "model.safetensors")
    after = load_file(tmp_path / "runs" / "rm" / "model" / "model.safetensors")
    changed = {name for name in before if name in after and not before[name].equal(after[name])}
    assert changed
    assert not any(name.startswith("model.layers.0.") for name in changed)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("learner.freeze=['visual.*']", "learner.freeze: 'visual.*' names no parameter"),
        ("learner.freeze=['*']", "leave nothing to train"),
        ("preference.max_tokens=8", "more than preference.max_tokens=8"),
        ("preference.pair_per_step=8", "did you mean 'pairs_per_step'"),
    ],
)
def test_what_cannot_be_trained_is_said(tiny_model, tmp_path, capsys, change, told):
    assert main(["rm", str(write_preferences(tmp_path, tiny_model)), "--local", change]) in (1, 2)
    assert told in capsys.readouterr().err


def test_a_reward_model_that_sees_prefers_by_the_image(vision_model, tmp_path):
    draw, lines = random.Random(0), []
    for number in range(80):
        red = draw.random() < 0.5
        shade = draw.randrange(150, 256)
        image = tmp_path / f"{number}.png"
        Image.new("RGB", (56, 28), (shade, 0, 0) if red else (0, 0, shade)).save(image)
        good, bad = ("red", "blue") if red else ("blue", "red")
        lines.append(json.dumps({"image": str(image), "good": good, "bad": bad}))
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    recipe = tmp_path / "rm.yaml"
    recipe.write_text(RECIPE.format(folder=tmp_path, model=vision_model, steps=30))
    asked = 'preference.prompt=[{image: "{{ image }}"}, "Which colour?"]'
    assert main(["rm", str(recipe), "--local", asked]) == 0
    _, last = read_rows(tmp_path / "runs" / "rm" / "eval.jsonl")
    assert last["accuracy"]["low"] > 0.6
    content = [{"type": "image"}, {"type": "text", "text": "Which colour?"}]
    with scorer(tmp_path / "runs" / "rm") as made:
        for image in (tmp_path / "0.png", tmp_path / "1.png", tmp_path / "2.png"):
            good = json.loads(lines[int(image.stem)])["good"]
            prompt = Prompt("o/0", "o", ({"role": "user", "content": content},), (str(image),))
            red, blue = (asyncio.run(made.score(prompt, answer(text))).value for text in ("red", "blue"))
            assert (red > blue) == (good == "red")


def test_a_pair_with_an_image_that_is_too_long_is_named_or_left_out(vision_model, tmp_path, capsys):
    lines = []
    for number in range(12):
        Image.new("RGB", (56, 280 if number % 6 == 0 else 28), (99, 20 * number, 0)).save(tmp_path / f"{number}.png")
        lines.append(json.dumps({"image": f"{number}.png", "good": "red", "bad": "blue"}))
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    recipe = tmp_path / "rm.yaml"
    recipe.write_text(RECIPE.format(folder=tmp_path, model=vision_model, steps=1))
    asked = 'preference.prompt=[{image: "{{ image }}"}, "Which colour?"]'
    common = ["rm", str(recipe), "--local", asked, "preference.held_out=0.5", "preference.max_tokens=45"]
    assert main(common) == 1
    told = capsys.readouterr().err
    assert re.search(r"pairs\.jsonl:\d+: the prompt and its answers have \d+ tokens", told)
    assert main([*common, "preference.too_long=skip", "run.name=rm2"]) == 0


def answer(text: str) -> Sample:
    return Sample("o/0", 0, (1,), (1,), (0.0,), 0, "stop", text)


def scorer(path: Path, **options: object) -> Scorer:
    term = {"use": "reward_model", "path": str(path / "model"), **options}
    data = {"source": "jsonl", "path": "unread.jsonl"}
    spec = {"share": 1, "data": data, "prompt": "x", "rewards": [term]}
    return Scorer({"o": ObjectiveSpec.model_validate(spec)})


def served_model(center: float) -> ServedModel:
    """One with a running mean, and no model behind it."""
    settings = {"temperature": 1.0, "dtype": "float32", "max_tokens": 1, "tokens_per_batch": 1, "replicas": 1}
    made = ServedModel(path="x", center="running", **settings)
    made.center = center
    return made


def scores(made: Scorer, *answers: str, gold: str | None = None) -> list[float | None]:
    prompt = Prompt("o/0", "o", ({"role": "user", "content": "What is 500 + 500?"},), gold=gold)

    async def all_at_once() -> list[float | None]:
        return [score.value for score in await asyncio.gather(*(made.score(prompt, answer(t)) for t in answers))]

    return asyncio.run(all_at_once())


def test_the_preferred_answer_scores_higher(trained):
    with scorer(trained) as made:
        yes, no = scores(made, YES, NO)
    assert 0 < no < 0.5 < yes < 1


def test_a_score_does_not_depend_on_what_it_is_scored_with(trained):
    with scorer(trained) as made:
        together = scores(made, YES, NO, "Maybe, maybe not; who can tell?", "yes")
        alone = [scores(made, text)[0] for text in (YES, NO, "Maybe, maybe not; who can tell?", "yes")]
    assert together == alone


def test_what_is_asked_twice_is_computed_once(trained, monkeypatch):
    read, run = [], []
    encode, forward = RewardModelServer._encode, RewardModelServer._forward
    monkeypatch.setattr(RewardModelServer, "_encode", lambda self, *asked: read.append(asked) or encode(self, *asked))
    monkeypatch.setattr(RewardModelServer, "_forward", lambda self, rows: run.extend(rows) or forward(self, rows))
    question = (({"role": "user", "content": "What is 500 + 500?"},), ())
    yes, no, *again = RewardModelServer(ServerSettings(str(trained / "model"))).score(
        [question] * 4, [YES, NO, NO, YES]
    )
    assert yes > no
    assert again == [no, yes]
    assert len(read) == 1
    assert [len(answers) for _, answers in run] == [1, 1]


def test_only_the_final_answer_is_read(trained):
    with scorer(trained) as made:
        plain, thought, cut_off = scores(made, NO, f"<think>{YES} yes yes</think>{NO}", f"<think>{YES} yes")
    assert plain == thought
    assert cut_off == 0.0


def test_a_reference_answer_is_worth_one_half(trained):
    with scorer(trained, center="reference") as made:
        assert scores(made, NO, gold=NO) == [0.5]
        assert scores(made, YES, gold=NO)[0] > 0.5
        assert scores(made, YES) == [None]


def test_a_score_that_is_no_number_costs_its_answer_alone(monkeypatch):
    async def told(self, questions, answers):
        return [math.nan, 1.0, math.inf, -math.inf]

    monkeypatch.setattr(ServedModel, "scores", told)
    made = served_model(center=0.0)
    asked = ({"role": "user", "content": "?"},)
    verdicts = asyncio.run(reward_model(["a"] * 4, [asked] * 4, [()] * 4, made, path="x", center="running"))
    assert [verdict.value is None for verdict in verdicts] == [True, False, True, True]
    made.begin_step(2)
    assert made.center == pytest.approx(0.1)


def test_an_answer_that_is_too_long_has_no_score(trained):
    with scorer(trained, max_tokens=60) as made:
        short, long = scores(made, YES, "yes " * 100)
    assert short is not None
    assert long is None


def test_a_running_mean_moves_between_steps_alone():
    def after(scores_: list[float]) -> ServedModel:
        made = served_model(center=1.0)
        made.observe(scores_)
        return made

    values = [random.Random(i).gauss(0, 1) for i in range(50)]
    one, other = after(values), after(values[::-1])
    assert one.center == 1.0
    assert one.state() == other.state()
    resumed = after([])
    resumed.restore(json.loads(json.dumps(one.state())))
    for made in (one, other, resumed):
        made.begin_step(2)
    assert one.center == other.center == resumed.center == pytest.approx(0.9 + 0.1 * sum(values) / 50)
    one.begin_step(3)
    assert one.center == other.center


def test_a_model_of_unknown_mean_wants_a_center(tiny_model, capsys, tmp_path):
    (tmp_path / "in.jsonl").write_text('{"response": "yes", "messages": [{"role": "user", "content": "?"}]}\n')
    files = ["--in", str(tmp_path / "in.jsonl"), "--out", str(tmp_path / "out.jsonl")]
    assert main(["score", "reward_model", "--option", f"path={tiny_model}", *files]) == 2
    assert "set center to running, reference or a number" in capsys.readouterr().err


def test_a_run_is_rewarded_by_the_model_and_keeps_its_mean(trained, tiny_model, tmp_path):
    recipe = write_recipe(tmp_path, tiny_model, steps=2)
    term = f"{{use: reward_model, path: {trained / 'model'}, center: running}}"
    code, said = finish(start(recipe, f"objectives.brief.rewards=[{term}]", "eval=null"))
    assert code == 0, said
    run = tmp_path / "runs" / "tiny"
    for row in rows(run):
        assert row["term/brief/reward_model/no_score_rate"] == 0
        assert 0 < row["term/brief/reward_model/value"] < 1
    state = read_state(newest_good(run / "checkpoints"))["rewards"]["brief/reward_model"]
    stored = json.loads((trained / "model" / "reward.json").read_text())["center"]
    assert state["count"] > 0
    assert state["center"] != stored
