"""State that a reward keeps for a whole run: a model, a connection, a running mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Resource:
    """Created once per term that uses the reward, with the term's options; passed to the reward as `resource`.

        class Judge(Resource):
            def __init__(self, *, url: str) -> None: ...

        @reward("judge", resource=Judge)
        async def judge(response: str, resource: Judge, *, url: str) -> float: ...

    Only for rewards that run on the event loop. Overriding any of these methods is optional.
    """

    def __init__(self, **options: Any) -> None:
        """Must be cheap, because `morl check` creates it too. Do slow work in `start`."""

    async def start(self) -> None:
        """Called once, before the first response is scored. Raises: MorlError when the reward cannot work."""

    def begin_step(self, step: int) -> None:
        """Called before the rollouts of each training step, counted from 1."""

    def state(self) -> Mapping[str, Any]:
        """The state for `restore`, as plain JSON; stored in every checkpoint."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a value of `state`."""

    def close(self) -> None:
        """Called at the end of the run, even if `start` was not."""
