"""Curves of a run as SVG, drawn by matplotlib."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from morl.errors import MissingExtraError

SMOOTHING = 0.9
"""Weight of the running mean at each step; short series are not smoothed."""


@dataclass(frozen=True, slots=True)
class Chart:
    """One set of axes with a line for each series."""

    title: str
    series: Mapping[str, Sequence[tuple[float, float]]]
    """`(step, value)` by the line's name; a single name equal to the title gets no legend."""
    logarithmic: bool = False


def draw(charts: Sequence[Chart], *, columns: int, height: float = 2.6) -> str:
    """The charts in a grid, as an `<svg>` element. Raises: MissingExtraError without matplotlib.

    Args:
        charts: those without points are left out.
        columns: charts per row.
        height: of each row, in inches.
    """
    try:
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "report", "the report") from error
    shown = [chart for chart in charts if any(chart.series.values())]
    if not shown:
        return ""
    columns = min(columns, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(11.0, height * rows), layout="constrained")
    FigureCanvasSVG(figure)
    for number, chart in enumerate(shown):
        axes = figure.add_subplot(rows, columns, number + 1)
        for name, points in chart.series.items():
            steps, values = [step for step, _ in points], [value for _, value in points]
            smooth = _smoothed(values)
            (line,) = axes.plot(steps, smooth, label=name, linewidth=1.6, marker="o" if len(points) == 1 else None)
            if smooth != values:
                axes.plot(steps, values, color=line.get_color(), alpha=0.2, linewidth=0.8)
        axes.set_title(chart.title, fontsize=10)
        axes.grid(alpha=0.25)
        axes.tick_params(labelsize=8)
        if chart.logarithmic:
            axes.set_yscale("log")
        if set(chart.series) != {chart.title}:
            axes.legend(fontsize=8)
    file = io.StringIO()
    figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()[file.getvalue().index("<svg") :]


def _smoothed(values: Sequence[float]) -> list[float]:
    """A bias-corrected running mean; series of fewer than 30 values stay as they are."""
    if len(values) < 30:
        return list(values)
    smooth, mean, weight = [], 0.0, 0.0
    for value in values:
        mean = SMOOTHING * mean + (1 - SMOOTHING) * value
        weight = SMOOTHING * weight + (1 - SMOOTHING)
        smooth.append(mean / weight)
    return smooth
