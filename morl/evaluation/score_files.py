"""`morl score`: scores files of responses or saved rollouts."""

from __future__ import annotations

import asyncio
import collections
import json
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from morl.errors import DataError, UsageError
from morl.event_loop import run_coroutine
from morl.files import replacing, require_writable
from morl.recipe import parse_value
from morl.registry import REWARDS, ValidationError, check_options
from morl.rewards import BoundReward, RewardInput, WorkerPool, checked_options
from morl.traits import traits_of
from morl.types import Prompt, Sample, TermScore

if TYPE_CHECKING:
    from morl.recipe import Recipe

MAX_LINE = 64 << 20
"""Bytes of a line; a longer one is an error of its row, and is never held in memory."""
WINDOW_ROWS = 1024
WINDOW_BYTES = 64 << 20
"""Rows and bytes in flight at once: the file may be larger than the memory."""


def score_file(
    reward: str,
    options: Sequence[str] | Mapping[str, Any],
    source: Path,
    out: Path,
    *,
    workers: int | None = None,
    deadline_s: float | None = None,
) -> Counter[str]:
    """Score a JSON-lines file of `{"response": …, "gold": …, "meta": …}` with one reward.

    Writes one row for each line of `source`, in order: the row with `value`, `status` and `detail` added.
    No line stops the work, whatever it holds. `out` is written atomically; it may be `source`.

    Args:
        options: of the reward: values by name, or `key=value` texts whose values are YAML.
        deadline_s: seconds that the reward may take per row; by default its declared deadline.

    Returns: the number of rows by status.
    Raises: UsageError for an unknown reward, a wrong option or a file that cannot be read or written.
    """
    require_writable(out)
    function = REWARDS.load(reward)
    values = dict(options) if isinstance(options, Mapping) else parse_options(reward, function, options)
    counts: Counter[str] = Counter()
    try:
        lines = source.open("rb")
    except OSError as error:
        raise UsageError(f"{source} cannot be read: {error.strerror or error}") from error
    with lines, WorkerPool(workers=workers) as runner, replacing(out) as file:
        bound = BoundReward(reward, values, deadline_s or traits_of(function).deadline_s, runner)

        async def score_row(line: bytes | None, number: int) -> bytes:
            row, score = await _score_line(bound, line, number)
            counts[score.status] += 1
            return _line({**row, **score.as_json("value", "status", "detail")})

        work = ((len(line or b""), score_row, (line, number)) for number, line in enumerate(_lines(lines), 1))
        try:
            run_coroutine(_write_in_order(work, file))
        finally:
            bound.close()
    return counts


def rescore(recipe: Recipe, samples: Path, out: Path) -> int:
    """Score saved rollouts with the rewards of another recipe.

    Writes each saved row in order, its `value` and `terms` replaced by the recipe's.

    Args:
        samples: the folder `runs/<name>/samples`, or one of its files.

    Returns: the number of rows.
    Raises: UsageError when a row's objective is not in the recipe, or `out` cannot be written; DataError when a file
        holds no samples, AbsentDataError when it does not exist.
    """
    require_writable(out)
    from morl.rewards import Scorer
    from morl.track import read_samples

    rows = 0
    scorer = Scorer(recipe.objectives, workers=recipe.scoring.workers, memory_mb=recipe.scoring.memory_mb)
    with scorer, replacing(out) as file:

        async def score(row: dict[str, Any]) -> bytes:
            nonlocal rows
            rows += 1
            return _line({**row, **(await scorer.score(*_saved(row))).as_json()})

        # The memory of a sample is mostly its tokens: three lists of boxed numbers.
        work = ((100 * len(row.get("token_ids") or ()), score, (row,)) for row in read_samples(samples))
        run_coroutine(_write_in_order(work, file))
    return rows


async def _write_in_order(
    work: Iterable[tuple[int, Callable[..., Awaitable[bytes]], tuple[Any, ...]]], file: BinaryIO
) -> None:
    """Run `(bytes, function, arguments)` concurrently within a window; write the results in order."""
    window: collections.deque[tuple[int, asyncio.Future[bytes]]] = collections.deque()
    held = 0
    try:
        for size, function, arguments in work:
            window.append((size, asyncio.ensure_future(function(*arguments))))
            held += size
            while len(window) >= WINDOW_ROWS or (held > WINDOW_BYTES and window):
                held -= window[0][0]
                file.write(await window.popleft()[1])
        while window:
            file.write(await window.popleft()[1])
    finally:
        for _, task in window:
            task.cancel()


def _lines(file: BinaryIO) -> Iterator[bytes | None]:
    """The lines of a file; None for each that is too long."""
    while line := file.readline(MAX_LINE):
        too_long = len(line) == MAX_LINE and not line.endswith(b"\n")
        yield None if too_long else line
        while too_long and (line := file.readline(MAX_LINE)) and not line.endswith(b"\n"):
            pass


async def _score_line(reward: BoundReward, line: bytes | None, number: int) -> tuple[dict[str, Any], TermScore]:
    def refused(detail: str, row: Mapping[str, Any] | None = None) -> tuple[dict[str, Any], TermScore]:
        return dict(row) if row is not None else {"line": number}, TermScore(None, "error", f"line {number}: {detail}")

    if line is None:
        return refused(f"longer than {MAX_LINE >> 20} MB")
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return refused(f"not valid JSON: {str(error)[:100]}" if line.strip() else "empty")
    if not isinstance(row, dict):
        return refused(f"should be a JSON object, not {type(row).__name__}")
    try:
        reward_input = RewardInput.of_row(row)
    except ValueError as error:
        return refused(str(error), row)
    return row, await reward(reward_input)


def _line(row: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(row, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # a lone surrogate, which only an escape can write
        return json.dumps(row).encode() + b"\n"


def _saved(row: Mapping[str, Any]) -> tuple[Prompt, Sample]:
    """The prompt and the sample of a saved row. Raises: DataError when it is not one."""
    try:
        prompt = Prompt(
            row["prompt_id"],
            row["objective"],
            tuple(row["prompt"]),
            tuple(row.get("media") or ()),
            row.get("gold"),
            row.get("meta") or {},
        )
        logprobs = tuple(float("nan") if value is None else value for value in row.get("logprobs") or ())
        sample = Sample(
            row["prompt_id"],
            row["index"],
            tuple(row.get("token_ids") or ()),
            tuple(row.get("loss_mask") or ()),
            logprobs,
            row.get("policy_version", 0),
            row.get("finish_reason", "stop"),
            row["response"],
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"not a row of saved samples: {type(error).__name__}: {error}") from error
    return prompt, sample


def parse_options(name: str, function: Callable[..., Any], texts: Sequence[str]) -> dict[str, Any]:
    """Options of a reward from `key=value`; a value is YAML, or text where the option wants text.

    Raises: UsageError naming every wrong option.
    """
    written: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"--option {text}: write key=value")
        if key.strip() in written:
            raise UsageError(f"--option {key.strip()} is given twice")
        written[key.strip()] = value
    values = {key: _yaml(value) for key, value in written.items()}
    try:
        check_options(function, values)
    except ValidationError as error:
        # A text may look like another type: a pattern of digits, a list of characters.
        invalid = {str(item["loc"][0]) for item in error.errors()}
        as_text = {key: written[key] if key in invalid else value for key, value in values.items()}
        try:
            check_options(function, as_text)
        except ValidationError:
            checked_options(name, function, values)
        return as_text
    return values


def _yaml(text: str) -> Any:
    try:
        return parse_value(text)
    except ValueError:
        return text
