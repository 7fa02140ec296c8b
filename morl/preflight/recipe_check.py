"""`morl check`: what is wrong with a recipe, its data and its rewards, all found in one run and without a model."""

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
from morl.rewards import Runner, check_examples, score_golds
from morl.traits import needs_gold, traits_of
from morl.types import Prompt

_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
"""Files of a checkpoint that say how images are resized."""

TEMPLATE_TOKENS = 256
"""What a chat template adds to a prompt, at most, system prompt included."""
ROWS_OF_EACH = 100
"""Rows that are looked at of each data set to learn answers from, unless more are asked for: these may be endless."""
_ANY_MODEL = "none"
"""The model of an evaluation set that stands by itself: it names none."""

KINDS: Mapping[str, type[Document]] = {"train": Recipe, "sft": SftRecipe, "rm": PreferenceRecipe, "eval": EvalSetRecipe}
"""The schema of the recipes that each command takes."""

Advance = Callable[[], None]
Place = Callable[[str], str]
"""From a key of the recipe to its line."""


def check(source: RecipeSource, overrides: Sequence[str] = (), *, rows: int | None = None) -> CheckReport:
    """Check a recipe or an evaluation set, render its rows, run its rewards' examples and score every gold answer.

    Goes on after errors: of a wrong recipe, what can still be used is checked too. Recipes of `morl sft` and `morl rm`
    have no rewards: of each of their data sets the first `ROWS_OF_EACH` rows are rendered, with their answers.

    Args:
        source: the recipe, as for `load_recipe`.
        overrides: `key.path=value` each.
        rows: look at so many rows of each data set only.

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
            _check_answers(_learnt_from(recipe), rows or ROWS_OF_EACH, place, report)
        return report
    specs = {f"objectives.{name}": spec for name, spec in recipe.objectives.items() if command == "train"}
    specs |= {f"eval.sets.{name}": spec for name, spec in recipe.eval_objectives().items()}
    report.checkpoints = [] if recipe.model.path == _ANY_MODEL else missing_checkpoints(recipe)
    opened = {
        label: prompts
        for label, spec in specs.items()
        if (prompts := _open(f"{label}.data", label, spec, place, report)) is not None
    }
    wrong = {problem.path for problem in problems}
    lengths = _Lengths(recipe)
    with _runner(recipe) as runner, _progress(sum(_count(prompts, rows) for prompts in opened.values())) as advance:
        for name in sorted({term.use for spec in specs.values() for term in spec.rewards}):
            report.data += [Problem("", f"reward '{name}'", told) for told in check_examples(name, runner)]
            _count_examples(name, report)
        for label, prompts in opened.items():
            # A gold that could not be read from the recipe says nothing about the data.
            spec = specs[label].model_copy(update={"rewards": []}) if f"{label}.gold" in wrong else specs[label]
            _check_rows(label, spec, prompts, _count(prompts, rows), runner, report, lengths, advance)
    report.data += _check_frames(recipe, specs)
    return report


def _count_examples(name: str, report: CheckReport) -> None:
    """Count the examples that a reward has; notes what it has nothing for."""
    function = REWARDS.load(name)
    traits = traits_of(function)
    report.examples += len(traits.examples)
    if not traits.examples:
        report.notes.append(f"reward '{name}' has no examples")
    if needs_gold(function) and traits.answer is None:
        report.notes.append(f"reward '{name}' has no `answer`: its golds were not scored")


def _runner(recipe: Recipe) -> Runner:
    return Runner(workers=recipe.scoring.workers, memory_mb=recipe.scoring.memory_mb)


def _count(prompts: PromptSet, rows: int | None) -> int:
    return len(prompts) if rows is None else min(rows, len(prompts))


def _open(key: str, label: str, spec: Asked, place: Place, report: CheckReport) -> PromptSet | None:
    """The prompts of the data at a key of the recipe; None when they cannot be opened, which the report says."""
    try:
        return load_prompts(spec, label)
    except MorlError as error:
        # What paths are relative to is told once, not with each of them.
        told = str(error).partition("; paths are relative to")[0]
        (report.missing if lacks_data(spec) else report.data).append(Problem(place(key), key, told))
    except Exception as error:  # noqa: BLE001  # a plugin's source may raise anything
        report.data.append(Problem(place(key), key, f"cannot be opened: {type(error).__name__}: {error}"))
    return None


def _skips(spec: Asked) -> tuple[type[MorlError], ...]:
    """Errors of a row that the recipe says to skip it for."""
    return (BadMediaError,) if spec.data.bad_media == "skip" else ()


def _rendered(
    prompts: PromptSet,
    index: int,
    look: Callable[[Prompt], None],
    skips: tuple[type[MorlError], ...],
    report: CheckReport,
) -> tuple[Prompt | None, str]:
    """A row's prompt; or None, and what is wrong with the row, which is nothing if it is one to skip."""
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
    runner: Runner,
    report: CheckReport,
    lengths: _Lengths,
    advance: Advance,
) -> None:
    """Render the first `count` rows and score their golds; adds what is wrong to the report, by row."""
    found: list[tuple[int, str]] = []
    scored = any(traits_of(REWARDS.load(term.use)).answer for term in spec.rewards)

    def rendered() -> Iterator[Prompt]:
        skips = _skips(spec) + ((_TooLongError,) if lengths.skips else ())
        for index in range(count):
            prompt, fault = _rendered(prompts, index, lengths.check, skips, report)
            if prompt is None:
                found.extend([(index, fault)] if fault else [])
                advance()
            else:
                report.golds += scored and prompt.gold is not None
                yield prompt

    report.sets += 1
    every = rendered()
    for prompt_id, reason in score_golds(spec, every, runner, advance=advance):
        found.append((int(prompt_id.rpartition("/")[2]) - spec.data.skip, reason))
    for _ in every:  # rewards that read no gold leave the rows unread
        advance()
    report.data += [Problem(prompts.where(index), label, reason) for index, reason in sorted(found)]


