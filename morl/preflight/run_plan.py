"""`morl plan`: the resources that a recipe needs, before any machine is paid for.

Everything is computed from the recipe and the checkpoint's `config.json`. Batch arithmetic and placement are exact.
Memory is estimated from the sizes of what must be held; time, from arithmetic and memory traffic at assumed rates.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path

from morl.errors import UsageError
from morl.model import resolve_model
from morl.preflight.missing_files import missing_checkpoints
from morl.recipe import LoraSpec, Recipe

GIB = 2**30
BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}

ACTIVATIONS = 34
"""Bytes of activations per token and hidden unit that a transformer layer keeps at 16 bits, without attention scores,
which no kernel used here stores (Korthikanti et al. 2022, arXiv 2205.05198, section 4.1)."""

UTILISATION = 0.35
"""Share of a GPU's peak arithmetic that language-model training reaches."""


@dataclass(frozen=True, slots=True)
class Machines:
    """The machines to run on."""

    gpus: int
    """GPUs per node."""
    nodes: int
    gpu_memory_gb: float
    """Memory of one GPU, in GiB."""
    tflops: float = 990.0
    """Dense 16-bit arithmetic of one GPU, in 10¹² operations per second; the default is that of an H100 or H200."""
    bandwidth_gbs: float = 3350.0
    """Memory bandwidth of one GPU, in 10⁹ bytes per second."""

    @property
    def all(self) -> int:
        """GPUs of all nodes."""
        return self.gpus * self.nodes


@dataclass(frozen=True, slots=True)
class Shape:
    """The model sizes that memory and time depend on."""

    parameters: int
    layers: int
    hidden: int
    vocabulary: int
    kv_bytes: int
    """Bytes of the KV cache per token."""

    @classmethod
    def of(cls, folder: Path, dtype: str) -> Shape:
        """The sizes of the model in a checkpoint folder; reads only `config.json`."""
        from morl.compat import guard_torchvision

        guard_torchvision()
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

        config = AutoConfig.from_pretrained(folder)
        kind = AutoModelForCausalLM if getattr(config, "vision_config", None) is None else AutoModelForImageTextToText
        with torch.device("meta"):
            model = kind.from_config(config)
        text = config.get_text_config()
        head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
        heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
        return cls(
            parameters=sum(parameter.numel() for parameter in set(model.parameters())),
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            vocabulary=text.vocab_size,
            kv_bytes=2 * text.num_hidden_layers * heads * head * BYTES[dtype],
        )


@dataclass(frozen=True, slots=True)
class Item:
    """One line of a plan."""

    section: str
    what: str
    value: str
    fits: bool = True


def plan(recipe: Recipe, machines: Machines | None) -> list[Item]:
    """The resources that the recipe needs, line by line.

    Args:
        recipe: the recipe.
        machines: to compare with; None for no comparison and no time estimate.
    """
    items = _arithmetic(recipe) + _placement(recipe, machines)
    items += [Item("missing", problem.path, problem.message) for problem in missing_checkpoints(recipe)]
    try:
        shape = Shape.of(resolve_model(recipe.model.path), recipe.model.dtype)
    except (UsageError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0].removeprefix("model.path: ")
        message = f"model.path: {reason}. A folder with the model's config.json is enough for a plan"
        return [*items, Item("memory", "not estimated", message, fits=False)]
    learner = _learner_memory(recipe, shape)
    engine, sequences = _engine_memory(recipe, shape, machines), _sequences(recipe, shape, machines)
    items += _memory_items("a learner's GPU", learner, machines)
    items += _memory_items("an engine's GPU", engine, machines)
    items.append(sequences)
    return items + (_times(recipe, shape, machines) if machines is not None else [])


