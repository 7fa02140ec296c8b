"""`morl check`: what is wrong with a recipe, its data and its rewards, all found in one run and without a model."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from morl.data import PromptSet, load_prompts
from morl.errors import BadMediaError, DataError, MorlError, Problem, UsageError
from morl.files import local_path
from morl.missing import lacks_data, missing_checkpoints
from morl.model import ChatCodec
from morl.recipe import Document, ObjectiveSpec, Recipe, command_of, go_offline, inspect_document
from morl.rewards.checks import check_examples, score_golds
from morl.rewards.decorator import REWARDS, needs_gold, traits_of
from morl.rewards.runner import Runner
from morl.types import Prompt

SHOWN = 5
"""Places that are shown of problems that read the same."""

_PROCESSORS = ("processor_config.json", "preprocessor_config.json")
"""Files of a checkpoint that say how pictures are resized."""

TEMPLATE_TOKENS = 256
"""What a chat template adds to a prompt, at most, system prompt included."""
_ANY_MODEL = "none"
"""The model of an evaluation set that stands by itself: it names none."""

Advance = Callable[[], None]


@dataclass(slots=True)
class CheckReport:
    """What was found, and how much was looked at."""

    recipe: tuple[Problem, ...] = ()
    """What is wrong with the recipe itself."""
    data: list[Problem] = field(default_factory=list)
    """What is wrong with rows, golds and the rewards' examples."""
    missing: list[Problem] = field(default_factory=list)
    """Data that are not on this machine."""
    checkpoints: list[Problem] = field(default_factory=list)
    """Models that are not on this machine, and that a check can do without."""
    sets: int = 0
    """Objectives and evaluation sets whose rows were looked at."""
    rows: int = 0
    """Rows that were made into prompts."""
    golds: int = 0
    """Golds that were written as a response, which has to score 1."""
    examples: int = 0
    """Examples of rewards that were run."""
    notes: list[str] = field(default_factory=list)
    """What could not be looked at, and is no fault."""
    command: str = "train"
    """What takes the recipe; of one of `morl sft` and `morl rm` the keys alone are checked."""
    skipped: int = 0
    """Rows that the recipe says to skip: for their bad pictures, or their length."""

    @property
    def exit_code(self) -> int:
        """2 when the recipe is wrong or names data that are not there, 1 when data or rewards are wrong, else 0."""
        return 2 if self.recipe or self.missing else 1 if self.data else 0


def check(path: str | Path, overrides: Sequence[str] = (), *, rows: int | None = None) -> CheckReport:
    """Check a recipe or an evaluation set, render its rows, run its rewards' examples and score every gold answer.

    Goes on after errors: of a wrong recipe, what can still be used is checked too.

    Args:
        path: the recipe, as for `load_recipe`.
        overrides: `key.path=value` each.
        rows: look at so many rows of each objective only; all when it is None.

    Raises: RunError when no worker process can be started for the rewards.
    """
    command = command_of(path) or "train"
    recipe: Any
    recipe, problems = inspect_document(_kind(command), path, overrides)
    report = CheckReport(recipe=problems, command=command)
    if recipe is not None and command == "eval":
        recipe = recipe.as_recipe(Path(path).stem, _ANY_MODEL)
    if not isinstance(recipe, Recipe):
        return report
    go_offline(recipe)
    specs = {f"objectives.{name}": spec for name, spec in recipe.objectives.items() if command == "train"}
    specs |= {f"eval.sets.{name}": spec for name, spec in recipe.eval_objectives().items()}
    report.checkpoints = [] if recipe.model.path == _ANY_MODEL else missing_checkpoints(recipe)
    opened = {label: prompts for label, spec in specs.items() if (prompts := _open(label, spec, report)) is not None}
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


def _kind(command: str) -> type[Document]:
    """The schema of the recipes that a command takes."""
    kinds = {"sft": ("morl.stages", "SftRecipe"), "rm": ("morl.preferences", "PreferenceRecipe")}
    kinds["eval"] = ("morl.eval_sets", "EvalSetRecipe")
    module, name = kinds.get(command, ("morl.recipe", "Recipe"))
    kind: type[Document] = getattr(importlib.import_module(module), name)
    return kind


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


