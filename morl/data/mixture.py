"""Which prompts come next: objectives by their shares, rows by a shuffle an epoch."""

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

    The next prompt is of the objective that lags most behind its share of all prompts so far,
    so that shares hold at any time to within a few prompts, however the stream is cut into
    draws. An objective's rows come in an order shuffled anew each epoch, each once an epoch;
    a row that is not usable, for its bad images or its length, is passed over, and the next one takes its place.
    All follows from the seed and from how many rows each objective has given and passed over: the state. Shares that
    a resumed run has changed hold from there on, and make up for nothing that was drawn before.
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
        """Of `_drawn`, what was drawn under other shares."""
        self._orders: dict[str, tuple[int, NDArray[np.int64]]] = {}

    def draw(self, n: int) -> list[Prompt]:
        """The next n prompts. Raises: DataError when a row cannot be made into a prompt."""
        return [self._next() for _ in range(n)]

    def _next(self) -> Prompt:
        given = {name: drawn - self._before[name] for name, drawn in self._drawn.items()}
        total = sum(given.values()) + 1
        name = max(self._sets, key=lambda name: self._shares[name] * total - given[name])
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
            "prompts too long"
        )

    @property
    def passed_over(self) -> dict[str, int]:
        """How often a row of each objective was passed over; 0 is left out."""
        return {name: count for name, count in self._passed_over.items() if count}

    def _order(self, name: str, epoch: int) -> NDArray[np.int64]:
        """The rows of an objective in the order of an epoch; only the current one is kept."""
        import numpy as np

        known = self._orders.get(name)
        if known is not None and known[0] == epoch:
            return known[1]
        digest = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        order = np.random.default_rng([self._seed, digest, epoch]).permutation(len(self._sets[name]))
        self._orders[name] = epoch, order
        return order

    def state(self) -> dict[str, Any]:
        """Everything that `restore` needs, as JSON."""
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
        """Go on from where `state` was taken.

        Raises: CheckpointError when the objectives or their numbers of rows have changed since.
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
