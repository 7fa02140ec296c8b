"""Progress on the console: a live table on a terminal; elsewhere one line per step, and the table at the end."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

# Column title, metric, format.
_COLUMNS = (
    ("reward", "reward", ".3f"),
    ("pass rate", "pass_rate", ".0%"),
    ("length", "length", ".0f"),
    ("zero signal", "zero_signal_rate", ".0%"),
    ("no score", "no_score_rate", ".0%"),
)
_FOOT = (
    ("entropy", "policy/entropy", ".3f"),
    ("log-prob mismatch", "policy/logprob_mismatch", ".2g"),
    ("gradient norm", "learner/grad_norm", ".2g"),
    ("rollout tokens/s", "rollout/tokens_per_s", ".0f"),
)
# Metrics in the line of a step, over all objectives: title, metric, format.
_LINE = (("reward", "reward", ".3f"), ("pass", "pass_rate", ".0%"), ("no signal", "zero_signal_rate", ".0%"))


class ConsoleTracker:
    """Shows each objective's latest metrics and change of reward, and the time left."""

    def __init__(
        self,
        name: str,
        objectives: Sequence[str],
        *,
        steps: int,
        done: int = 0,
        first_rewards: Mapping[str, float] | None = None,
        console: Console | None = None,
    ) -> None:
        """Show the run `name` of `steps` steps, of which `done` are done.

        `first_rewards` holds the first reward of each objective in a resumed run.
        """
        import rich

        self._objectives = tuple(objectives)
        self._steps, self._done = steps, done
        self._first = dict(first_rewards or {})
        self._latest: dict[str, float] = {}
        self._since, self._at_start = time.monotonic(), done
        # The shared console prints warnings above the live table.
        self._console = console or rich.get_console()
        self._live: Live | None = None
        if self._console.is_terminal:
            # Speed is estimated over hours: a step may take longer than the default half minute.
            self._progress = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self._console,
                speed_estimate_period=6 * 3600,
            )
            self._task = self._progress.add_task(name, total=steps, completed=done)
            self._live = Live(self._view(), console=self._console, refresh_per_second=2)
            self._live.start()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Show one step's metrics."""
        self._latest.update(metrics)
        for name in self._objectives:
            key = f"objective/{name}/reward"
            if key in metrics:
                self._first.setdefault(name, metrics[key])
        self._done = step
        if self._live is None:
            self._print(self._line(metrics))
        else:
            self._progress.update(self._task, completed=step)
            self._live.update(self._view(), refresh=True)

    def log_eval(self, row: Mapping[str, Any]) -> None:
        """Show one evaluation in one line."""
        self._print(f"step {row['step']} held-out {row['set']}: {_summary(row)}")

    def close(self) -> None:
        """Leave the last table on the console."""
        if self._live is not None:
            self._live.stop()
        elif self._done > self._at_start:
            self._console.print(self._table())

    def _view(self) -> Group:
        return Group(self._table(), self._progress)

    def _table(self) -> Table:
        foot = [f"{title} {self._latest[key]:{form}}" for title, key, form in _FOOT if key in self._latest]
        table = Table(caption="   ".join(foot) or None, caption_justify="left")
        table.add_column("objective")
        for title, _, _ in _COLUMNS:
            table.add_column(title, justify="right")
        table.add_column("since start", justify="right")
        for name in self._objectives:
            cells = [self._cell(name, metric, form) for _, metric, form in _COLUMNS]
            table.add_row(Text(name), *cells, self._change(name))
        return table

    def _cell(self, objective: str, metric: str, form: str) -> str:
        value = self._latest.get(f"objective/{objective}/{metric}")
        return "–" if value is None else format(value, form)

    def _change(self, objective: str) -> Text:
        value = self._latest.get(f"objective/{objective}/reward")
        if value is None or objective not in self._first:
            return Text("–")
        change = value - self._first[objective]
        colour = "green" if change > 0 else "red" if change < 0 else "default"
        return Text(f"{change:+.3f}", style=colour)

    def _line(self, metrics: Mapping[str, float]) -> str:
        """The step in at most 100 columns: means over the samples and groups of all objectives."""
        parts = [f"step {self._done}/{self._steps}"]
        for title, metric, form in _LINE:
            if (mean := self._mean(metrics, metric)) is not None:
                parts.append(f"{title} {mean:{form}}")
        if "policy/logprob_mismatch" in metrics:
            parts.append(f"mismatch {metrics['policy/logprob_mismatch']:.1e}")
        if "time/step_s" in metrics:
            parts.append(f"{metrics['time/step_s']:.1f} s")
        per_step = (time.monotonic() - self._since) / max(1, self._done - self._at_start)
        left = timedelta(seconds=round(per_step * (self._steps - self._done)))
        return "  ".join([*parts, f"{left} left"])

    def _mean(self, metrics: Mapping[str, float], metric: str) -> float | None:
        """The mean of a metric over objectives, weighted by the samples behind each."""
        total = weight = 0.0
        for name in self._objectives:
            value = metrics.get(f"objective/{name}/{metric}")
            if value is not None:
                samples = metrics.get(f"objective/{name}/samples", 1.0)
                if metric in ("reward", "pass_rate"):
                    samples *= 1 - metrics.get(f"objective/{name}/no_score_rate", 0.0)
                total, weight = total + samples * value, weight + samples
        return total / weight if weight else None

    def _print(self, text: str) -> None:
        # Without a terminal, lines are not wrapped.
        self._console.print(Text(text), soft_wrap=not self._console.is_terminal)


def _summary(row: Mapping[str, Any]) -> str:
    """The reward of an evaluation with its interval; without a reward, its plain values."""
    if "reward" in row:
        interval = f"[{row['reward_low']:.3f}, {row['reward_high']:.3f}]"
        return f"reward {row['reward']:.3f} {interval}, pass rate {row['pass_rate']:.0%}, n {row['n']}"
    plain = {key: value for key, value in row.items() if key not in ("step", "set")}
    return ", ".join(
        f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in plain.items()
        if isinstance(value, str | int | float)
    )


class LineTracker:
    """Prints one line per step with some of its metrics."""

    def __init__(self, steps: int, metrics: Mapping[str, str]) -> None:
        """`metrics` maps names to formats: `{"preference/loss": ".3f"}`."""
        import rich

        self._steps, self._metrics = steps, dict(metrics)
        self._console = rich.get_console()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Print the step."""
        cells = [f"{name.rpartition('/')[2]} {metrics[name]:{form}}" for name, form in self._metrics.items()]
        line = "  ".join([f"step {step}/{self._steps}", *cells])
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def log_eval(self, row: Mapping[str, Any]) -> None:
        """Does nothing: the caller prints evaluations."""

    def close(self) -> None:
        """Nothing to close."""
