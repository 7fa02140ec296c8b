"""`morl rm`: a Bradley-Terry reward model from preference pairs, with the learner that trains policies.

pairs -> tokens -> batch -> one optimiser step; measured on pairs of held-out prompts
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from morl.announce import announce
from morl.cluster import Cluster
from morl.data import Pair, load_pairs, pairs_of_step, split
from morl.errors import DataError
from morl.evaluation import PreferenceAccuracy, describe, judge
from morl.learner import RankGroup, RewardMetrics, RewardRank, RewardSettings, TokenPair, pair_batch
from morl.model import CALIBRATION, ChatCodec, resolve_model
from morl.recipe import PreferenceRecipe, PreferenceSpec, go_offline
from morl.run import Interrupt, RunFolder, SupervisedRun, open_supervised_run, with_restarts
from morl.track import LineTracker

PAIRS_AT_ONCE = 256
"""Held-out pairs scored in one batch."""

SHOWN = {
    "preference/loss": ".3f",
    "preference/accuracy": ".2f",
    "preference/margin": "+.2f",
    "learner/grad_norm": ".2g",
    "time/learner_s": ".1f",
}
"""Metrics of a step that the console shows."""


def train_reward_model(recipe: PreferenceRecipe, *, resume: bool | Path = False, local: bool = False) -> bool:
    """Train the recipe's reward model; the finished one is in `runs/<name>/model`.

    Returns: whether all steps are done; False when a signal stopped the run early, its state saved.
    Raises: MorlError when the run cannot start or continue.
    """
    path = resume if isinstance(resume, Path) else None
    with Interrupt() as interrupt, RunFolder.open(recipe, resume=bool(resume), path=path) as folder:
        if folder.steps_done() >= recipe.run.steps and (folder.path / "model" / CALIBRATION).is_file():
            return True
        return with_restarts(recipe, lambda current: _train(current, folder, interrupt, local), folder, interrupt)


def _train(recipe: PreferenceRecipe, folder: RunFolder, interrupt: Interrupt, local: bool) -> bool:
    go_offline(recipe)
    spec, steps = recipe.preference, recipe.run.steps
    training, held_out = split(load_pairs(spec), spec.held_out, recipe.run.seed)
    model = resolve_model(recipe.model.path)
    announce(f"model: {model}")
    codec = ChatCodec.load(model, spec.max_tokens)
    encoder = Encoder(spec, codec)
    training, held_out = (encoder.usable(pairs) for pairs in (training, held_out))
    announce(f"{len(training)} pairs to learn from, {len(held_out)} of other prompts held out")
    settings = RewardSettings(
        model=model,
        dtype=recipe.model.dtype,
        learner=recipe.learner,
        seed=recipe.run.seed,
        plugins=tuple(recipe.plugins),
        centering=spec.centering,
    )
    console = LineTracker(steps, SHOWN)
    with (
        Cluster(recipe.cluster, local=local) as cluster,
        open_supervised_run(recipe, folder, cluster, RewardRank, settings, console=console) as run,
    ):
        if run.resumed is None:
            _measure(run, held_out, encoder)
        while run.step < steps and not interrupt.requested:
            drawn = pairs_of_step(run.step + 1, spec.pairs_per_step, len(training), recipe.run.seed)
            tokens = [tokens for _, tokens in encoder.encode_all([training[index] for index in drawn])]
            run.learn(pair_batch(tokens), _step_metrics, number=run.step + 1, steps=steps)
            if run.due or interrupt.requested or run.step == steps:
                run.save()
            if run.step < steps and spec.measure_every and run.step % spec.measure_every == 0:
                _measure(run, held_out, encoder)
        if run.step == steps:
            calibration = _measure(run, held_out, encoder)
            run.publish(folder.path / "model", {CALIBRATION: json.dumps(asdict(calibration), indent=1)})
        return run.step == steps


def _step_metrics(metrics: RewardMetrics) -> dict[str, float]:
    return {
        "preference/loss": metrics.loss,
        "preference/accuracy": metrics.right / metrics.pairs,
        "preference/margin": metrics.margin / metrics.pairs,
    }


def _measure(run: SupervisedRun[RewardMetrics], held_out: Sequence[Pair], encoder: Encoder) -> PreferenceAccuracy:
    accuracy = measure(run.ranks, held_out, encoder)
    run.tracker.log_eval({"step": run.step, "set": "held_out", **asdict(accuracy)})
    announce(f"step {run.step}: {describe(accuracy)}")
    return accuracy


class Encoder:
    """Tokenises pairs; those that are too long raise DataError or are left out, as the recipe says.

    Pairs of text are kept tokenised; those with images are encoded at each use, because images take memory.
    """

    def __init__(self, spec: PreferenceSpec, codec: ChatCodec) -> None:
        self._spec = spec
        self._codec = codec
        self._texts: dict[str, TokenPair] = {}

    def usable(self, pairs: Sequence[Pair]) -> list[Pair]:
        """The pairs not known to be too long. Raises: DataError when none is left."""
        usable = [pair for pair in pairs if pair.prompt.media or self.encode(pair) is not None]
        if not usable:
            raise self._none_left()
        if len(usable) < len(pairs):
            left_out = len(pairs) - len(usable)
            announce(f"{left_out} of {len(pairs)} pairs are left out: longer than {self._spec.max_tokens} tokens")
        return usable

    def encode_all(self, pairs: Sequence[Pair]) -> list[tuple[Pair, TokenPair]]:
        """The pairs with their tokens, without those that are too long. Raises: DataError when none is left."""
        encoded = [(pair, tokens) for pair in pairs if (tokens := self.encode(pair)) is not None]
        if not encoded:
            raise self._none_left()
        return encoded

    def _none_left(self) -> DataError:
        return DataError(f"no pair has preference.max_tokens={self._spec.max_tokens} tokens or fewer")

    def encode(self, pair: Pair) -> TokenPair | None:
        """The pair's tokens. Too long a pair gives None with `too_long: skip`. Raises: DataError otherwise."""
        if pair.where in self._texts:
            return self._texts[pair.where]
        answers = (self._codec.encode_answer(pair.chosen), self._codec.encode_answer(pair.rejected))
        tokens = TokenPair(self._codec.encode(pair.prompt, limit=False), *answers)
        most = self._spec.max_tokens
        if tokens.length > most:
            if self._spec.too_long == "skip":
                return None
            raise DataError(
                f"{pair.where}: the prompt and its answers have {tokens.length} tokens, more than "
                f"preference.max_tokens={most}; allow more, or leave such pairs out with too_long=skip"
            )
        if not pair.prompt.media:
            self._texts[pair.where] = tokens
        return tokens


def measure(ranks: RankGroup[RewardMetrics], held_out: Sequence[Pair], encoder: Encoder) -> PreferenceAccuracy:
    """Score held-out pairs and compare with people's preferences."""
    scores: list[tuple[float, float]] = []
    lengths: list[tuple[int, int]] = []
    questions: list[str] = []
    for first in range(0, len(held_out), PAIRS_AT_ONCE):
        portion = encoder.encode_all(held_out[first : first + PAIRS_AT_ONCE])
        scores += _scores(ranks, [tokens for _, tokens in portion])
        lengths += [(len(tokens.chosen_T), len(tokens.rejected_T)) for _, tokens in portion]
        questions += [pair.question for pair, _ in portion]
    return judge(np.array(scores), np.array(lengths), questions)


def _scores(ranks: RankGroup[RewardMetrics], pairs: Sequence[TokenPair]) -> list[tuple[float, float]]:
    scored: dict[int, tuple[float, float]] = {}
    for part in ranks.call_on_rows("score", pair_batch(pairs)):
        scored |= part
    return [scored[row] for row in range(len(pairs))]
