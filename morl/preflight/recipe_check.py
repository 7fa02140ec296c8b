"""`morl check`: finds all problems of a recipe, its data and its rewards in one run, without a model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

from morl.data import Asked, PromptSet, load_prompts
from morl.errors import BadMediaError, DataError, MorlError, Problem, UsageError
from morl.files import local_path
from morl.model import ChatCodec
from morl.preflight.check_report import CheckReport
from morl.preflight.missing_files import lacks_data, missing_checkpoints
from morl.recipe import (
    Document,
    EvalSetRecipe,
    ObjectiveSpec,
    PreferenceRecipe,
    Recipe,
    RecipeSource,
    SftRecipe,
    command_of,
    go_offline,
    inspect_document,
    place_of,
)
from morl.registry import REWARDS
from morl.rewards import WorkerPool, check_examples, score_golds
from morl.traits import needs_gold, traits_of
from morl.types import Prompt

_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
"""Files of a checkpoint that say how images are resized."""

TEMPLATE_TOKENS = 256
"""Most tokens that a chat template adds to a prompt, system prompt included."""
ROWS_OF_EACH = 100
"""Default number of rows that are checked of each data set of `morl sft` and `morl rm`, which may be endless."""
_ANY_MODEL = "none"
"""Stand-in for the model of a standalone evaluation set, which names none."""

KINDS: Mapping[str, type[Document]] = {"train": Recipe, "sft": SftRecipe, "rm": PreferenceRecipe, "eval": EvalSetRecipe}
"""The recipe schema of each command."""

Advance = Callable[[], None]
Place = Callable[[str], str]
"""From a key of the recipe to its line."""


def check(source: RecipeSource, overrides: Sequence[str] = (), *, rows: int | None = None) -> CheckReport:
    """Check a recipe or an evaluation set, render its rows, run its rewards' examples and score every gold answer.

    Continues after errors: the usable parts of a wrong recipe are checked too. Recipes of `morl sft` and `morl rm`
    have no rewards: the first `ROWS_OF_EACH` rows of each of their data sets are rendered, with the responses to learn.

    Args:
        source: the recipe, as for `load_recipe`.
        overrides: `key.path=value` each.
        rows: check only the first `rows` rows of each data set.

    Raises: RunError when no worker process can be started for the rewards.
    """
    command = command_of(source) or "train"
    recipe: Any
    recipe, problems = inspect_document(KINDS[command], source, overrides)
    report = CheckReport(recipe=problems, command=command)

    def place(key: str) -> str:
        return place_of(source, overrides, key.split("."))

    if recipe is not None and command == "eval":
        recipe = recipe.as_recipe("set" if isinstance(source, Mapping) else Path(source).stem, _ANY_MODEL)
    if recipe is not None:
        go_offline(recipe)
    if not isinstance(recipe, Recipe):
        if recipe is not None:
            _check_answers(_training_sets(recipe), rows or ROWS_OF_EACH, place, report)
        return report
    specs = {f"objectives.{name}": spec for name, spec in recipe.objectives.items() if command == "train"}
    specs |= {f"eval.sets.{name}": spec for name, spec in recipe.eval_objectives().items()}
    report.checkpoints = [] if recipe.model.path == _ANY_MODEL else missing_checkpoints(recipe)
    opened = {
        label: prompts
        for label, spec in specs.items()
        if (prompts := _open(f"{label}.data", label, spec, place, report)) is not None
    }
    wrong_keys = {problem.path for problem in problems}
    lengths = _Lengths(recipe)
    with _runner(recipe) as runner, _progress(sum(_count(prompts, rows) for prompts in opened.values())) as advance:
        for name in sorted({term.use for spec in specs.values() for term in spec.rewards}):
            report.data += [Problem("", f"reward '{name}'", message) for message in check_examples(name, runner)]
            _count_examples(name, report)
        for label, prompts in opened.items():
            # When the recipe's gold is wrong, scoring it says nothing about the data.
            spec = specs[label].model_copy(update={"rewards": []}) if f"{label}.gold" in wrong_keys else specs[label]
            _check_rows(label, spec, prompts, _count(prompts, rows), runner, report, lengths, advance)
    report.data += _check_frames(recipe, specs)
    return report


def _count_examples(name: str, report: CheckReport) -> None:
    """Count the examples of a reward, and note when it has no examples or no `answer`."""
    function = REWARDS.load(name)
    traits = traits_of(function)
    report.examples += len(traits.examples)
    if not traits.examples:
        report.notes.append(f"reward '{name}' has no examples")
    if needs_gold(function) and traits.answer is None:
        report.notes.append(f"reward '{name}' has no `answer`: its golds were not scored")


def _runner(recipe: Recipe) -> WorkerPool:
    return WorkerPool(workers=recipe.scoring.workers, memory_mb=recipe.scoring.memory_mb)


def _count(prompts: PromptSet, rows: int | None) -> int:
    return len(prompts) if rows is None else min(rows, len(prompts))


def _open(key: str, label: str, spec: Asked, place: Place, report: CheckReport) -> PromptSet | None:
    """Open the data at a key of the recipe; when that fails, report the problem and return None."""
    try:
        return load_prompts(spec, label)
    except MorlError as error:
        # The report states once what paths are relative to.
        message = str(error).partition("; paths are relative to")[0]
        (report.missing if lacks_data(spec) else report.data).append(Problem(place(key), key, message))
    except Exception as error:  # noqa: BLE001  # a plugin's source may raise anything
        report.data.append(Problem(place(key), key, f"cannot be opened: {type(error).__name__}: {error}"))
    return None


def _skips(spec: Asked) -> tuple[type[MorlError], ...]:
    """The errors for which the recipe skips a row."""
    return (BadMediaError,) if spec.data.bad_media == "skip" else ()


def _rendered(
    prompts: PromptSet,
    index: int,
    look: Callable[[Prompt], None],
    skips: tuple[type[MorlError], ...],
    report: CheckReport,
) -> tuple[Prompt | None, str]:
    """The prompt of a row and ""; or None and what is wrong with the row, "" when the recipe skips it."""
    try:
        prompt = prompts[index]
        for item in prompt.media:
            item.check()
        look(prompt)
    except MorlError as error:
        if isinstance(error, skips):
            report.skipped += 1
            return None, ""
        return None, str(error).removeprefix(f"{prompts.where(index)}: ")
    except Exception as error:  # noqa: BLE001  # a plugin's source may raise anything
        return None, f"cannot be read: {type(error).__name__}: {error}"
    report.rows += 1
    return prompt, ""


def _check_rows(
    label: str,
    spec: ObjectiveSpec,
    prompts: PromptSet,
    count: int,
    runner: WorkerPool,
    report: CheckReport,
    lengths: _Lengths,
    advance: Advance,
) -> None:
    """Render the first `count` rows and score their golds; adds problems to the report, by row."""
    faults: list[tuple[int, str]] = []
    scored = any(traits_of(REWARDS.load(term.use)).answer for term in spec.rewards)

    def rendered() -> Iterator[Prompt]:
        skips = _skips(spec) + ((_TooLongError,) if lengths.skips else ())
        for index in range(count):
            prompt, fault = _rendered(prompts, index, lengths.check, skips, report)
            if prompt is None:
                faults.extend([(index, fault)] if fault else [])
                advance()
            else:
                report.golds += scored and prompt.gold is not None
                yield prompt

    report.sets += 1
    every = rendered()
    for prompt_id, reason in score_golds(spec, every, runner, advance=advance):
        faults.append((int(prompt_id.rpartition("/")[2]) - spec.data.skip, reason))
    for _ in every:  # score_golds reads no rows when no reward needs a gold
        advance()
    report.data += [Problem(prompts.where(index), label, reason) for index, reason in sorted(faults)]


def _training_sets(recipe: SftRecipe | PreferenceRecipe) -> dict[str, Asked]:
    """The data sets of a recipe by key, with the responses to learn in place of golds."""
    if not isinstance(recipe, SftRecipe):
        return {"preference.data": recipe.preference}
    sets: dict[str, Asked] = {}
    for stage, spec in recipe.stages.items():
        for name, dataset in spec.datasets.items():
            sets[f"stages.{stage}.datasets.{name}.data"] = dataset
            if dataset.held_out is not None:
                held_out = dataset.model_copy(update={"data": dataset.held_out})
                sets[f"stages.{stage}.datasets.{name}.held_out"] = held_out
    return sets


def _check_answers(sets: Mapping[str, Asked], rows: int, place: Place, report: CheckReport) -> None:
    """Render the first rows of each set; adds problems of the rows and of their responses to the report."""
    opened = {
        key: prompts for key, spec in sets.items() if (prompts := _open(key, key, spec, place, report)) is not None
    }
    if any(len(prompts) > rows for prompts in opened.values()):
        report.portion = f", of each the first {rows} (--rows N reads more)"
    with _progress(sum(_count(prompts, rows) for prompts in opened.values())) as advance:
        for key, prompts in opened.items():
            report.sets += 1
            for index in range(_count(prompts, rows)):
                _, fault = _rendered(prompts, index, _check_answer, _skips(sets[key]), report)
                report.data += [Problem(prompts.where(index), key, fault)] if fault else []
                advance()


def _check_answer(prompt: Prompt) -> None:
    """Raises: DataError when a response in place of the gold is not text."""
    for answer in prompt.gold.values() if isinstance(prompt.gold, Mapping) else [prompt.gold]:
        if not isinstance(answer, str):
            raise DataError(
                f"an answer must be text, not of type {type(answer).__name__}; convert it with the filter `string`"
            )
        if not answer.strip():
            raise DataError("an answer is empty")


def _check_frames(recipe: Recipe, specs: Mapping[str, ObjectiveSpec]) -> list[Problem]:
    """Find rewards that resize images differently from the model's processor, if that is on this machine."""
    resized = {
        label: spec
        for label, spec in specs.items()
        if any(term.options.get("frame") == "absolute_resized" for term in spec.rewards)
    }
    try:
        folder = local_path(recipe.model.path)
    except FileNotFoundError:  # reported among the missing checkpoints
        return []
    if not resized or not any((folder / name).is_file() for name in _PROCESSORS):
        return []
    from morl.model import MediaProcessor, check_frames

    try:
        media = MediaProcessor.load(folder)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0].removeprefix("model.path: ")
        return [Problem("", "model.path", f"{recipe.model.path}: its processor cannot be loaded: {reason}")]
    problems = []
    for label, spec in resized.items():
        try:
            check_frames(media, {label: spec})
        except UsageError as error:
            key, _, message = str(error).partition(": ")
            problems.append(Problem("", key, message))
    return problems