def _arithmetic(recipe: Recipe) -> list[Item]:
    rollout, share = recipe.rollout, sum(spec.share for spec in recipe.objectives.values())
    samples = rollout.prompts_per_step * rollout.samples_per_prompt
    items = [
        Item("a step", "prompts x samples", f"{rollout.prompts_per_step} x {rollout.samples_per_prompt} = {samples:,}"),
        Item("a step", "tokens written, at most", f"{samples * rollout.max_new_tokens:,}"),
        Item("a step", "tokens of a learner's row, at most", f"{_row_tokens(recipe):,}"),
    ]
    for name, spec in recipe.objectives.items():
        prompts = rollout.prompts_per_step * spec.share / share
        items.append(Item("a step", f"prompts of {name}", f"{prompts:.1f}"))
    return [*items, Item("the run", "steps x samples", f"{recipe.run.steps:,} x {samples:,}")]


def _row_tokens(recipe: Recipe) -> int:
    """Most tokens of a learner row: a prompt with all its responses, or with one of them."""
    rollout = recipe.rollout
    answers = rollout.samples_per_prompt if recipe.learner.share_prefix else 1
    return rollout.max_prompt_tokens + answers * rollout.max_new_tokens


def _placement(recipe: Recipe, machines: Machines | None) -> list[Item]:
    wide = _tensor_parallel(recipe)
    engines, ranks = recipe.rollout.engines * wide, recipe.learner.ranks
    critic = ranks if recipe.algorithm.has_critic else 0
    judges = _reward_models(recipe)
    needed = engines + ranks + critic + judges
    has = "" if machines is None else f" of {machines.all}"
    fits = machines is None or needed <= machines.all
    remedy = "" if fits else "; lower rollout.engines or learner.ranks, or add machines"
    return [
        Item("GPUs", "engines", f"{recipe.rollout.engines} x {wide} = {engines}"),
        Item("GPUs", "learner ranks", str(ranks)),
        *([Item("GPUs", "critic ranks", str(critic))] if critic else []),
        *([Item("GPUs", "reward models", str(judges))] if judges else []),
        Item("GPUs", "together", f"{needed}{has}{remedy}", fits),
    ]


def _reward_models(recipe: Recipe) -> int:
    """Replicas of reward models; terms of equal settings share them."""
    from morl.learner import ServerSettings  # and with it torch, which a check does without

    known = {item.name for item in fields(ServerSettings)}
    specs = [*recipe.objectives.values(), *recipe.eval_objectives().values()]
    terms = [term.options for spec in specs for term in spec.rewards if term.use == "reward_model"]
    settings = {ServerSettings(**{key: value for key, value in term.items() if key in known}) for term in terms}
    return sum(setting.replicas for setting in settings)


def _tensor_parallel(recipe: Recipe) -> int:
    return int(recipe.rollout.options.get("tensor_parallel_size", 1))


def _learner_memory(recipe: Recipe, shape: Shape) -> dict[str, float]:
    """Bytes on one GPU of the learner, by what they hold."""
    from morl.learner import CHUNK_BYTES, zero_stage

    spec, size = recipe.learner, BYTES[recipe.model.dtype]
    trained = _lora_parameters(spec.lora, shape) if spec.lora else shape.parameters
    zero = zero_stage(spec.zero, recipe.model.dtype)
    shards = {stage: spec.ranks if zero >= stage else 1 for stage in (1, 2, 3)}
    # ZeRO keeps float32 master weights whatever the dtype, and accumulates gradients in float32.
    master = 4 if zero else 0
    budget = max(spec.tokens_per_microbatch, _row_tokens(recipe))  # a row is never cut
    layer = budget * shape.hidden * ACTIVATIONS * size / 2
    kept = budget * shape.hidden * size
    memory = {
        "weights": size * shape.parameters / shards[3],
        "gradients": 4 * trained / shards[2],
        "optimiser": 0.0 if spec.offload else (8 + master) * trained / shards[1],
        "activations": layer + shape.layers * kept if spec.activation_checkpointing else shape.layers * layer,
        "head": 3.0 * max(CHUNK_BYTES, 64 * shape.vocabulary),
    }
    if recipe.algorithm.kl is not None and spec.lora is None:
        memory["reference"] = size * shape.parameters / shards[3]
    return memory