def _learnt_from(recipe: SftRecipe | PreferenceRecipe) -> dict[str, Asked]:
    """Rows that are learnt from, with their answers in the place of golds, by their key in the recipe."""

    if not isinstance(recipe, SftRecipe):
        return {"preference.data": recipe.preference}
    found: dict[str, Asked] = {}
    for stage, spec in recipe.stages.items():
        for name, own in spec.datasets.items():
            found[f"stages.{stage}.datasets.{name}.data"] = own
            if own.held_out is not None:
                held_out = own.model_copy(update={"data": own.held_out})
                found[f"stages.{stage}.datasets.{name}.held_out"] = held_out
    return found


def _check_answers(sets: Mapping[str, Asked], rows: int, place: Place, report: CheckReport) -> None:
    """Render the first rows of each set; adds what is wrong with them, or with their answers, to the report."""
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
    """Raises: DataError when the answers that stand in the place of the gold are no text."""
    for answer in prompt.gold.values() if isinstance(prompt.gold, Mapping) else [prompt.gold]:
        if not isinstance(answer, str):
            raise DataError(
                f"an answer is text, not of type {type(answer).__name__}; the filter `string` makes text of it"
            )
        if not answer.strip():
            raise DataError("an answer is empty")


def _check_frames(recipe: Recipe, specs: Mapping[str, ObjectiveSpec]) -> list[Problem]:
    """Rewards that resize images otherwise than the processor of the model does, if that is on this machine."""
    resized = {
        label: spec
        for label, spec in specs.items()
        if any(term.options.get("frame") == "absolute_resized" for term in spec.rewards)
    }
    try:
        folder = local_path(recipe.model.path)
    except FileNotFoundError:  # told among the checkpoints that are not there
        return []
    if not resized or not any((folder / name).is_file() for name in _PROCESSORS):
        return []
    from morl.model import MediaProcessor, check_frames

    try:
        media = MediaProcessor.load(folder)
    except (OSError, ValueError) as error:
        told = str(error).partition("\n")[0].removeprefix("model.path: ")
        return [Problem("", "model.path", f"{recipe.model.path}: its processor cannot be loaded: {told}")]
    found = []
    for label, spec in resized.items():
        try:
            check_frames(media, {label: spec})
        except UsageError as error:
            place, _, told = str(error).partition(": ")
            found.append(Problem("", place, told))
    return found


class _TooLongError(DataError):
    """A prompt has more tokens than the recipe allows."""


class _Lengths:
    """Finds prompts of text that are too long, if the model's tokenizer is on this machine."""

    def __init__(self, recipe: Recipe) -> None:
        self.skips = recipe.rollout.too_long == "skip"
        self._model = recipe.model.path
        self._most = recipe.rollout.max_prompt_tokens

    def check(self, prompt: Prompt) -> None:
        """Raises: _TooLongError."""
        # No token is shorter than a byte, so most prompts need not be counted.
        if prompt.media or sum(len(str(own).encode()) for own in prompt.messages) + TEMPLATE_TOKENS <= self._most:
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
        except (MorlError, OSError, ValueError):  # told among the checkpoints that are not there
            return None


@contextmanager
def _progress(total: int) -> Iterator[Advance]:
    """A bar of rows on the terminal; nothing when the errors do not go to one."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("rows", total=total)
        yield lambda: bar.advance(task)


__all__ = ["CheckReport", "check"]
