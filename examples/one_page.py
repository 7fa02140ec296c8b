"""Mixed On-policy Reinforcement Learning on one page: several objectives, one policy, one update per rollout batch.

Section 3 of the MiMo-VL report (arXiv 2506.03569) in torch and transformers. Prompts come from several objectives,
mixed by their shares. Each answer is scored in [0, 1] by the reward of its own objective: a verifier, or what people
prefer. Each batch of answers then updates once the policy that wrote it.

    python examples/one_page.py          # sums and descriptions, with the small model that ships with morl: offline
    python examples/one_page.py --model ./smollm2 --lr 2e-5 --data math=sums.jsonl text=capitals.jsonl

Only the rewards are morl's. A test checks that its losses equal those of `morl train --local` with the same settings.
What `morl train` adds: images, several rewards an objective, deadlines for rewards, vLLM, many GPUs, checkpoints, …

Shapes: P prompts of a step, G answers of a prompt, B = P * G, L tokens of a prompt, T of an answer, V vocabulary.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.resources
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

from morl.compat import guard_torchvision
from morl.registry import REWARDS, call_by_name
from morl.rewards.reward import Verdict


class Objective(NamedTuple):
    """A share of the prompts, and the reward that their answers are scored with; `morl rewards` lists the rewards."""

    share: float
    rows: Sequence[Mapping[str, Any]]  # {"prompt": a text, "gold": what the reward compares an answer with}
    reward: str
    options: Mapping[str, Any] = {}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Named as in a recipe."""

    seed: int = 0
    steps: int = 30
    prompts_per_step: int = 16
    samples_per_prompt: int = 8
    max_new_tokens: int = 48
    temperature: float = 1.0
    lr: float = 1.5e-4
    warmup_steps: int = 5
    max_grad_norm: float = 1.0
    importance_cap: float = 2.0


