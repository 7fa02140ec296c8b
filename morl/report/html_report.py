"""`morl report`: one self-contained HTML file of a run, with curves, scores before and after, and samples.

It is made from the run's files only, so it also works while the run is training.
"""

from __future__ import annotations

import base64
import functools
import io
import json
import logging
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from morl.data import PromptSet, load_prompts
from morl.errors import MorlError, UsageError
from morl.evaluation import Evaluation, compare
from morl.files import replacing, require_writable
from morl.media import Image, Video
from morl.recipe import ObjectiveSpec, Recipe, command_of, load_recipe
from morl.registry import REWARDS
from morl.report.curves import Chart, draw
from morl.rewards import Mark, RewardInput, call_with
from morl.run import RunFolder
from morl.track import read_rows, read_samples
from morl.traits import traits_of
from morl.types import Prompt

if TYPE_CHECKING:
    import PIL.Image

logger = logging.getLogger(__name__)

Row = Mapping[str, Any]

LEARNER = ("learner/loss", "learner/grad_norm", "policy/entropy", "policy/logprob_mismatch", "policy/kl", "learner/lr")
PER_OBJECTIVE = {
    "pass_rate": "pass rate",
    "length": "response length, tokens",
    "zero_signal_rate": "groups without signal",
    "no_score_rate": "samples without score",
}
MAX_FRAMES = 8
"""Frames shown of a video, side by side."""
LONGEST_SIDE = 480
"""Pixels that images are scaled to or near, to keep the file small and small images visible."""


@dataclass(frozen=True, slots=True)
class ShownPrompt:
    """A prompt with one response, or with those before and after training."""

    prompt: str
    gold: str
    responses: tuple[ShownResponse, ...]


@dataclass(frozen=True, slots=True)
class ShownResponse:
    """A response and its scores."""

    title: str
    text: str
    value: float | None
    terms: Mapping[str, Row]
    images: tuple[str, ...]
    """As data URIs; boxes and points of gold and answer are drawn into the first."""


def write_report(folder: Path, out: Path | None = None, *, samples: int = 4) -> Path:
    """Write the report of a run.

    Args:
        folder: of the run.
        out: the HTML file; by default `report.html` in the run's folder.
        samples: prompts to show per evaluation set and per objective.

    Returns: the file.
    Raises: UsageError when the folder holds no run or `out` cannot be written; MissingExtraError without matplotlib.
    """
    if out is not None:
        require_writable(out)
    run = RunFolder(folder)
    if not run.recipe.is_file() or not run.holds_a_run():
        raise UsageError(f"'{folder}' holds no run: a report needs its recipe.yaml and metrics.jsonl")
    if (command := command_of(run.recipe)) in ("sft", "rm"):
        raise UsageError(f"'{folder}' is a run of `morl {command}`: a report shows those of `morl train`")
    recipe = load_recipe(run.recipe)
    steps, evaluations = list(read_rows(run.metrics)), list(read_rows(run.eval))
    images = _ImageFinder(recipe)
    text = _template().render(
        name=recipe.run.name,
        model=recipe.model.path,
        done=steps[-1]["step"] if steps else 0,
        steps=recipe.run.steps,
        facts=_facts(steps),
        before_after=_before_after(evaluations),
        rewards=draw([_rewards(steps, recipe)], columns=1, height=3.2),
        objectives=draw(list(_objective_charts(steps, recipe)), columns=2),
        evaluations=draw([_eval_chart(evaluations)], columns=1, height=3.0),
        learner=draw(list(_learner_charts(steps)), columns=3),
        times=draw([_times(steps)], columns=1),
        shown={
            **{f"held out: {name}": shown for name, shown in _held_out(run, recipe, images, samples)},
            **{f"training: {name}": shown for name, shown in _trained(run, recipe, images, samples)},
        },
        recipe=run.recipe.read_text("utf-8"),
    )
    target = run.report if out is None else out
    with replacing(target) as file:
        file.write(text.encode())
    return target


def _template() -> Any:
    import jinja2

    loader = jinja2.PackageLoader("morl.report", ".")
    return jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True).get_template("report.html.j2")


