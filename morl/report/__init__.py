"""The HTML report of a run: curves, scores before and after, and samples."""

from __future__ import annotations

from morl.report.html_report import write_report

__all__ = [
    "write_report",
]
