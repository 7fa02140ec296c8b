"""The update after three steps under every layout of the hardware, as one table.

    python tests/bench/invariance.py            all 64 layouts, for text and for images: about 15 minutes
    python tests/bench/invariance.py --ranks 1  those of one rank: 3 minutes

Each cell is the distance of the weights from the reference's (one rank, ZeRO 0, shared prompts, everything in one
micro-batch), as a fraction of how far three steps moved them. With the small budget every row is a separate
micro-batch: nothing is packed.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent / "learner")]

BUDGETS = {"packed": 16384, "alone": 1}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="*", default=[1, 2])
    ranks = parser.parse_args().ranks
    from learner_groups import make_image_groups
    from safetensors.torch import load_file
    from test_learner import NARROW_HEADS, STEPS, TEXT_GROUPS, after_steps, distance
    from tiny import make_tiny_model, make_tiny_vision_model

    from morl.cluster import Cluster
    from morl.model.chat_codec import ChatCodec
    from morl.recipe.schema.machine_sections import ClusterSpec

    worst = 0.0
    with tempfile.TemporaryDirectory() as folder, Cluster(ClusterSpec(), local=False):
        text = make_tiny_model(Path(folder) / "text", seed=0)
        multimodal = make_tiny_vision_model(Path(folder) / "multimodal", seed=0, text=NARROW_HEADS)
        images = [make_image_groups(ChatCodec.load(multimodal, 512), step) for step in range(STEPS)]
        kinds = {"text": (text, TEXT_GROUPS), "images": (multimodal, images)}
        origins = {kind: load_file(model / "model.safetensors") for kind, (model, _) in kinds.items()}
        references = {
            kind: after_steps(model, Path(folder) / f"reference-{kind}", groups)[0]
            for kind, (model, groups) in kinds.items()
        }
        columns = [f"{kind} {share} {budget}" for kind in kinds for share in ("shared", "apart") for budget in BUDGETS]
        print("| ranks | ZeRO | " + " | ".join(columns) + " |\n" + "|---" * (2 + len(columns)) + "|", flush=True)
        for count, zero in itertools.product(ranks, range(4)):
            cells = []
            for (kind, (model, groups)), share, budget in itertools.product(
                kinds.items(), (True, False), BUDGETS.values()
            ):
                layout = {"ranks": count, "zero": zero, "share_prefix": share, "tokens_per_microbatch": budget}
                weights, _ = after_steps(model, Path(folder) / "weights", groups, **layout)
                cells.append(distance(weights, references[kind], origins[kind]))
            worst = max(worst, *cells)
            print(f"| {count} | {zero} | " + " | ".join(f"{cell:.1e}" for cell in cells) + " |", flush=True)
    print(f"largest: {worst:.1e}")
    return int(worst >= 1e-5)


if __name__ == "__main__":
    sys.exit(main())
