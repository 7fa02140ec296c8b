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


def test_without_a_terminal_each_step_is_one_line_and_the_table_ends_the_run() -> None:
    lines = show(ROWS, terminal=False).splitlines()
    assert lines[0].startswith("step 1/10  reward 0.250  pass 20%  0:0")
    assert lines[1].startswith("step 2/10  reward 0.625  pass 70%  ")
    assert lines[2] == "step 1 held-out math_test: mean 0.1235"
    table = "\n".join(lines[3:])
    assert "math" in table
    assert "0.750" in table
    assert "+0.500" in table


def test_a_step_is_summed_up_by_its_samples() -> None:
    row = {
        "objective/math/reward": 0.5,
        "objective/math/samples": 30.0,
        "objective/math/no_score_rate": 0.0,
        "objective/[boxes]/reward": 1.0,
        "objective/[boxes]/samples": 20.0,
        "objective/[boxes]/no_score_rate": 0.5,
    }
    assert "reward 0.625" in show([row], terminal=False)


def test_a_line_fits_a_terminal_of_100_columns_whatever_the_objectives() -> None:
    names = [f"objective_{number}" for number in range(200)]
    console = Console(file=io.StringIO(), width=300)
    tracker = ConsoleTracker("mixed", names, steps=100_000, done=99_998, console=console)
    metrics = {
        f"objective/{name}/{key}": 0.999 for name in names for key in ("reward", "pass_rate", "zero_signal_rate")
    }
    tracker.log(99_999, metrics | {"policy/logprob_mismatch": 1.2e-07, "time/step_s": 1234.5})
    (line,) = console.file.getvalue().splitlines()
    assert len(line) <= 100
    assert "mismatch 1.2e-07" in line


def test_on_a_terminal_a_table_shows_the_latest_and_the_change() -> None:
    shown = show(ROWS, terminal=True)
    last = shown[shown.rindex("objective") :]
    math, boxes = (next(line for line in last.splitlines() if name in line) for name in ("math", "[boxes]"))
    assert "0.750" in math
    assert "12" in math, "a metric that a step lacks keeps its last value"
    assert "+0.500" in math
    assert "+0.000" in boxes
    assert "2/10" in last
    assert "held-out math_test: mean 0.1235" in shown
    assert "[green]" not in shown


def test_the_change_of_a_resumed_run_counts_from_its_real_start() -> None:
    shown = show(ROWS[1:], terminal=True, done=5, first_rewards={"math": 0.05})
    assert "+0.700" in shown
    assert "6/10" in shown
