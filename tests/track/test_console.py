"""What the user reads, on a terminal and in a file."""

from __future__ import annotations

import io

from rich.console import Console

from morl.track.console import ConsoleTracker


def show(rows: list[dict[str, float]], *, terminal: bool, **options) -> str:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=120, height=40, color_system=None)
    tracker = ConsoleTracker("mixed", ["math", "[boxes]"], steps=10, console=console, **options)
    for step, row in enumerate(rows, options.get("done", 0) + 1):
        tracker.log(step, row)
    tracker.log_eval({"step": 1, "set": "math_test", "mean": 0.123456789, "interval": {"low": 0}})
    tracker.close()
    return console.file.getvalue()


ROWS = [
    {"objective/math/reward": 0.25, "objective/math/pass_rate": 0.2, "objective/math/length": 12.3},
    {"objective/math/reward": 0.75, "objective/math/pass_rate": 0.7, "objective/[boxes]/reward": 0.5},
]


def test_without_a_terminal_each_step_is_one_line() -> None:
    lines = show(ROWS, terminal=False).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("step 1/10 | math: reward 0.250, pass rate 20%, length 12 | [boxes]: no samples | ")
    assert "[boxes]: reward 0.500" in lines[1]
    assert lines[2] == "evaluation  step 1  set math_test  mean 0.1235"


def test_a_long_line_is_not_broken() -> None:
    many = {f"objective/math/{name}": 0.5 for name in ("reward", "pass_rate", "length", "zero_signal_rate")}
    row = many | {key.replace("math", "[boxes]"): value for key, value in many.items()}
    assert len(show([row], terminal=False).splitlines()) == 2


def test_on_a_terminal_a_table_shows_the_latest_and_the_change() -> None:
    shown = show(ROWS, terminal=True)
    last = shown[shown.rindex("objective") :]
    math, boxes = (next(line for line in last.splitlines() if name in line) for name in ("math", "[boxes]"))
    assert "0.750" in math
    assert "12" in math, "a metric that a step lacks keeps its last value"
    assert "+0.500" in math
    assert "+0.000" in boxes
    assert "2/10" in last
    assert "mean 0.1235" in shown
    assert "[green]" not in shown


def test_the_change_of_a_resumed_run_counts_from_its_real_start() -> None:
    shown = show(ROWS[1:], terminal=True, done=5, first_rewards={"math": 0.05})
    assert "+0.700" in shown
    assert "6/10" in shown
