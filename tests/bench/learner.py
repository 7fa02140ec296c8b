"""What a learner step costs: shared prefixes against separate rows, the head's memory, the share of the machine's peak.

    python tests/bench/learner.py            everything, ratios in one run
    python tests/bench/learner.py --steps 3  more repetitions

The model is a small Qwen2.5-VL with random weights; prompts hold a picture. A group of G answers of R tokens
to a prompt of P costs P + G R tokens with a shared prefix and G (P + R) without: their ratio bounds the gain.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

SHAPES = [(512, 64, 8), (1024, 128, 16)]
GROUPS = 2


def make_model(folder: Path) -> None:
    """A miniature of MiMo-VL's class with some 4M parameters."""
    from tiny import make_tiny_vision_model

    make_tiny_vision_model(
        folder,
        seed=0,
        text={
            "hidden_size": 192,
            "intermediate_size": 768,
            "num_hidden_layers": 6,
            "num_attention_heads": 6,
            "rope_parameters": {"rope_type": "default", "mrope_section": [4, 6, 6], "rope_theta": 10000.0},
        },
        vision={"hidden_size": 128, "intermediate_size": 256, "depth": 4, "num_heads": 4, "out_hidden_size": 192},
    )


def make_groups(folder: Path, prompt: int, answer: int, samples: int):
    from learner_groups import noise

    from morl.model import ChatCodec
    from morl.types import Group, Prompt, Sample, Score

    codec, draw, groups = ChatCodec.load(folder, 100_000), random.Random(0), []
    for number in range(GROUPS):
        content = [{"type": "image"}, {"type": "text", "text": ""}]
        asked = Prompt(f"o/{number}", "o", ({"role": "user", "content": content},), (noise((224, 224), number),))
        # Letters of one token each fill the prompt up to its length.
        short = prompt - len(codec.encode(asked).token_ids_T)
        content[1]["text"] = "%" * short
        encoded = codec.encode(asked)
        assert len(encoded.token_ids_T) == prompt, len(encoded.token_ids_T)
        made = []
        for index in range(samples):
            ids = tuple(draw.randrange(10, 380) for _ in range(answer))
            made.append(Sample(asked.id, index, ids, (1,) * answer, (-1.0,) * answer, 0, "stop", ""))
        scores = tuple(Score(draw.random()) for _ in made)
        groups.append(Group(asked, encoded.token_ids_T, tuple(made), scores, encoded.features))
    return groups


def learner(folder: Path, share: bool, budget: int = 4096):
    from morl.cluster import Cluster
    from morl.learner import Learner
    from morl.learner.policy import PolicySettings
    from morl.recipe import AlgorithmSpec, ClusterSpec, LearnerSpec

    settings = PolicySettings(
        model=folder,
        dtype="float32",
        learner=LearnerSpec(lr=1e-5, share_prefix=share, tokens_per_microbatch=budget),
        algorithm=AlgorithmSpec(),
        temperature=1.0,
        banned_token_ids=(),
        seed=0,
    )
    return Learner.start(settings, Cluster(ClusterSpec(), local=True), total_steps=100, max_new_tokens=4096)


def steps(folder: str, prompt: int, answer: int, samples: int, share: bool, count: int) -> None:
    """Seconds of each step and the peak of the process, as JSON; runs in a process of its own."""
    groups = make_groups(Path(folder), prompt, answer, samples)
    made = learner(Path(folder), share)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    batch = made.batch(groups)
    seconds = []
    for _ in range(count + 1):
        began = time.perf_counter()
        made.step(batch)
        seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds[1:], "mb": (peak - before) / 1024, "tokens": len(batch.token_ids_T)}))


def head(vocabulary: int = 150_000, tokens: int = 8192, width: int = 576) -> None:
    """Peak memory of log-probabilities and their gradient above what goes in; runs in a process of its own."""
    import torch

    from morl.learner.head import token_logprobs

    hidden = torch.randn(tokens, width, requires_grad=True)
    weight = torch.randn(vocabulary, width).div_(24).requires_grad_()
    everyone = torch.arange(tokens)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    logprobs, _ = token_logprobs(hidden, weight, None, everyone, everyone)
    logprobs.sum().backward()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"mb": (peak - before) / 1024, "whole_logits_mb": vocabulary * tokens * 4 / 2**20}))


def throughput(folder: str, count: int) -> None:
    """A step's arithmetic as a share of what a matrix product reaches; runs in a process of its own."""
    import torch

    groups = make_groups(Path(folder), 512, 64, 8)
    made = learner(Path(folder), share=True)
    batch = made.batch(groups)
    size = 1536
    a, b = torch.randn(size, size), torch.randn(size, size)
    flops, products = [], []
    body = sum(p.numel() for name, p in made._ranks._rank.engine.module.named_parameters() if "model.layers" in name)
    for _ in range(count + 1):
        began = time.perf_counter()
        for _ in range(5):
            a @ b
        products.append(5 * 2 * size**3 / (time.perf_counter() - began))
        began = time.perf_counter()
        made.step(batch)
        flops.append(6 * body * len(batch.token_ids_T) / (time.perf_counter() - began))
    print(json.dumps({"peak": max(products[1:]), "step": max(flops[1:])}))


def run(*arguments: object) -> dict:
    """One of the functions above in a new process, which has the learner's environment from its start."""
    import os

    from morl.learner.rank import CPU_ENVIRONMENT

    environment = {**os.environ, **CPU_ENVIRONMENT, "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
    done = subprocess.run(
        [sys.executable, __file__, *map(str, arguments)], capture_output=True, text=True, env=environment, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return json.loads(done.stdout.strip().splitlines()[-1])


def report(count: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder))
        print(
            f"{'prompt answer group':>20}  {'separate':>18}  {'shared':>18}  {'times':>6}  {'bound':>6}  {'of it':>6}"
        )
        for prompt, answer, samples in SHAPES:
            found = {share: run("steps", folder, prompt, answer, samples, int(share), count) for share in (False, True)}
            times = min(found[False]["seconds"]) / min(found[True]["seconds"])
            bound = samples * (prompt + answer) / (prompt + samples * answer)
            told = [f"{min(own['seconds']):.2f} s, {own['mb']:.0f} MB" for own in (found[False], found[True])]
            shape = f"{prompt} {answer} {samples}"
            print(f"{shape:>20}  {told[0]:>18}  {told[1]:>18}  {times:6.2f}  {bound:6.2f}  {times / bound:6.0%}")
        memory = run("head")
        told = f"{memory['mb']:.0f} MB; all logits at once: {memory['whole_logits_mb']:.0f} MB"
        print(f"head, vocabulary 150,000, 8,192 tokens: {told}")
        share = run("throughput", folder, count)
        print(
            f"step {share['step'] / 1e9:.0f} of {share['peak'] / 1e9:.0f} GFLOP/s: {share['step'] / share['peak']:.0%}"
        )


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["steps", folder, *numbers]:
            prompt, answer, samples, share, count = map(int, numbers)
            steps(folder, prompt, answer, samples, bool(share), count)
        case ["head"]:
            head()
        case ["throughput", folder, count]:
            throughput(folder, int(count))
        case _:
            parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
            parser.add_argument("--steps", type=int, default=2)
            report(parser.parse_args().steps)
