"""Metrics of the service for Prometheus.

The one process that serves HTTP keeps them all, so that no sums over processes are needed.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from morl.types import Score

PATHS = ("/score", "/rewards", "/healthz", "/metrics", "/openapi.json")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """The metrics of one service."""

    def __init__(self, objectives: Iterable[str]) -> None:
        # Omits the `_created` series of each counter.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry = CollectorRegistry()
        self._requests = Counter("morl_requests", "Requests.", ["path", "status"], registry=registry)
        self._seconds = Histogram(
            "morl_request_seconds",
            "Time from a request's head to its response.",
            ["path"],
            buckets=SECONDS,
            registry=registry,
        )
        self._items = Counter("morl_items", "Items scored.", ["objective"], registry=registry)
        self._no_score = Counter("morl_no_score", "Items without a score.", ["objective"], registry=registry)
        self._failures = Counter(
            "morl_term_failures", "Terms without a value.", ["objective", "term", "status"], registry=registry
        )
        self.retries = Counter(
            "morl_replica_retries", "Calls retried because a replica was lost.", ["reward"], registry=registry
        )
        self.waiting = Gauge("morl_waiting_items", "Items waiting for their scores.", registry=registry)
        for objective in objectives:
            # Start at 0 rather than absent, so that rates have a first value.
            self._items.labels(objective)
            self._no_score.labels(objective)

    def answered(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        path = path if path in PATHS else "other"
        self._requests.labels(path, str(status)).inc()
        self._seconds.labels(path).observe(seconds)

    def scored(self, objective: str, score: Score) -> None:
        """Count an item."""
        self._items.labels(objective).inc()
        if score.value is None:
            self._no_score.labels(objective).inc()
        for name, term in score.terms.items():
            if term.value is None:
                self._failures.labels(objective, name, term.status).inc()

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)
