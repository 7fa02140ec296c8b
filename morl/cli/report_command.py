"""`morl report`."""

from __future__ import annotations

import argparse
from pathlib import Path

from morl.cli.command import DONE, Command, positive_int


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="RUN", help="the run's folder")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: RUN/report.html")
    parser.add_argument(
        "--samples", type=positive_int, default=4, metavar="N", help="prompts of each set to show (default: 4)"
    )


def _run(options: argparse.Namespace) -> int:
    from morl.report import write_report

    print(f"wrote {write_report(options.folder, options.out, samples=options.samples)}")
    return DONE


COMMAND = Command(
    "report", "one HTML file of a run: curves, before and after, responses with images", (_arguments,), _run
)
