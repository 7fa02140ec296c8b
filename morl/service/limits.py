"""What a service takes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What one request, and all of them together, may ask for."""

    request_bytes: int = 8 << 20
    """Size of a request's body."""
    items: int = 1024
    """Items of a request."""
    timeout_s: float = 120.0
    """Seconds for a request to arrive, and as many again for its answer."""

    @property
    def waiting_items(self) -> int:
        """Items of all requests that wait for their scores."""
        return 16 * self.items

    @property
    def held_bytes(self) -> int:
        """Bodies of all requests that are read or answered."""
        return 32 * self.request_bytes
