"""Two steps of TRL's GRPOTrainer with rewards of morl: `pip install trl`, then `python tests/bench/trl_reward.py`.

It fails where TRL calls a reward in another shape than `as_trl` has, or logs other scores than morl gives.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])  # in place of this folder, where a script is called trl.py

from tiny import make_tiny_model  # noqa: E402  # first: it mends torchvision before transformers is imported

from morl.rewards import as_trl  # noqa: E402

STEPS = 2


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        model = make_tiny_model(Path(folder) / "model", seed=0)
        from datasets import Dataset
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from trl import GRPOConfig, GRPOTrainer

        rows = [
            {"prompt": [{"role": "user", "content": f"What is {i} + {i}?"}], "answer": str(2 * i)} for i in range(16)
        ]
        trainer = GRPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(model),
            reward_funcs=[as_trl("math", gold="answer"), as_trl("length", maximum=20, margin=40)],
            args=GRPOConfig(
                output_dir=f"{folder}/out",
                per_device_train_batch_size=8,
                num_generations=4,
                max_completion_length=12,
                max_steps=STEPS,
                logging_steps=1,
                report_to=[],
                use_cpu=True,
            ),
            train_dataset=Dataset.from_list(rows),
            processing_class=AutoTokenizer.from_pretrained(model),
        )
        trainer.train()
        logged = [row for row in trainer.state.log_history if "rewards/math/mean" in row]
        assert len(logged) == STEPS, trainer.state.log_history
        for row in logged:
            print(f"math {row['rewards/math/mean']:.3f}  length {row['rewards/length/mean']:.3f}")
            assert 0 <= row["rewards/math/mean"] <= 1
            assert 0 < row["rewards/length/mean"] <= 1


if __name__ == "__main__":
    main()
