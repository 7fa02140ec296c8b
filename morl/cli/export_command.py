"""`morl export`."""

from __future__ import annotations

import argparse
from pathlib import Path

from morl.cli.command import DONE, Command


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="RUN", help="the run's folder, or one of its checkpoints")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--adapter", action="store_true", help="write the LoRA adapter alone, in peft's format")


def _run(options: argparse.Namespace) -> int:
    from morl.run import export

    export(options.folder, options.out, adapter=options.adapter)
    print(f"wrote {options.out}")
    return DONE


COMMAND = Command("export", "write a run's policy as a plain Hugging Face checkpoint", (_arguments,), _run)
