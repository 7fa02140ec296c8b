"""`morl rm`: a Bradley-Terry reward model from pairs of answers, on the learner that trains policies too.

pairs -> tokens -> batch -> one optimiser step; measured on pairs of prompts that it never learnt from
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
from morl.evaluation import Measured, describe, judge
from morl.learner import RankGroup, RewardMetrics, RewardRank, RewardSettings, TokenPair, pair_batch
from morl.model import CALIBRATION, ChatCodec, resolve_model
from morl.recipe import PreferenceRecipe, PreferenceSpec, go_offline
from morl.run import Interrupt, RunFolder, SupervisedRun, open_supervised_run, recovering
from morl.track import LineTracker

PORTION = 256
"""Held-out pairs that are scored at a time."""

SHOWN = {
    "preference/loss": ".3f",
    "preference/accuracy": ".2f",
    "preference/margin": "+.2f",
    "learner/grad_norm": ".2g",
    "time/learner_s": ".1f",
}
"""Metrics of a step that the console shows."""


def train_reward_model(recipe: PreferenceRecipe, *, resume: bool | Path = False, local: bool = False) -> bool:
    """Train the recipe's reward model; the finished one lies in `runs/<name>/model`.

    Returns: whether all steps are done; False when a signal ended it early, state saved.
    Raises: MorlError when the run cannot start or go on.
    """
    where = resume if isinstance(resume, Path) else None
    with Interrupt() as interrupt, RunFolder.open(recipe, resume=bool(resume), path=where) as folder:
        if folder.steps_done() >= recipe.run.steps and (folder.path / "model" / CALIBRATION).is_file():
            return True
        return recovering(recipe, lambda own: _train(own, folder, interrupt, local), folder, interrupt)


def _train(recipe: PreferenceRecipe, folder: RunFolder, interrupt: Interrupt, local: bool) -> bool:
    go_offline(recipe)
    spec, steps = recipe.preference, recipe.run.steps
    learnt, held = split(load_pairs(spec), spec.held_out, recipe.run.seed)
    model = resolve_model(recipe.model.path)
    announce(f"model: {model}")
    codec = ChatCodec.load(model, spec.max_tokens)
    encoder = Encoder(spec, codec)
    learnt, held = (encoder.usable(pairs) for pairs in (learnt, held))
    announce(f"{len(learnt)} pairs to learn from, {len(held)} of other prompts to measure on")
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
        open_supervised_run(recipe, folder, cluster, RewardRank, settings, console=console) as fit,
    ):
        if fit.resumed is None:
            _measure(fit, held, encoder)
        while fit.step < steps and not interrupt.requested:
            drawn = pairs_of_step(fit.step + 1, spec.pairs_per_step, len(learnt), recipe.run.seed)
            tokens = [tokens for _, tokens in encoder.encode_all([learnt[place] for place in drawn])]
            fit.learn(pair_batch(tokens), _named, number=fit.step + 1, steps=steps)
            if fit.due or interrupt.requested or fit.step == steps:
                fit.save()
            if fit.step < steps and spec.measure_every and fit.step % spec.measure_every == 0:
                _measure(fit, held, encoder)
        if fit.step == steps:
            found = _measure(fit, held, encoder)
            fit.publish(folder.path / "model", {CALIBRATION: json.dumps(asdict(found), indent=1)})
        return fit.step == steps


def _named(total: RewardMetrics) -> dict[str, float]:
    return {
        "preference/loss": total.loss,
        "preference/accuracy": total.right / total.pairs,
        "preference/margin": total.margin / total.pairs,
    }


def _measure(fit: SupervisedRun[RewardMetrics], held: Sequence[Pair], encoder: Encoder) -> Measured:
    found = measure(fit.ranks, held, encoder)
    fit.tracker.log_eval({"step": fit.step, "set": "held_out", **asdict(found)})
    announce(f"step {fit.step}: {describe(found)}")
    return found


class Encoder:
    """Makes tokens of pairs; those that are too long fail or are left out, as the recipe says.

    A pair of texts is encoded once; one with images whenever it is used, because images take memory.
    """

    def __init__(self, spec: PreferenceSpec, codec: ChatCodec) -> None:
        self._spec = spec
        self._codec = codec
        self._texts: dict[str, TokenPair] = {}

    def usable(self, pairs: Sequence[Pair]) -> list[Pair]:
        """Pairs that are not known to be too long. Raises: DataError when none is left."""
        found = [pair for pair in pairs if pair.prompt.media or self.encode(pair) is not None]
        if not found:
            raise self._none_left()
        if len(found) < len(pairs):
            left_out = len(pairs) - len(found)
            announce(f"{left_out} of {len(pairs)} pairs are left out: longer than {self._spec.max_tokens} tokens")
        return found

    def encode_all(self, pairs: Sequence[Pair]) -> list[tuple[Pair, TokenPair]]:
        """The pairs with their tokens, without those that are too long. Raises: DataError when none is left."""
        found = [(pair, tokens) for pair in pairs if (tokens := self.encode(pair)) is not None]
        if not found:
            raise self._none_left()
        return found

    def _none_left(self) -> DataError:
        return DataError(f"no pair has preference.max_tokens={self._spec.max_tokens} tokens or less")

    def encode(self, pair: Pair) -> TokenPair | None:
        """The pair's tokens; None when it is too long and left out. Raises: DataError when that is not allowed."""
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


def measure(ranks: RankGroup[RewardMetrics], held: Sequence[Pair], encoder: Encoder) -> Measured:
    """Score held-out pairs and compare with what people preferred."""
    scores: list[tuple[float, float]] = []
    lengths: list[tuple[int, int]] = []
    questions: list[str] = []
    for first in range(0, len(held), PORTION):
        portion = encoder.encode_all(held[first : first + PORTION])
        scores += _scores(ranks, [tokens for _, tokens in portion])
        lengths += [(len(tokens.chosen_T), len(tokens.rejected_T)) for _, tokens in portion]
        questions += [pair.question for pair, _ in portion]
    return judge(np.array(scores), np.array(lengths), questions)


def _scores(ranks: RankGroup[RewardMetrics], pairs: Sequence[TokenPair]) -> list[tuple[float, float]]:
    scored: dict[int, tuple[float, float]] = {}
    for part in ranks.call_on_rows("score", pair_batch(pairs)):
        scored |= part
    return [scored[row] for row in range(len(pairs))]
