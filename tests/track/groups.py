"""Groups of scored samples for the tests of tracking."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from morl.types import Encoded, Group, Prompt, Sample, Score, TermScore


def make_group(
    objective: str,
    values: Sequence[float | None],
    *,
    lengths: Sequence[int] | None = None,
    cut: Sequence[bool] | None = None,
    terms: Sequence[dict[str, TermScore]] | None = None,
    **prompt: Any,
) -> Group:
    """A group with these rewards; each sample has 3 tokens unless `lengths` says otherwise."""
    n = len(values)
    lengths = lengths or [3] * n
    cut = cut or [False] * n
    terms = terms or [{} for _ in range(n)]
    samples = tuple(
        Sample(
            f"{objective}/0",
            i,
            tuple(range(length)),
            (1,) * length,
            (-0.1234567890123456,) * length,
            4,
            "length" if cut[i] else "stop",
            f"answer {i} ✓\u2028",
        )
        for i, length in enumerate(lengths)
    )
    scores = tuple(Score(value, term) for value, term in zip(values, terms, strict=True))
    question = {"messages": ({"role": "user", "content": "2+2?"},), "gold": "4", **prompt}
    return Group(Prompt(f"{objective}/0", objective, **question), Encoded((1, 2)), samples, scores)
