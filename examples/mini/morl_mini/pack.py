"""Copy trained checkpoints into the package, rounded to bfloat16: `python -m morl_mini.pack SFT JUDGE`."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

PACKAGE = Path(__file__).parent


def pack(source: Path, target: Path) -> None:
    """Copy a checkpoint folder; its weights shrink to half the bytes and keep about three digits."""
    import torch
    from safetensors.torch import load_file, save_file

    target.mkdir(exist_ok=True)
    for file in sorted(source.iterdir()):
        if file.suffix == ".safetensors":
            weights = {name: weight.to(torch.bfloat16) for name, weight in load_file(file).items()}
            save_file(weights, target / file.name, metadata={"format": "pt"})
        else:
            shutil.copyfile(file, target / file.name)


def main(arguments: Sequence[str] | None = None) -> None:
    """Pack the policy and the reward model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sft", type=Path, help="folder of the last supervised stage")
    parser.add_argument("judge", type=Path, help="folder of the reward model")
    options = parser.parse_args(arguments)
    pack(options.sft, PACKAGE / "sft")
    pack(options.judge, PACKAGE / "judge")


if __name__ == "__main__":
    main()