def _lora_parameters(lora: LoraSpec, shape: Shape) -> int:
    """An estimate: each layer has about 12 h² weights in 7 matrices, whose sides add up to about 22 h."""
    return 22 * shape.hidden * lora.rank * shape.layers


def _engine_memory(recipe: Recipe, shape: Shape, machines: Machines | None) -> dict[str, float]:
    """Bytes on one GPU of an engine, by use."""
    weights = BYTES[recipe.model.dtype] * shape.parameters / _tensor_parallel(recipe)
    if machines is None:
        return {"weights": weights}
    share = float(recipe.rollout.options.get("gpu_memory_utilization", 0.9))
    return {"weights": weights, "cache": max(0.0, share * machines.gpu_memory_gb * GIB - weights)}


def _sequences(recipe: Recipe, shape: Shape, machines: Machines | None) -> Item:
    """How many sequences an engine holds at once. An engine that cannot hold one does not start."""
    what = "sequences that an engine holds at once"
    longest = recipe.rollout.max_prompt_tokens + recipe.rollout.max_new_tokens
    each = shape.kv_bytes * longest / _tensor_parallel(recipe)
    if machines is None:
        return Item("memory", what, f"one of {longest:,} tokens takes {each / GIB:.2f} GiB")
    held = int(_engine_memory(recipe, shape, machines)["cache"] / each)
    remedy = "" if held else "; raise tensor_parallel_size in rollout.options, or shorten prompts and responses"
    return Item("memory", what, f"{held:,} of {longest:,} tokens{remedy}", fits=held > 0)


def _memory_items(whose: str, parts: dict[str, float], machines: Machines | None) -> list[Item]:
    total = sum(parts.values()) / GIB
    breakdown = ", ".join(f"{name} {value / GIB:.1f}" for name, value in parts.items())
    fits = machines is None or total <= machines.gpu_memory_gb
    has = "" if machines is None else f" of {machines.gpu_memory_gb:g}"
    remedy = "" if fits else "; raise learner.zero or ranks, or use offload or activation_checkpointing"
    return [Item("memory", whose, f"{total:.1f}{has} GiB: {breakdown}{remedy}", fits)]


def _times(recipe: Recipe, shape: Shape, machines: Machines) -> list[Item]:
    rollout, spec = recipe.rollout, recipe.learner
    samples = rollout.prompts_per_step * rollout.samples_per_prompt
    prompts = rollout.prompts_per_step if spec.share_prefix else samples
    learnt = prompts * rollout.max_prompt_tokens + samples * rollout.max_new_tokens
    passes = 8 if spec.activation_checkpointing else 6
    learner_s = passes * shape.parameters * learnt / (spec.ranks * machines.tflops * 1e12 * UTILISATION)
    wide = _tensor_parallel(recipe)
    weights = BYTES[recipe.model.dtype] * shape.parameters / wide
    held = samples / rollout.engines
    halfway = rollout.max_prompt_tokens + rollout.max_new_tokens / 2
    read = weights + held * halfway * shape.kv_bytes / wide
    rollout_s = rollout.max_new_tokens * read / (machines.bandwidth_gbs * 1e9)
    whole = (rollout_s + learner_s) * recipe.run.steps / 3600
    assumed = f"at {UTILISATION:.0%} of {machines.tflops:g} TFLOP/s, and {machines.bandwidth_gbs:g} GB/s"
    return [
        Item("time", "rollout of a step, at most", _seconds(rollout_s)),
        Item("time", "update of a step, at most", _seconds(learner_s)),
        Item("time", "the run, at most", f"{whole:,.1f} h {assumed}; all responses of full length, without rewards"),
    ]


def _seconds(value: float) -> str:
    return f"{value:,.0f} s" if value >= 10 else f"{value:.2g} s"
