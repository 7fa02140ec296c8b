"""`morl sft`: supervised training in stages, with the learner of reinforcement learning.

examples -> tokens -> batch -> one optimiser step; each stage writes the model that the next starts from
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
from morl.run import Interrupt, RunFolder, SupervisedRun, open_supervised_run, with_restarts
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
MAX_TOO_LONG = 1000
"""A stage stops after this many examples in a row that are too long."""


def train_supervised(recipe: SftRecipe, *, resume: bool | Path = False, local: bool = False) -> bool:
    """Run the recipe's stages; the model of each is in `runs/<name>/models/<stage>`.

    Returns: whether all stages are done; False when a signal stopped the run early, its state saved.
    Raises: MorlError when the run cannot start or continue.
    """
    path = resume if isinstance(resume, Path) else None
    with Interrupt() as interrupt, RunFolder.open(recipe, resume=bool(resume), path=path) as folder:
        return with_restarts(recipe, lambda current: _train(current, folder, interrupt, local), folder, interrupt)


def _train(recipe: SftRecipe, folder: RunFolder, interrupt: Interrupt, local: bool) -> bool:
    go_offline(recipe)
    model, start = resolve_model(recipe.model.path), 0
    with Cluster(recipe.cluster, local=local) as cluster:
        for name, spec in recipe.stages.items():
            target = folder.path / "models" / name
            if not target.is_dir():
                announce(f"stage {name}: {spec.steps} steps from {model}")
                stage = _Stage(recipe, name, spec, start, model)
                if not _run_stage(stage, folder, cluster, interrupt):
                    return False
            model, start = target, start + spec.steps
    announce(f"all stages are done; their models are in {folder.path / 'models'}")
    return True


@dataclass(frozen=True, slots=True)
class _Stage:
    """A stage, with its first step and the model it starts from."""

    recipe: SftRecipe
    name: str
    spec: StageSpec
    start: int
    """Steps of the earlier stages."""
    model: Path

    @property
    def learner(self) -> LearnerSpec:
        return self.recipe.learner_of(self.spec)

    @property
    def end(self) -> int:
        return self.start + self.spec.steps


def _run_stage(stage: _Stage, folder: RunFolder, cluster: Cluster, interrupt: Interrupt) -> bool:
    """Run a stage, from its newest checkpoint if there is one. Returns: whether it is done."""
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
    ) as run:
        if run.resumed is not None:
            examples.restore(run.resumed["examples"])
        for batch in examples.batches(stage.end - run.step, spec.examples_per_step):
            number = run.step + 1 - stage.start
            run.learn(
                example_batch(batch, spec.aggregation),
                lambda metrics: _step_metrics(metrics) | examples.skipped_rows,
                number=number,
                steps=spec.steps,
            )
            if run.due or interrupt.requested or run.step == stage.end:
                run.save({"stage": stage.name, "examples": examples.state()})
            if (spec.measure_every and number % spec.measure_every == 0) or run.step == stage.end:
                _measure(run, examples, stage)
            if interrupt.requested:
                break
        if run.step == stage.end:
            run.publish(folder.path / "models" / stage.name)
        return run.step == stage.end


def _step_metrics(metrics: SupervisedMetrics) -> dict[str, float]:
    return {
        "sft/loss": metrics.loss,
        "sft/nats_per_token": metrics.nats / metrics.tokens,
        "sft/answer_tokens": metrics.tokens,
    }


class _Examples:
    """An endless stream of a stage's tokenised examples."""

    def __init__(self, stage: _Stage, codec: ChatCodec) -> None:
        self._spec = stage.spec
        self._codec = codec
        key, datasets = ("stages", stage.name, "datasets"), stage.spec.datasets
        self._sets = {name: load_prompts(spec, name, *key, name, "data") for name, spec in datasets.items()}
        shares = {name: spec.share for name, spec in datasets.items()}
        self._mixture = Mixture(self._sets, shares, stage.recipe.run.seed)
        self._drawn: Mapping[str, Any] = self._mixture.state()
        self.held_out = {
            name: load_prompts(spec.model_copy(update={"data": spec.held_out}), name, *key, name, "held_out")
            for name, spec in datasets.items()
            if spec.held_out is not None
        }
        self._too_long = 0

    def state(self) -> Mapping[str, Any]:
        """Position of the stream after the last batch handed out."""
        return self._drawn

    @property
    def skipped_rows(self) -> dict[str, float]:
        """Metrics: rows of each data set skipped for bad images, up to the last batch."""
        return {f"sft/{name}/skipped_rows": float(count) for name, count in self._drawn["passed_over"].items()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`."""
        self._mixture.restore(state)
        self._drawn = self._mixture.state()

    def batches(self, count: int, size: int) -> Iterator[list[Example]]:
        """The next `count` batches; each is tokenised during the optimiser step on the one before."""
        if not count:
            return
        with ThreadPoolExecutor(1, "examples") as pool:
            pending = pool.submit(self._batch, size)
            for remaining in reversed(range(count)):
                batch, drawn = pending.result()
                if remaining:
                    pending = pool.submit(self._batch, size)
                self._drawn = drawn
                yield batch

    def _batch(self, size: int) -> tuple[list[Example], Mapping[str, Any]]:
        batch: list[Example] = []
        too_long = 0
        while len(batch) < size:
            drawn = self._mixture.draw(size - len(batch))
            examples = self.encode(drawn, lambda prompt: self._sets[prompt.objective].where_of(prompt))
            too_long = 0 if examples else too_long + len(drawn)
            if too_long >= MAX_TOO_LONG:
                most = self._spec.max_tokens
                raise DataError(f"{too_long} examples in a row have more than max_tokens={most} tokens; allow more")
            batch += examples
        return batch, self._mixture.state()

    def encode(self, prompts: list[Prompt], row_of: Callable[[Prompt], str]) -> list[Example]:
        """Tokenise examples; those that are too long raise DataError or are left out, as the recipe says.

        `row_of` names the row of a prompt as `file:line`, for errors.
        """
        examples = []
        for prompt in prompts:
            if not isinstance(prompt.gold, str) or not prompt.gold:
                raise DataError(
                    f"{row_of(prompt)}: answer: should be text, not {prompt.gold!r:.60}; "
                    "the filter `string` turns a number into text: {{ … | string }}"
                )
            example = Example(self._codec.encode(prompt, limit=False), self._codec.encode_answer(prompt.gold))
            if example.length <= self._spec.max_tokens:
                examples.append(example)
            elif self._spec.too_long == "fail":
                raise DataError(
                    f"{row_of(prompt)}: prompt and answer have {example.length} tokens, more than "
                    f"max_tokens={self._spec.max_tokens}; allow more, or leave such examples out with too_long=skip"
                )
            else:
                self._too_long += 1
                logger.info("%s is left out: %d tokens; %d so far", prompt.id, example.length, self._too_long)
        return examples


def _measure(run: SupervisedRun[SupervisedMetrics], examples: _Examples, stage: _Stage) -> None:
    """Log the loss on the held-out rows of each data set."""
    for name, prompts in examples.held_out.items():
        usable = [prompt for index in range(len(prompts)) if (prompt := prompts.usable(index)) is not None]
        encoded = examples.encode(usable, prompts.where_of)
        if not encoded:
            announce(f"step {run.step}: held-out {name}: no example is short enough to measure")
            continue
        loss = measure(run.ranks, encoded)
        run.tracker.log_eval({"step": run.step, "set": name, "stage": stage.name, **loss})
        announce(f"step {run.step}: held-out {name}: {loss['nats_per_token']:.4f} nats per token")


def measure(ranks: RankGroup[SupervisedMetrics], examples: list[Example]) -> dict[str, float]:
    """Mean negative log-likelihood of the answers: `nats_per_token` and `nats_per_answer`."""
    batch = example_batch(examples, "batch_tokens")
    nats = sum(sum(part.values()) for part in ranks.call_on_rows("measure", batch))
    tokens = sum(len(example.answer_T) for example in examples)
    return {"nats_per_token": nats / tokens, "nats_per_answer": nats / len(examples), "n": float(len(examples))}
