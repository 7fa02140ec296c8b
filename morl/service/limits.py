"""The limits of a service."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one request, and of all requests together."""

    request_bytes: int = 8 << 20
    """Largest body of a request."""
    items: int = 1024
    """Most items of a request."""
    timeout_s: float = 120.0
    """Seconds for a request to arrive, and again for its response."""

    @property
    def waiting_items(self) -> int:
        """Most items waiting for their scores, over all requests."""
        return 16 * self.items

    @property
    def held_bytes(self) -> int:
        """Most bytes of bodies in memory, over all requests."""
        return 32 * self.request_bytes
