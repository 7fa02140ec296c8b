"""What a reward keeps for the length of a run: a model, a connection, a running mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Resource:
    """Made once for each term that uses the reward, with the term's options; the reward gets it as `resource`.

        class Judge(Resource):
            def __init__(self, *, url: str) -> None: ...

        @reward("judge", resource=Judge)
        async def judge(response: str, resource: Judge, *, url: str) -> float: ...

    Only for rewards that run on the event loop. Every method here may be left as it is.
    """

    def __init__(self, **options: Any) -> None:
        """Cheap: a recipe that is only checked makes it, too. `start` is for what takes time."""

    async def start(self) -> None:
        """Called once, before the first answer is scored. Raises: MorlError when the reward cannot work."""

    def begin_step(self, step: int) -> None:
        """Called before the rollouts of each training step, counted from 1."""

    def state(self) -> Mapping[str, Any]:
        """What `restore` needs to go on from here, as plain JSON; part of every checkpoint."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""

    def close(self) -> None:
        """Called at the end of the run, started or not."""