def _facts(steps: Sequence[Row]) -> dict[str, str]:
    if not steps:
        return {}
    seconds = sum(row.get("time/step_s", 0.0) for row in steps)
    tokens = sum(row.get("rollout/tokens", 0.0) for row in steps)
    mismatch = max(row.get("policy/logprob_mismatch", 0.0) for row in steps)
    return {
        "time in steps": f"{seconds / 60:.1f} min, {seconds / len(steps):.2f} s per step",
        "tokens written": f"{tokens:,.0f}, {tokens / max(seconds, 1e-9):,.0f} per second",
        "largest log-prob mismatch": f"{mismatch:.2g} nats",
        "steps skipped": f"{sum(row.get('learner/skipped', 0.0) for row in steps):.0f}",
    }


def _before_after(evaluations: Sequence[Row]) -> Sequence[Row]:
    numbers = sorted({row["step"] for row in evaluations})
    if len(numbers) < 2:
        return []
    first, last = ([row for row in evaluations if row["step"] == step] for step in (numbers[0], numbers[-1]))
    return compare(first, last)


def _curve(steps: Sequence[Row], metric: str) -> list[tuple[float, float]]:
    return [(row["step"], row[metric]) for row in steps if row.get(metric) is not None]


def _rewards(steps: Sequence[Row], recipe: Recipe) -> Chart:
    return Chart("reward", {name: _curve(steps, f"objective/{name}/reward") for name in recipe.objectives})


def _objective_charts(steps: Sequence[Row], recipe: Recipe) -> Iterator[Chart]:
    for metric, title in PER_OBJECTIVE.items():
        yield Chart(title, {name: _curve(steps, f"objective/{name}/{metric}") for name in recipe.objectives})


def _eval_chart(evaluations: Sequence[Row]) -> Chart:
    names = dict.fromkeys(row["set"] for row in evaluations)
    curves = {
        name: [(row["step"], row["reward"]) for row in evaluations if row["set"] == name and "reward" in row]
        for name in names
    }
    return Chart("held-out reward", curves)


def _learner_charts(steps: Sequence[Row]) -> Iterator[Chart]:
    for metric in LEARNER:
        title = metric.rpartition("/")[2].replace("_", " ")
        yield Chart(title, {title: _curve(steps, metric)})


def _times(steps: Sequence[Row]) -> Chart:
    parts = ("rollout", "reward", "learner", "sync", "step")
    return Chart("seconds", {part: _curve(steps, f"time/{part}_s") for part in parts})


class _ImageFinder:
    """Reloads the prompts of saved samples, for their images."""

    def __init__(self, recipe: Recipe) -> None:
        self._specs: dict[str, ObjectiveSpec] = {**recipe.objectives, **Evaluation.objectives(recipe)}
        self._open = functools.cache(self._prompts)

    def spec(self, row: Row) -> ObjectiveSpec:
        return self._specs[row["objective"]]

    def prompt(self, row: Row) -> Prompt | None:
        """The row's prompt; None when its data have changed."""
        try:
            prompts = self._open(row["objective"])
            prompt = prompts[int(row["prompt_id"].rpartition("/")[2]) - self.spec(row).data.skip]
        except (MorlError, IndexError, KeyError, ValueError, OSError) as error:
            logger.warning("the prompt %s cannot be reloaded: %s", row["prompt_id"], error)
            return None
        return prompt if prompt.id == row["prompt_id"] else None

    def _prompts(self, objective: str) -> PromptSet:
        return load_prompts(self._specs[objective], objective)

    def of(self, row: Row) -> tuple[str, ...]:
        """The images of a sample; boxes and points of its gold and answer are drawn into the first."""
        prompt = self.prompt(row) if row["media"] else None
        if prompt is None:
            return ()
        try:
            images = [_as_image(item) for item in prompt.media]
        except MorlError as error:
            logger.warning("the images of %s cannot be reloaded: %s", row["prompt_id"], error)
            return ()
        return tuple(_data_uri(image, self._marks(row, prompt) if i == 0 else ()) for i, image in enumerate(images))

    def _marks(self, row: Row, prompt: Prompt) -> list[Mark]:
        marks: list[Mark] = []
        reward_input = RewardInput.of(prompt, row["response"])
        for term in self.spec(row).rewards:
            marks_of = traits_of(REWARDS.load(term.use)).marks
            try:
                marks += call_with(marks_of, reward_input, term.options) if marks_of else []
            except Exception as error:  # noqa: BLE001  # a plugin's function, on arbitrary responses
                logger.info("%s: nothing to draw for %s: %s", row["prompt_id"], term.use, error)
        return marks