class _TooLongError(DataError):
    """The prompt has more tokens than the recipe allows."""


class _Lengths:
    """Finds text prompts that are too long, if the model's tokenizer is on this machine."""

    def __init__(self, recipe: Recipe) -> None:
        self.skips = recipe.rollout.too_long == "skip"
        self._model = recipe.model.path
        self._most = recipe.rollout.max_prompt_tokens

    def check(self, prompt: Prompt) -> None:
        """Raises: _TooLongError."""
        # No token is shorter than a byte, so most prompts need not be counted.
        if prompt.media or sum(len(str(each).encode()) for each in prompt.messages) + TEMPLATE_TOKENS <= self._most:
            return
        codec = self._codec
        if codec is not None and (count := len(codec.encode(prompt, limit=False).token_ids_T)) > self._most:
            raise _TooLongError(
                f"the prompt has {count} tokens, more than rollout.max_prompt_tokens={self._most}; allow more, or "
                "leave such prompts out with rollout.too_long=skip"
            )

    @cached_property
    def _codec(self) -> ChatCodec | None:
        folder = local_path(self._model)
        try:
            return ChatCodec.load(folder, self._most) if folder.is_dir() else None
        except (MorlError, OSError, ValueError):  # reported among the missing checkpoints
            return None


@contextmanager
def _progress(total: int) -> Iterator[Advance]:
    """A progress bar of rows on stderr, if that is a terminal."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("rows", total=total)
        yield lambda: bar.advance(task)


__all__ = ["CheckReport", "check"]
