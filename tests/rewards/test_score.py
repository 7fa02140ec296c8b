"""`morl score` and `morl rewards`: whatever a line holds, it gets its row."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import plugin  # noqa: F401  # registers its rewards
import pytest
from hypothesis import given
from hypothesis import strategies as st

from morl.cli.reward_docs import describe_rewards
from morl.errors import DataError, UsageError
from morl.evaluation.score_files import parse_options, rescore, score_file
from morl.recipe.load import load_recipe
from morl.registry import REWARDS
from morl.track.jsonl_files import write_samples
from morl.types import Encoded, Group, Prompt, Sample, Score, TermScore


def scored(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


GOOD = {"response": r"\boxed{4}", "gold": "4", "id": 7, "meta": None}
TOWER = {"response": r"\boxed{9^{9^{9^{9}}}}", "gold": r"9^{9^{9^{8}}}"}
LINES: list[tuple[bytes, float | None, str]] = [
    (json.dumps(GOOD).encode(), 1.0, "ok"),
    (json.dumps(GOOD | {"response": r"\boxed{5}"}).encode(), 0.0, "ok"),
    (json.dumps(TOWER).encode(), None, "timeout"),
    (json.dumps(GOOD | {"response": r"\boxed{9^{9^{9^{9}}}}"}).encode(), 0.0, "ok"),
    (json.dumps(GOOD | {"response": "9" * 2**20}).encode(), 0.0, "ok"),
    (json.dumps(GOOD | {"response": "\\boxed{" * 2**17}).encode(), 0.0, "no_answer"),
    (json.dumps(GOOD | {"response": "(" * 2**20}).encode(), 0.0, "no_answer"),
    (json.dumps(GOOD | {"response": r"\boxed{\frac{1}{"}).encode(), 0.0, "no_answer"),
    (json.dumps(GOOD | {"response": r"\boxed{\frac{1}}"}).encode(), 0.0, "ok"),
    (json.dumps(GOOD | {"response": "\ud800 \x00"}).encode(), 0.0, "ok"),
    (json.dumps(GOOD | {"response": ""}).encode(), 0.0, "no_answer"),
    (json.dumps(GOOD | {"response": None}).encode(), None, "error"),
    (json.dumps(GOOD | {"response": 4}).encode(), None, "error"),
    (json.dumps(GOOD | {"meta": [1]}).encode(), None, "error"),
    (json.dumps({"gold": "4"}).encode(), None, "error"),
    (json.dumps({"response": "4"}).encode(), None, "bad_gold"),
    (json.dumps(GOOD | {"gold": ""}).encode(), None, "bad_gold"),
    (json.dumps(GOOD | {"gold": {"a": 1}}).encode(), None, "bad_gold"),
    (b"null", None, "error"),
    (b"[1]", None, "error"),
    (b"not json", None, "error"),
    (b"", None, "error"),
    (b"\xff\xfe\x00", None, "error"),
    (b"[" * 100_000, None, "error"),
    (b'{"response": ' + b"1" * 10_000 + b"}", None, "error"),
    (b'{"response": "4", "gold": NaN}', None, "bad_gold"),
    (json.dumps(GOOD).encode(), 1.0, "ok"),
]


def test_every_line_gets_its_row(tmp_path: Path) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "new folder" / "out.jsonl"
    source.write_bytes(b"\n".join(line for line, _, _ in LINES))
    counts = score_file("math", [], source, out, workers=2, deadline_s=5.0)
    rows = scored(out)
    assert [(row["value"], row["status"]) for row in rows] == [(value, status) for _, value, status in LINES]
    assert rows[0] == GOOD | {"value": 1.0, "status": "ok", "detail": "4: the gold itself"}
    assert rows[18]["detail"] == "line 19: should be a JSON object, not NoneType"
    assert sum(counts.values()) == len(LINES)


def test_the_file_may_be_its_own_output_and_larger_than_the_window(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"response": f"{i / 3000}", "i": i}) + "\n" for i in range(3000)))
    score_file("test_inline", [], path, path)
    assert [(row["i"], row["value"]) for row in scored(path)] == [(i, i / 3000) for i in range(3000)]


def test_a_line_that_is_too_long_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("morl.evaluation.score_files.MAX_LINE", 1000)
    (tmp_path / "in").write_text(json.dumps({"response": "x" * 5000}) + "\n" + '{"response": "1"}\n' + " " * 1000)
    score_file("test_inline", [], tmp_path / "in", tmp_path / "out")
    assert [row["value"] for row in scored(tmp_path / "out")] == [None, 1.0, None]


def test_what_fails_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("old")
    with pytest.raises(UsageError, match="cannot be read"):
        score_file("math", [], tmp_path / "missing", tmp_path / "out")
    (tmp_path / "in").write_text("{}\n")
    for options, told in (
        (["tolerence=1"], "did you mean 'tolerance'"),
        (["tolerance"], "key=value"),
        (["tolerance=1", "tolerance=2"], "twice"),
        (["tolerance=a"], "valid number"),
    ):
        with pytest.raises(UsageError, match=told):
            score_file("number", options, tmp_path / "in", tmp_path / "out")
    with pytest.raises(UsageError, match="did you mean 'number'"):
        score_file("numbr", [], tmp_path / "in", tmp_path / "out")
    assert (tmp_path / "out").read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_an_interrupt_leaves_no_half_file(tmp_path: Path) -> None:
    row = json.dumps({"response": "60"})
    (tmp_path / "in").write_text(f"{row}\n" * 10)
    program = (
        f"import sys; sys.path.append({str(Path(__file__).parent)!r}); from pathlib import Path; "
        "from morl.rewards import reward; import hostile; "
        "from morl.rewards.reward import REWARDS; REWARDS.register('sleep')(hostile.sleep); "
        f"from morl.evaluation.score_files import score_file; print('go', flush=True); "
        f"score_file('sleep', [], Path({str(tmp_path / 'in')!r}), Path({str(tmp_path / 'out')!r}), deadline_s=600)"
    )
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    assert process.stdout.readline() == b"go\n"
    while not list(tmp_path.glob(".out.tmp-*")):
        assert process.poll() is None
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(30) != 0
    process.stdout.close()
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_option_values_are_yaml_or_text_where_text_is_wanted() -> None:
    regex, number, choice = REWARDS.load("regex"), REWARDS.load("number"), REWARDS.load("choice")
    for text in ("42", "[ab]+", "true", "a: b", "x=y", "'quoted'", "{a: b", "null and void", r"\d+"):
        expected = "quoted" if text == "'quoted'" else text
        assert parse_options("regex", regex, [f"pattern={text}"]) == {"pattern": expected}
    assert parse_options("regex", regex, ["ignore_case=true", "mode=fullmatch"]) == {
        "ignore_case": True,
        "mode": "fullmatch",
    }
    assert parse_options("number", number, ["tolerance=1e-3"]) == {"tolerance": 1e-3}
    assert parse_options("choice", choice, ["options=[red, blue]"]) == {"options": ["red", "blue"]}


@given(st.text(alphabet="abc=:[]{}'\"# \\n1.-", max_size=12))
def test_any_option_text_is_taken_or_refused(text: str) -> None:
    try:
        options = parse_options("regex", REWARDS.load("regex"), [f"pattern={text}"])
    except UsageError:
        return
    assert options["pattern"] is None or isinstance(options["pattern"], str)


RECIPE = """
run: {{name: again, steps: 1}}
model: {{path: none}}
objectives:
  sums:
    share: 1
    data: {{source: jsonl, path: none.jsonl}}
    prompt: "{{{{ question }}}}"
    gold: "{{{{ answer }}}}"
    rewards: {rewards}