def _as_image(item: Image | Video) -> PIL.Image.Image:
    """An image, or the frames of a video side by side."""
    import PIL.Image

    if isinstance(item, Image):
        return item.load()
    frames = item.load()
    chosen = frames[:: -(-len(frames) // MAX_FRAMES)]
    return PIL.Image.fromarray(np.concatenate(list(chosen), axis=1))


COLOURS = {"gold": "#1a9e3f", "answer": "#d62728"}
WIDTH = {"gold": 5, "answer": 3}
"""Pixels of a line: the wider gold stays visible below a correct answer."""


def scale_of(size: tuple[int, int]) -> float:
    """The factor an image is scaled by; enlarging by a whole number keeps it sharp and the file small."""
    scale = LONGEST_SIDE / max(size)
    return math.floor(scale) if scale >= 1 else scale


def _data_uri(image: PIL.Image.Image, marks: Iterable[Mark]) -> str:
    """An image as a PNG data URI, with boxes and points drawn into it."""
    import PIL.Image
    from PIL import ImageDraw

    scale = scale_of(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    image = image.resize(size, PIL.Image.Resampling.NEAREST if scale >= 1 else PIL.Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(image)
    for mark in marks:
        pixels = [value * size[i % 2] for i, value in enumerate(mark.at)]
        if mark.is_box:
            x1, y1, x2, y2 = pixels
            corners = min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)
            pen.rectangle(corners, outline=COLOURS[mark.side], width=WIDTH[mark.side])
        else:
            pen.circle(pixels, 3 + WIDTH[mark.side], fill=COLOURS[mark.side], outline="white", width=2)
        if mark.label:
            pen.text((pixels[0] + 4, pixels[1] + 4), mark.label, fill=COLOURS[mark.side])
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def _held_out(
    run: RunFolder, recipe: Recipe, images: _ImageFinder, count: int
) -> Iterator[tuple[str, list[ShownPrompt]]]:
    """The first prompts of each evaluation set, with a response before and one after."""
    for name in recipe.eval.sets:
        files = sorted((run.path / "eval").glob(f"{name}-step-*.jsonl.zst"))
        if not files:
            continue
        chosen = {files[0].name: files[0], files[-1].name: files[-1]}.values()
        by_prompt: dict[str, list[tuple[str, Row]]] = {}
        for file in chosen:
            for row in read_samples(file):
                if row["index"] == 0 and (row["prompt_id"] in by_prompt or len(by_prompt) < count):
                    by_prompt.setdefault(row["prompt_id"], []).append((f"step {row['step']}", row))
        yield name, [_show(rows, images) for rows in by_prompt.values()]


def _trained(
    run: RunFolder, recipe: Recipe, images: _ImageFinder, count: int
) -> Iterator[tuple[str, list[ShownPrompt]]]:
    """Samples of the last step of each objective, from the lowest reward to the highest."""
    files = sorted((run.path / "samples").glob("step-*.jsonl.zst"))
    rows = list(read_samples(files[-1])) if files else []
    for name in recipe.objectives:
        scored = sorted((row for row in rows if row["objective"] == name and row["value"] is not None), key=_value)
        picks = sorted({round(i * (len(scored) - 1) / max(1, count - 1)) for i in range(count)}) if scored else []
        if picks:
            yield name, [_show([(f"step {scored[i]['step']}", scored[i])], images) for i in picks]


def _value(row: Row) -> float:
    return float(row["value"])


def _show(rows: Sequence[tuple[str, Row]], images: _ImageFinder) -> ShownPrompt:
    first = rows[0][1]
    gold = first["gold"]
    return ShownPrompt(
        prompt=_text(first["prompt"]),
        gold="" if gold is None else gold if isinstance(gold, str) else json.dumps(gold, ensure_ascii=False),
        responses=tuple(
            ShownResponse(title, row["response"], row["value"], row["terms"], images.of(row)) for title, row in rows
        ),
    )


def _text(messages: Sequence[Row]) -> str:
    texts = []
    for message in messages:
        content = message["content"]
        parts = [content] if isinstance(content, str) else [part.get("text", f"[{part['type']}]") for part in content]
        texts.append((f"{message['role']}: " if len(messages) > 1 else "") + "".join(parts))
    return "\n".join(texts)
