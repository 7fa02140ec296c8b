"""Sampling of prompts: objectives by their shares, rows shuffled each epoch."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from morl.data.prompt_set import PromptSet
from morl.errors import CheckpointError, DataError, UsageError
from morl.types import Prompt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Mixture:
    """An endless stream of prompts of several objectives.

    The next prompt is of the objective that lags most behind its share of the prompts so far,
    so that shares always hold to within a few prompts, however the stream is split into draws.
    The rows of an objective are reshuffled each epoch, and each row comes once per epoch; an
    unusable row, with bad images or too long, is skipped for the next one.
    The stream depends only on the seed and the state: how many rows of each objective were drawn
    and skipped. Shares changed on resume apply from there on, without making up for earlier draws.
    """

    def __init__(self, sets: Mapping[str, PromptSet], shares: Mapping[str, float], seed: int) -> None:
        if not sets or set(sets) != set(shares):
            raise UsageError(f"a mixture needs one share for each set: {sorted(sets)} and {sorted(shares)} differ")
        total = sum(shares.values())
        self._sets = dict(sets)
        self._shares = {name: shares[name] / total for name in sets}
        self._seed = seed
        self._drawn = dict.fromkeys(sets, 0)
        self._passed_over = dict.fromkeys(sets, 0)
        self._before = dict.fromkeys(sets, 0)
        """The part of `_drawn` that was drawn under earlier shares."""
        self._orders: dict[str, tuple[int, NDArray[np.int64]]] = {}

    def draw(self, n: int) -> list[Prompt]:
        """The next n prompts. Raises: DataError when a row cannot become a prompt."""
        return [self._next() for _ in range(n)]

    def _next(self) -> Prompt:
        counts = {name: drawn - self._before[name] for name, drawn in self._drawn.items()}
        total = sum(counts.values()) + 1
        name = max(self._sets, key=lambda name: self._shares[name] * total - counts[name])
        prompts = self._sets[name]
        for _ in range(len(prompts)):
            epoch, position = divmod(self._drawn[name] + self._passed_over[name], len(prompts))
            prompt = prompts.usable(int(self._order(name, epoch)[position]))
            if prompt is not None:
                self._drawn[name] += 1
                return prompt
            self._passed_over[name] += 1
        raise DataError(
            f"'{name}': none of its {len(prompts)} rows can be used: their images or videos are bad, or their "
            "prompts are too long"
        )

    @property
    def passed_over(self) -> dict[str, int]:
        """Rows skipped so far, by objective; 0 is left out."""
        return {name: count for name, count in self._passed_over.items() if count}

    def _order(self, name: str, epoch: int) -> NDArray[np.int64]:
        """The order of an objective's rows in an epoch; only the current one is cached."""
        import numpy as np

        cached = self._orders.get(name)
        if cached is not None and cached[0] == epoch:
            return cached[1]
        digest = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        order = np.random.default_rng([self._seed, digest, epoch]).permutation(len(self._sets[name]))
        self._orders[name] = epoch, order
        return order

    def state(self) -> dict[str, Any]:
        """The state for `restore`, as JSON values."""
        rows = {name: len(rows) for name, rows in self._sets.items()}
        before = {name: count for name, count in self._before.items() if count}
        return {
            "drawn": dict(self._drawn),
            "passed_over": self.passed_over,
            "rows": rows,
            "shares": dict(self._shares),
            "before": before,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state`.

        Raises: CheckpointError when the objectives or their numbers of rows have changed.
        """
        rows = {name: len(rows) for name, rows in self._sets.items()}
        if state["rows"] != rows:
            raise CheckpointError(
                f"the checkpoint was made with other data: rows {state['rows']} then, {rows} now; "
                "restore the data, or start a new run"
            )
        self._drawn = {name: int(state["drawn"][name]) for name in self._sets}
        self._passed_over = {name: int(state["passed_over"].get(name, 0)) for name in self._sets}
        changed = state.get("shares", self._shares) != self._shares
        before = self._drawn if changed else state.get("before", {})
        self._before = {name: int(before.get(name, 0)) for name in self._sets}


__all__ = ["Mixture"]