rollout: {{prompts_per_step: 2, samples_per_prompt: 2, max_new_tokens: 8}}
"""


@pytest.fixture
def samples(tmp_path: Path) -> Path:
    def group(row: int, texts: list[str]) -> Group:
        prompt = Prompt(f"sums/{row}", "sums", ({"role": "user", "content": "2+2?"},), gold="4", meta={"row": row})
        made = tuple(
            Sample(prompt.id, i, (5,) * 3, (1,) * 3, (-0.1,) * 3, 0, "stop", text) for i, text in enumerate(texts)
        )
        score = Score(0.5, {"old": TermScore(0.5, "ok")})
        return Group(prompt, Encoded((1, 2)), made, (score,) * len(made))

    folder = tmp_path / "samples"
    for step in (1, 2):
        groups = [group(row, [r"\boxed{4}", r"\boxed{5}"]) for row in range(3)]
        write_samples(folder / f"step-{step:06d}.jsonl.zst", step, groups)
    return folder


def test_saved_samples_are_scored_under_another_mixture(samples: Path, tmp_path: Path) -> None:
    rewards = "[{use: math, weight: 3}, {use: length, maximum: 3}]"
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(rewards=rewards))
    assert rescore(load_recipe(tmp_path / "recipe.yaml"), samples, tmp_path / "out.jsonl") == 12
    rows = scored(tmp_path / "out.jsonl")
    assert [(row["step"], row["prompt_id"], row["index"]) for row in rows] == [
        (step, f"sums/{row}", index) for step in (1, 2) for row in range(3) for index in range(2)
    ]
    assert {(row["response"], row["value"]) for row in rows} == {(r"\boxed{4}", 1.0), (r"\boxed{5}", 0.25)}
    assert set(rows[0]["terms"]) == {"math", "length"}
    assert rows[0]["terms"]["length"]["detail"] == "3 tokens"


def test_samples_of_another_run_are_refused(samples: Path, tmp_path: Path) -> None:
    text = RECIPE.format(rewards="[{use: math}]").replace("sums:", "products:")
    (tmp_path / "recipe.yaml").write_text(text)
    recipe = load_recipe(tmp_path / "recipe.yaml")
    with pytest.raises(UsageError, match="there is no objective 'sums'"):
        rescore(recipe, samples, tmp_path / "out.jsonl")
    with pytest.raises(DataError, match="no samples"):
        rescore(recipe, tmp_path, tmp_path / "out.jsonl")
    with pytest.raises(UsageError, match=r"nowhere: no such file or folder of samples"):
        rescore(recipe, tmp_path / "nowhere", tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_rewards_are_listed_and_explained() -> None:
    table = describe_rewards()
    for name in ("choice", "exact", "length", "math", "number", "regex"):
        assert f"{name}\n" in table
        assert f"(morl.rewards.verifiers.{name}:{name})" in table
    told = describe_rewards("number")
    assert "relative_tolerance: float = 0.0" in told
    assert "response: 'There are 43.0 of them.', gold: 43" in told
    with pytest.raises(UsageError, match="did you mean 'number'"):
        describe_rewards("nubmer")