# Prompts: the objectives are optimised jointly, so each step has prompts of all of them, by their shares.
def mixture(objectives: Mapping[str, Objective], seed: int) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Rows without end: the next of the objective furthest behind its share, in an order shuffled anew each epoch."""
    total = sum(objective.share for objective in objectives.values())
    drawn = dict.fromkeys(objectives, 0)
    for n in itertools.count(1):
        name = max(objectives, key=lambda name: objectives[name].share / total * n - drawn[name])
        rows = objectives[name].rows
        epoch, place = divmod(drawn[name], len(rows))
        digest = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        drawn[name] += 1
        yield name, rows[np.random.default_rng([seed, digest, epoch]).permutation(len(rows))[place]]


# Rollout: answers o_1 … o_G ~ pi(. | q), where q is the question in the model's chat template.
class Answers(NamedTuple):
    """Tokens as they were sampled, with their log-probs; the mask is true up to the token that ends the answer."""

    tokens_PGT: torch.Tensor
    logprobs_PGT: torch.Tensor
    mask_PGT: torch.Tensor


class Policy:
    """A language model, and pi(token | all before it): a stop token ends an answer, a banned one is never written."""

    def __init__(self, folder: str | Path, temperature: float = 1.0) -> None:
        guard_torchvision()  # else one that was built for CUDA does not load beside a torch for the CPU
        config = AutoConfig.from_pretrained(folder)
        kind = AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = kind.from_pretrained(folder, dtype=torch.float32).to(self.device)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.temperature = temperature
        ends = [getattr(own, "eos_token_id", None) for own in (self.tokenizer, config, self.model.generation_config)]
        self.stop_ids = torch.tensor([i for ids in ends if ids is not None for i in np.atleast_1d(ids)]).to(self.device)
        placeholders = [f"{name}_token_id" for name in ("image", "video", "vision_start", "vision_end", "vision")]
        self.banned_ids = [getattr(config, key) for key in placeholders if getattr(config, key, None) is not None]

    def encode(self, prompt: str) -> torch.Tensor:
        """Token ids `L` of a question, up to where its answer begins."""
        message = {"role": "user", "content": prompt}
        ids = self.tokenizer.apply_chat_template([message], add_generation_prompt=True, return_dict=True)["input_ids"]
        return torch.tensor(ids, device=self.device)

    def decode(self, answers: Answers) -> list[str]:
        """The text of each answer, `B`."""
        pairs = zip(answers.tokens_PGT.flatten(0, 1), answers.mask_PGT.flatten(0, 1), strict=True)
        return [self.tokenizer.decode(ids_T[mask_T], skip_special_tokens=True) for ids_T, mask_T in pairs]

    def logprobs(self, logits: torch.Tensor) -> torch.Tensor:
        """log pi over the vocabulary, the last dimension: of sampling and learning alike."""
        logits[..., self.banned_ids] = -math.inf
        return (logits / self.temperature).log_softmax(dim=-1)

    @torch.no_grad()
    def sample(self, prompts: Sequence[torch.Tensor], uniforms_BT: torch.Tensor) -> Answers:
        """G answers to each prompt: the next token is where the cumulative probability passes a uniform number."""
        G = len(uniforms_BT) // len(prompts)
        ids_PL = pad_sequence(list(prompts), batch_first=True, padding_side="left")
        mask_PL = pad_sequence([torch.ones_like(ids) for ids in prompts], batch_first=True, padding_side="left")
        positions_PL = (mask_PL.cumsum(dim=1) - 1).clamp(min=0)
        out = self.model(input_ids=ids_PL, attention_mask=mask_PL, position_ids=positions_PL, logits_to_keep=1)
        cache, mask_BK = out.past_key_values, mask_PL.repeat_interleave(G, dim=0)
        cache.batch_repeat_interleave(G)
        logits_BV, tokens, logprobs = out.logits[:, -1].repeat_interleave(G, dim=0), [], []
        for uniform_B1 in uniforms_BT.to(self.device).split(1, dim=1):
            logprobs_BV = self.logprobs(logits_BV)
            cdf_BV = logprobs_BV.double().exp().cumsum(dim=1)
            token_B1 = torch.searchsorted(cdf_BV, uniform_B1 * cdf_BV[:, -1:], right=True)
            tokens.append(token_B1)
            logprobs.append(logprobs_BV.gather(1, token_B1))
            if torch.isin(torch.cat(tokens, dim=1), self.stop_ids).any(dim=1).all():
                break
            mask_BK = torch.cat([mask_BK, torch.ones_like(token_B1)], dim=1)
            at = {"attention_mask": mask_BK, "position_ids": mask_BK.sum(dim=1, keepdim=True) - 1}
            logits_BV = self.model(input_ids=token_B1, past_key_values=cache, **at).logits[:, -1]
        tokens_PGT = torch.cat(tokens, dim=1).unflatten(0, (-1, G))
        stops_PGT = torch.isin(tokens_PGT, self.stop_ids).long()
        mask_PGT = stops_PGT.cumsum(dim=2) == stops_PGT  # no token before this one ends the answer
        return Answers(tokens_PGT, torch.cat(logprobs, dim=1).unflatten(0, (-1, G)), mask_PGT)


def uniforms(seed: int, step: int, P: int, G: int, T: int) -> torch.Tensor:
    """The chance in a step, `BT`: each answer has a stream of its own, whatever is sampled beside it."""
    digests = [hashlib.blake2b(f"{seed}/step-{step}/{p}".encode(), digest_size=8).digest() for p in range(P)]
    keys = [(int.from_bytes(digest, "big") >> 3) + g for digest in digests for g in range(G)]
    return torch.from_numpy(np.stack([np.random.Generator(np.random.Philox(key=key)).random(T) for key in keys]))


# Rewards: r(q, o) in [0, 1] by the prompt's own objective. Nothing is added to it, no reward of format or length.
def score(objective: Objective, row: Mapping[str, Any], response: str) -> float:
    """The reward of a response; NaN where there is none, as for a gold that cannot be read."""
    asked = [{"role": "user", "content": row["prompt"]}]
    known = {"messages": asked, "media": (), "gold": row.get("gold"), "meta": row, "response": response, "sample": None}
    verdict = call_by_name(REWARDS.load(objective.reward), known, objective.options)
    value = verdict.value if isinstance(verdict, Verdict) else verdict
    return math.nan if value is None else float(value)


def advantages(rewards_PG: torch.Tensor, eps: float = 1e-6) -> torch.Tensor:
    """`A_i = (r_i - mean(r)) / (std(r) + eps)` among the answers to a prompt; 0 for one without a reward."""
    centred_PG = rewards_PG - rewards_PG.nanmean(dim=1, keepdim=True)
    std_P1 = centred_PG.square().nanmean(dim=1, keepdim=True).sqrt()
    return (centred_PG / (std_P1 + eps)).nan_to_num(0.0)


# Update: as what learns is what wrote the answers, the ratio of GRPO is 1: nothing to clip, and no KL term.
def backward(policy: Policy, prompts: Sequence[torch.Tensor], answers: Answers, r_PG: torch.Tensor, C: float) -> float:
    """Add the gradient of the loss, a prompt at a time, so that every prompt counts the same; returns the loss.

    `L = -1/P sum_p 1/(sum_i |o_i|) sum_i sum_t w_it A_i log pi(o_it | q_p, o_i<t)`; the importance weight
    `w = min(pi / pi_rollout, C)`, without gradient, corrects for what sampling and learning compute differently.
    """
    A_PG = advantages(r_PG).float().to(policy.device)
    mask_PGT = answers.mask_PGT & ~r_PG.isnan().to(policy.device)[:, :, None]
    P, loss = mask_PGT.any(dim=(1, 2)).sum().clamp(min=1), 0.0
    for ids_L, A_G, tokens_GT, rollout_GT, mask_GT in zip(prompts, A_PG, *answers[:2], mask_PGT, strict=True):
        T, G, L = int(mask_GT.any(dim=0).sum()), len(A_G), len(ids_L)  # T of this prompt's longest answer
        tokens_GT, rollout_GT, mask_GT = tokens_GT[:, :T], rollout_GT[:, :T], mask_GT[:, :T]
        ids_GN = torch.cat([ids_L.expand(G, L), tokens_GT], dim=1)
        positions_GN = torch.arange(L + T, device=policy.device).expand(G, L + T)
        out = policy.model(input_ids=ids_GN, position_ids=positions_GN, use_cache=False, logits_to_keep=T + 1)
        logprobs_GT = policy.logprobs(out.logits[:, :-1]).gather(2, tokens_GT[:, :, None])[:, :, 0]
        w_GT = (logprobs_GT.detach() - rollout_GT).exp().clamp(max=C)
        loss_p = -(w_GT * A_G[:, None] * logprobs_GT)[mask_GT].sum() / mask_GT.sum().clamp(min=1) / P
        loss_p.backward()
        loss += float(loss_p.detach())
    return loss


class Step(NamedTuple):
    """What a step measured: the loss, and the mean reward of each objective."""

    loss: float
    rewards: dict[str, float]


def train(policy: Policy, objectives: Mapping[str, Objective], settings: Settings) -> Iterator[Step]:
    """The whole algorithm."""
    P, G, T = settings.prompts_per_step, settings.samples_per_prompt, settings.max_new_tokens
    optimizer = torch.optim.AdamW(policy.model.parameters(), betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    stream = mixture(objectives, settings.seed)
    for step in range(1, settings.steps + 1):
        names, rows = zip(*itertools.islice(stream, P), strict=True)
        prompts = [policy.encode(row["prompt"]) for row in rows]
        answers = policy.sample(prompts, uniforms(settings.seed, step, P, G, T))
        scores = [score(objectives[names[b // G]], rows[b // G], o) for b, o in enumerate(policy.decode(answers))]
        r_PG = torch.tensor(scores, dtype=torch.float64).view(P, G)
        loss = backward(policy, prompts, answers, r_PG, settings.importance_cap)
        torch.nn.utils.clip_grad_norm_(policy.model.parameters(), settings.max_grad_norm)
        optimizer.param_groups[0]["lr"] = settings.lr * min(1.0, step / (settings.warmup_steps + 1))
        optimizer.step()
        optimizer.zero_grad()
        yield Step(loss, {own: float(r_PG[[name == own for name in names]].nanmean()) for own in objectives})


def miniature() -> dict[str, Objective]:
    """Two objectives of the world that ships with morl: sums, right or wrong; descriptions, liked more or less."""
    from morl_mini import mini

    def rows(kind: str) -> list[dict[str, Any]]:
        made = mini(kind=kind, split="train", level=2, count=2000)
        return [{"prompt": made[i]["question"], "gold": made[i]["gold"]} for i in range(len(made))]

    return {"math": Objective(0.5, rows("math"), "math"), "describe": Objective(0.5, rows("retell"), "mini_taste")}


def main() -> None:
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--model", default=importlib.resources.files("morl_mini") / "sft", help="of Hugging Face")
    parser.add_argument("--data", nargs="+", default=[], help='REWARD=FILE; in it lines of {"prompt": …, "gold": …}')
    for field in fields(Settings):
        parser.add_argument(f"--{field.name}", type=type(field.default), default=field.default, help=" ")
    given = vars(parser.parse_args())
    policy, objectives = Policy(str(given.pop("model")), given["temperature"]), {}
    for reward, file in (item.split("=", 1) for item in given.pop("data")):
        rows = [json.loads(line) for line in Path(file).read_text(encoding="utf-8").splitlines()]
        objectives[Path(file).stem] = Objective(1.0, rows, reward)
    for step, (loss, rewards) in enumerate(train(policy, objectives or miniature(), Settings(**given)), 1):
        shown = "  ".join(f"{name} {value:.3f}" for name, value in rewards.items())
        print(f"step {step:3}  loss {loss:+.4f}  reward: {shown}", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
