"""The misbehaving rewards of `hostile.py` are a module here and in every worker."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from morl.rewards.pool.worker_pool import WorkerPool

sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="session")
def runner() -> Iterator[WorkerPool]:
    """Two workers that a call may not make grow by more than 256 MB."""
    with WorkerPool(workers=2, memory_mb=256) as made:
        yield made
