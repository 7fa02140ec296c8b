"""Weight sync through files: the learner writes a checkpoint folder, the engines load it."""

from __future__ import annotations

import hashlib
import shutil
import time
from pathlib import Path
from typing import Protocol

from morl.errors import StaleWeightsError

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  a file system in memory, where there is one


class Publisher(Protocol):
    """What the sync needs of the learner."""

    policy_version: int

    def publish(self, folder: Path) -> None: ...  # noqa: D102

    def publish_adapter(self, folder: Path) -> None: ...  # noqa: D102


class Subscriber(Protocol):
    """What the sync needs of the engines."""

    async def load_weights(self, folder: str) -> int: ...  # noqa: D102


class DiskSync:
    """Publishes each policy version as a folder below `root` and removes the previous one.

    The latest folder stays, so that a restarted engine can load it. With `adapter` it holds
    only the LoRA adapter, else the whole model.
    """

    def __init__(self, root: Path, *, adapter: bool = False) -> None:
        self.root = root
        self.adapter = adapter
        shutil.rmtree(root, ignore_errors=True)  # what a killed run left behind
        root.mkdir(parents=True)

    async def publish(self, learner: Publisher, engines: Subscriber) -> float:
        """Bring the engines to the learner's version; returns the seconds that it took.

        Raises: StaleWeightsError when an engine then reports another version.
        """
        began = time.perf_counter()
        version = learner.policy_version
        folder = self.root / f"v{version:06d}"
        if self.adapter:
            learner.publish_adapter(folder)
        else:
            learner.publish(folder)
        served = await engines.load_weights(str(folder))
        if served != version:
            raise StaleWeightsError(
                f"after a weight sync an engine serves policy version {served}, the learner is at {version}; "
                f"check that all nodes share '{self.root}' (sync.folder)"
            )
        for old in self.root.iterdir():
            if old != folder:
                shutil.rmtree(old, ignore_errors=True)
        return time.perf_counter() - began

    def close(self) -> None:
        """Remove the published weights."""
        shutil.rmtree(self.root, ignore_errors=True)


def sync_folder(folder: str | None, run: Path, need: int = 0) -> Path:
    """The run's sync folder: below `folder`, else in shared memory, else below the run if memory is too small.

    Args:
        folder: the recipe's `sync.folder`.
        run: the run's folder.
        need: bytes that must fit.
    """
    name = f"morl-{run.name}-{hashlib.sha256(str(run.resolve()).encode()).hexdigest()[:12]}"
    if folder is not None:
        return Path(folder) / name
    # A container has 64 MB of shared memory by default.
    roomy = SHARED_MEMORY.is_dir() and shutil.disk_usage(SHARED_MEMORY).free >= need
    return SHARED_MEMORY / name if roomy else run / "sync"
