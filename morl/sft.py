"""`morl sft`: supervised training in stages, on the learner that reinforcement learning uses too.

examples -> tokens -> batch -> one optimiser step; each stage writes a model that the next one starts from
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from morl.announce import announce
from morl.cluster import Cluster
from morl.data import Mixture, load_prompts
from morl.errors import DataError
from morl.learner import Example, RankGroup, RankSettings, SupervisedMetrics, SupervisedRank, example_batch
from morl.model import ChatCodec, resolve_model
from morl.recipe import LearnerSpec, SftRecipe, StageSpec, go_offline
from morl.run import Interrupt, RunFolder, SupervisedRun, open_supervised_run, recovering
from morl.track import LineTracker
from morl.types import Prompt

logger = logging.getLogger(__name__)

SHOWN = {
    "sft/loss": ".4f",
    "learner/lr": ".2g",
    "learner/grad_norm": ".2g",
    "learner/tokens_per_s": ".0f",
    "time/learner_s": ".2f",
}
"""Metrics of a step that the console shows."""
FRUITLESS = 1000
"""Examples that are too long one after the other, at which a stage gives up."""


def train_supervised(recipe: SftRecipe, *, resume: bool | Path = False, local: bool = False) -> bool:
    """Run the recipe's stages; the model of each lies in `runs/<name>/models/<stage>`.

    Returns: whether all stages are done; False when a signal ended it early, state saved.
    Raises: MorlError when the run cannot start or go on.
    """
    where = resume if isinstance(resume, Path) else None
    with Interrupt() as interrupt, RunFolder.open(recipe, resume=bool(resume), path=where) as folder:
        return recovering(recipe, lambda own: _train(own, folder, interrupt, local), folder, interrupt)


def _train(recipe: SftRecipe, folder: RunFolder, interrupt: Interrupt, local: bool) -> bool:
    go_offline(recipe)
    model, start = resolve_model(recipe.model.path), 0
    with Cluster(recipe.cluster, local=local) as cluster:
        for name, spec in recipe.stages.items():
            made = folder.path / "models" / name
            if not made.is_dir():
                announce(f"stage {name}: {spec.steps} steps from {model}")
                stage = _Stage(recipe, name, spec, start, model)
                if not _run_stage(stage, folder, cluster, interrupt):
                    return False
            model, start = made, start + spec.steps
    announce(f"all stages are done; their models are in {folder.path / 'models'}")
    return True


@dataclass(frozen=True, slots=True)
class _Stage:
    """A stage and where it stands among the others."""

    recipe: SftRecipe
    name: str
    spec: StageSpec
    start: int
    """Steps of the stages before it."""
    model: Path
    """What it starts from."""

    @property
    def learner(self) -> LearnerSpec:
        return self.recipe.learner_of(self.spec)

    @property
    def end(self) -> int:
        return self.start + self.spec.steps


def _run_stage(stage: _Stage, folder: RunFolder, cluster: Cluster, interrupt: Interrupt) -> bool:
    """Go on with a stage from its newest checkpoint, or begin it; whether it is done."""
    recipe, spec = stage.recipe, stage.spec
    codec = ChatCodec.load(stage.model, spec.max_tokens)
    examples = _Examples(stage, codec)
    settings = RankSettings(
        model=stage.model,
        dtype=recipe.model.dtype,
        learner=stage.learner,
        seed=recipe.run.seed,
        plugins=tuple(recipe.plugins),
    )
    console = LineTracker(recipe.steps, SHOWN)
    with open_supervised_run(
        recipe, folder, cluster, SupervisedRank, settings, console=console, start=stage.start
    ) as fit:
        if fit.resumed is not None:
            examples.restore(fit.resumed["examples"])
        for batch in examples.batches(stage.end - fit.step, spec.examples_per_step):
            number = fit.step + 1 - stage.start
            fit.learn(
                example_batch(batch, spec.aggregation),
                lambda total: _named(total) | examples.skipped_rows,
                number=number,
                steps=spec.steps,
            )
            if fit.due or interrupt.requested or fit.step == stage.end:
                fit.save({"stage": stage.name, "examples": examples.state()})
            if (spec.measure_every and number % spec.measure_every == 0) or fit.step == stage.end:
                _measure(fit, examples, stage)
            if interrupt.requested:
                break
        if fit.step == stage.end:
            fit.publish(folder.path / "models" / stage.name)
        return fit.step == stage.end


def _named(total: SupervisedMetrics) -> dict[str, float]:
    return {
        "sft/loss": total.loss,
        "sft/nats_per_token": total.nats / total.tokens,
        "sft/answer_tokens": total.tokens,
    }


class _Examples:
    """An endless stream of a stage's examples as tokens."""

    def __init__(self, stage: _Stage, codec: ChatCodec) -> None:
        self._spec = stage.spec
        self._codec = codec
        key, datasets = ("stages", stage.name, "datasets"), stage.spec.datasets
        self._sets = {name: load_prompts(own, name, *key, name, "data") for name, own in datasets.items()}
        shares = {name: own.share for name, own in datasets.items()}
        self._mixture = Mixture(self._sets, shares, stage.recipe.run.seed)
        self._drawn: Mapping[str, Any] = self._mixture.state()
        self.held_out = {
            name: load_prompts(own.model_copy(update={"data": own.held_out}), name, *key, name, "held_out")
            for name, own in datasets.items()
            if own.held_out is not None
        }
        self._too_long = 0

    def state(self) -> Mapping[str, Any]:
        """Where the stream stands after the last batch that was given out."""
        return self._drawn

    @property
    def skipped_rows(self) -> dict[str, float]:
        """Metrics: how often a row of a data set was passed over for its bad images, up to the last batch."""
        return {f"sft/{name}/skipped_rows": float(count) for name, count in self._drawn["passed_over"].items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`."""
        self._mixture.restore(state)
        self._drawn = self._mixture.state()

    def batches(self, count: int, size: int) -> Iterator[list[Example]]:
        """The next `count` batches; each is made while the one before is learnt from."""
        if not count:
            return
        with ThreadPoolExecutor(1, "examples") as pool:
            coming = pool.submit(self._batch, size)
            for left in reversed(range(count)):
                batch, drawn = coming.result()
                if left:
                    coming = pool.submit(self._batch, size)
                self._drawn = drawn
                yield batch

    def _batch(self, size: int) -> tuple[list[Example], Mapping[str, Any]]:
        batch: list[Example] = []
        fruitless = 0
        while len(batch) < size:
            drawn = self._mixture.draw(size - len(batch))
            found = self.encode(drawn, lambda prompt: self._sets[prompt.objective].where_of(prompt))
            fruitless = 0 if found else fruitless + len(drawn)
            if fruitless >= FRUITLESS:
                most = self._spec.max_tokens
                raise DataError(f"{fruitless} examples in a row have more than max_tokens={most} tokens; allow more")
            batch += found
        return batch, self._mixture.state()

    def encode(self, prompts: list[Prompt], where: Callable[[Prompt], str]) -> list[Example]:
        """Tokens of examples; those that are too long fail or are left out, as the recipe says.

        `where` tells the place of the row that an example is made of.
        """
        found = []
        for prompt in prompts:
            if not isinstance(prompt.gold, str) or not prompt.gold:
                raise DataError(
                    f"{where(prompt)}: answer: should be text, not {prompt.gold!r:.60}; "
                    "the filter `string` makes text of a number: {{ … | string }}"
                )
            example = Example(self._codec.encode(prompt, limit=False), self._codec.encode_answer(prompt.gold))
            if example.length <= self._spec.max_tokens:
                found.append(example)
            elif self._spec.too_long == "fail":
                raise DataError(
                    f"{where(prompt)}: prompt and answer have {example.length} tokens, more than "
                    f"max_tokens={self._spec.max_tokens}; allow more, or leave such out with too_long=skip"
                )
            else:
                self._too_long += 1
                logger.info("%s is left out: %d tokens; %d so far", prompt.id, example.length, self._too_long)
        return found


def _measure(fit: SupervisedRun[SupervisedMetrics], examples: _Examples, stage: _Stage) -> None:
    """Loss on the held-out rows of each data set."""
    for name, prompts in examples.held_out.items():
        usable = [prompt for index in range(len(prompts)) if (prompt := prompts.usable(index)) is not None]
        encoded = examples.encode(usable, prompts.where_of)
        if not encoded:
            announce(f"step {fit.step}: held-out {name}: no example is left to measure")
            continue
        found = measure(fit.ranks, encoded)
        fit.tracker.log_eval({"step": fit.step, "set": name, "stage": stage.name, **found})
        announce(f"step {fit.step}: held-out {name}: {found['nats_per_token']:.4f} nats a token")


def measure(ranks: RankGroup[SupervisedMetrics], examples: list[Example]) -> dict[str, float]:
    """Mean negative log-likelihood of the answers: `nats_per_token` and `nats_per_answer`."""
    batch = example_batch(examples, "batch_tokens")
    nats = sum(sum(part.values()) for part in ranks.call_on_rows("measure", batch))
    tokens = sum(len(example.answer_T) for example in examples)
    return {"nats_per_token": nats / tokens, "nats_per_answer": nats / len(examples), "n": float(len(examples))}
