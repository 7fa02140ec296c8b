"""The report: whatever a run wrote is in one file, and images show where gold and answer point."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from morl.cli.main import main
from morl.data.prompt_set import load_prompts
from morl.errors import UsageError
from morl.evaluation.held_out import Evaluation, measure
from morl.recipe.load import load_recipe
from morl.report.html_report import COLOURS, write_report
from morl.run.folder import RunFolder
from morl.track.jsonl_files import JsonlTracker, write_samples
from morl.types import Encoded, Group, Sample, Score, TermScore

RECIPE = """
run: {{name: seen, steps: 2, dir: {folder}/runs}}
model: {{path: some-model}}
objectives:
  boxes:
    share: 1
    data: {{source: jsonl, path: {folder}/rows.jsonl}}
    prompt: [{{image: "{{{{ image }}}}"}}, "Where is the <cat>?"]
    gold: "{{{{ box }}}}"
    rewards: [{{use: box, metric: iou}}]
rollout: {{prompts_per_step: 2, samples_per_prompt: 2, max_new_tokens: 8}}
eval: {{sets: {{held: {{objective: boxes, data: {{source: jsonl, path: {folder}/rows.jsonl, skip: 1, take: 1}}}}}}}}
"""
ANSWERS = ["[20, 20, 60, 60]", "</pre><script>alert(1)</script>"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The folder of a run with an image of 100 x 80 whose gold is the box 10, 10, 50, 50."""
    Image.new("RGB", (100, 80), "white").save(tmp_path / "p.png")
    row = {"image": str(tmp_path / "p.png"), "box": [10, 10, 50, 50]}
    (tmp_path / "rows.jsonl").write_text(2 * (json.dumps(row) + "\n"))
    (tmp_path / "r.yaml").write_text(RECIPE.format(folder=tmp_path))
    recipe = load_recipe(tmp_path / "r.yaml")
    with RunFolder.open(recipe) as folder:
        (folder.path / "samples").mkdir()
        (folder.path / "eval").mkdir()
        tracker = JsonlTracker(folder.metrics, folder.eval)
        for step in (0, 1, 2):
            for name, spec in {**recipe.objectives, **Evaluation.objectives(recipe)}.items():
                prompt = load_prompts(spec, name)[0]
                made = [Sample(prompt.id, i, (1,), (1,), (-1.0,), step, "stop", text) for i, text in enumerate(ANSWERS)]
                scores = [
                    Score(value, {"box": TermScore(value, "ok", "read & judged")}) for value in (0.3 + step / 10, 0.0)
                ]
                groups = [Group(prompt, Encoded((1,)), tuple(made), tuple(scores))]
                if name == "boxes" and step:
                    write_samples(folder.samples(step), step, groups)
                    tracker.log(step, {"objective/boxes/reward": step / 10, "learner/loss": 0.5, "time/step_s": 30.0})
                elif name != "boxes":
                    write_samples(folder.path / f"eval/held-step-{step:06d}.jsonl.zst", step, groups)
                    tracker.log_eval({"step": step, "set": "held", **measure(groups, 1.0)})
        tracker.close()
    return folder.path


def images(page: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/png;base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(item))).convert("RGB") for item in found]


def test_everything_is_in_one_file(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run)]) == 0
    assert str(run / "report.html") in capsys.readouterr().out
    page = (run / "report.html").read_text()
    assert page.count("<svg") == 4  # reward, held out, learner, time
    assert "1.0 min, 30.00 s per step" in page
    assert "+0.100" in page  # the mean of the prompt's two samples: from 0.15 to 0.25
    assert "read &amp; judged" in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)


def test_what_a_model_wrote_stays_text(run: Path) -> None:
    page = write_report(run).read_text()
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "Where is the &lt;cat&gt;?" in page


def test_gold_and_answer_are_drawn_where_they_are(run: Path) -> None:
    page = write_report(run, run / "other.html", samples=1).read_text()
    seen = images(page)
    assert len(seen) == 3  # held out before and after; the worst of the last step
    before, after, worst = seen
    assert before.size == after.size == worst.size == (400, 320)
    colours = {side: tuple(int(code[i : i + 2], 16) for i in (1, 3, 5)) for side, code in COLOURS.items()}
    assert after.getpixel((40, 83)) == colours["gold"]  # the left edge, at x = 10 of 100
    assert after.getpixel((80, 125)) == colours["answer"]
    assert worst.getpixel((40, 83)) == colours["gold"]
    assert colours["answer"] not in {colour for _, colour in worst.getcolors(10000)}  # an answer without a box


def test_a_run_whose_images_are_gone_has_a_report(run: Path, tmp_path: Path) -> None:
    (tmp_path / "p.png").unlink()
    page = write_report(run).read_text()
    assert not images(page)
    assert "[20, 20, 60, 60]" in page


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no run"):
        write_report(tmp_path)


def test_a_run_of_another_command_is_refused(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("stages: {}\n")
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    with pytest.raises(UsageError, match="is a run of `morl sft`: a report shows those of `morl train`"):
        write_report(tmp_path)
