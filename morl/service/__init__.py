"""The rewards of a recipe as an HTTP service: what `morl serve` runs.

client ─► guard (token, size) ─► app (JSON, validation) ─► router ─► replicas, one deployment per reward
                                                             └─ combines the terms' scores as in a run
"""

from __future__ import annotations

from morl.service.limits import Limits
from morl.service.server import Address, serve, to_replicas

__all__ = [
    "Address",
    "Limits",
    "serve",
    "to_replicas",
]
