"""A hidden taste: what the "people" of this world prefer among descriptions of a scene.

A reward model learns it from pairs; training never sees it. Evaluation may, as the reward `mini_taste`:
then it shows whether what the reward model pays for is what was wanted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from random import Random

from morl.rewards import reward
from morl.rewards.parsing.answer import final_text
from morl.rewards.reward import Example, Verdict
from morl_mini.draw import COLOURS, SHAPES
from morl_mini.scenes import Name, any_name

_CLAIM = re.compile(rf"\b({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})\b")
_POLITE = re.compile(r"\b(?:please|thank you|thanks|sure|with pleasure)\b")
_BRIEF, _LONG = 14, 40
"""Words up to which an answer is brief, and from which on it is not at all."""


def taste(text: str, things: Sequence[Sequence[str]]) -> float:
    """How much a description is liked, in [0, 1]: is it true first of all, then brief, then polite.

    Truth is the F1 of what it claims to see. A false text is not liked for its manners: they count as
    parts of its truth.
    """
    claims = _CLAIM.findall(text.lower())
    left = [tuple(thing) for thing in things]
    hits = 0
    for claim in claims:
        if claim in left:
            left.remove(claim)
            hits += 1
    truth = 2 * hits / (len(claims) + len(things)) if claims else 0.0
    words = len(re.findall(r"[a-z]+", text.lower()))
    brief = min(1.0, max(0.0, (_LONG - words) / (_LONG - _BRIEF)))
    polite = float(_POLITE.search(text.lower()) is not None)
    return truth * (0.6 + 0.2 * brief + 0.2 * polite)


def _ideal(gold: Sequence[Sequence[str]]) -> str:
    return describe([(colour, shape) for colour, shape in gold], "sure: {}.")


@reward(
    "mini_taste",
    examples=[
        Example("sure: a red star.", [["red", "star"]], 1.0),
        Example("<think>a red star?</think>a blue star.", [["red", "star"]], 0.0),
        Example("a red star.", [["red", "star"]], 0.8),
        Example("i see nothing, thank you.", [["red", "star"]], 0.0),
    ],
    answer=_ideal,
    runs="inline",
)
def mini_taste(response: str, gold: Sequence[Sequence[str]]) -> Verdict:
    """What the hidden taste says of a description; the gold is the scene, [colour, shape] each."""
    named = isinstance(gold, list | tuple) and gold and all(isinstance(x, list | tuple) and len(x) == 2 for x in gold)
    if not named:
        return Verdict(None, "bad_gold", "the gold must be a list of [colour, shape]")
    text = final_text(response)
    return Verdict(taste(text, gold), "ok" if text else "no_answer", text[:100])


POLITE = ("sure: {}.", "{}, thank you.", "with pleasure: {}.")
PLAIN = ("{}.", "i see {}.", "it is {}.")
_FILLERS = (
    "let me look at this picture for a while.",
    "there may be more, but i am not sure at all.",
    "i think that is all there is to say about it.",
    "this is a very nice picture and i like it a lot.",
)


def describe(names: Sequence[Name], form: str) -> str:
    """A sentence that names things: `a red star and a blue ring`."""
    said = [f"{'an' if colour == 'orange' else 'a'} {colour} {shape}" for colour, shape in names]
    listed = said[0] if len(said) == 1 else f"{', '.join(said[:-1])} and {said[-1]}"
    return form.format(listed)


def attempt(names: Sequence[Name], rng: Random) -> str:
    """An answer as a middling speaker may give it: something may be false, missing, rude or too long."""
    said = list(names)
    if rng.random() < 0.35:
        at = rng.randrange(len(said))
        colour, shape = any_name(rng)
        said[at] = rng.choice(((colour, said[at][1]), (said[at][0], shape)))
    if rng.random() < 0.25 and len(said) > 1:
        said.pop(rng.randrange(len(said)))
    elif rng.random() < 0.2:
        said.insert(rng.randrange(len(said) + 1), any_name(rng))
    text = describe(said, rng.choice(POLITE if rng.random() < 0.5 else PLAIN))
    fillers = rng.sample(_FILLERS, rng.choice((0, 0, 0, 1, 2)))
    return " ".join([text, *fillers] if rng.random() < 0.5 else [*fillers, text])


def pair(names: Sequence[Name], rng: Random) -> tuple[str, str]:
    """Two answers, the better liked first; they differ enough for a judge to see it."""
    while True:
        one, two = attempt(names, rng), attempt(names, rng)
        gap = taste(one, names) - taste(two, names)
        if abs(gap) >= 0.08:
            return (one, two) if gap > 0 else (two, one)