def _open(label: str, spec: ObjectiveSpec, report: CheckReport) -> PromptSet | None:
    try:
        return load_prompts(spec, label)
    except MorlError as error:
        # What paths are relative to is told once, not with each of them.
        told = str(error).partition("; paths are relative to")[0]
        (report.missing if lacks_data(spec) else report.data).append(Problem("", f"{label}.data", told))
    except Exception as error:  # noqa: BLE001  # a plugin's source may raise anything
        report.data.append(Problem("", f"{label}.data", f"cannot be opened: {type(error).__name__}: {error}"))
    return None


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
        for index in range(count):
            try:
                prompt = prompts[index]
                for item in prompt.media:
                    item.check()
                lengths.check(prompt)
            except _TooLongError as error:
                if lengths.skips:
                    report.skipped += 1
                else:
                    found.append((index, str(error)))
                advance()
            except BadMediaError as error:
                if spec.data.bad_media == "skip":
                    report.skipped += 1
                else:
                    found.append((index, str(error).removeprefix(f"{prompts.where(index)}: ")))
                advance()
            except MorlError as error:
                found.append((index, str(error).removeprefix(f"{prompts.where(index)}: ")))
                advance()
            except Exception as error:  # noqa: BLE001  # a plugin's source may raise anything
                found.append((index, f"cannot be read: {type(error).__name__}: {error}"))
                advance()
            else:
                report.rows += 1
                report.golds += scored and prompt.gold is not None
                yield prompt

    report.sets += 1
    every = rendered()
    for prompt_id, reason in score_golds(spec, every, runner, advance=advance):
        found.append((int(prompt_id.rpartition("/")[2]) - spec.data.skip, reason))
    for _ in every:  # rewards that read no gold leave the rows unread
        advance()
    report.data += [Problem(prompts.where(index), label, reason) for index, reason in sorted(found)]


def _check_frames(recipe: Recipe, specs: Mapping[str, ObjectiveSpec]) -> list[Problem]:
    """Rewards that resize pictures otherwise than the processor of the model does, if that is on this machine."""
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
    from morl.vision import MediaProcessor, check_frames

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
        try:
            return ChatCodec.load(local_path(self._model), self._most)
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


def print_report(report: CheckReport) -> int:
    """Print what is wrong and what is not there, problems that read the same together; returns the exit code."""
    lines = [str(problem) for problem in report.recipe]
    counts = Counter((problem.path, problem.message) for problem in report.data)
    seen: Counter[tuple[str, str]] = Counter()
    for problem in report.data:
        same = problem.path, problem.message
        seen[same] += 1
        if seen[same] <= SHOWN:
            lines.append(str(problem))
        elif seen[same] == counts[same]:
            lines.append(f"{problem.path}: … and {counts[same] - SHOWN} more rows: {problem.message}")
    if report.missing:
        lines += [str(problem) for problem in (*report.missing, *report.checkpoints)]
        lines.append(f"paths are relative to the working folder, {Path.cwd()}")
    # A check needs no model, so one that is not there is no part of what was found.
    notes = [*report.notes, *(() if report.missing else report.checkpoints)]
    sys.stderr.write("".join(f"note: {note}\n" for note in notes))
    looked = f"{_counted(report.rows, 'row')} of {_counted(report.sets, 'set')} read"
    if report.skipped:
        looked += f", {_counted(report.skipped, 'row')} skipped: bad pictures or videos, or prompts too long"
    if report.exit_code:
        wrong = _counted(len(report.recipe), "problem")
        models = f", {_counted(len(report.checkpoints), 'model')}" if report.checkpoints else ""
        absent = f", {_counted(len(report.missing), 'file')} of data{models} missing" if report.missing else ""
        lines.append(f"{wrong} in the recipe, {len(report.data)} in data and rewards{absent}; {looked}")
    elif report.command in ("sft", "rm"):
        lines.append(f"the recipe of `morl {report.command}` is well; its rows are read when it runs")
    else:
        held = f"{_counted(report.golds, 'gold')} and {_counted(report.examples, 'example')} of rewards hold"
        lines.append(f"all is well: {looked}, {held}")
    sys.stdout.write("\n".join(lines) + "\n")
    return report.exit_code


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


__all__ = ["CheckReport", "check", "print_report"]
