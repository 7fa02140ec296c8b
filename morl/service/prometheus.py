"""Counters of the service, as Prometheus reads them.

All of them are kept where HTTP is spoken, which is one process: nothing needs adding up.
"""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from morl.types import Score

PATHS = ("/score", "/rewards", "/healthz", "/metrics", "/openapi.json")
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """Counters of one service."""

    def __init__(self, objectives: Iterable[str]) -> None:
        # A second series for each counter, which nobody reads.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry = CollectorRegistry()
        self._requests = Counter("morl_requests", "Requests.", ["path", "status"], registry=registry)
        self._seconds = Histogram(
            "morl_request_seconds",
            "Time from a request's head to its answer.",
            ["path"],
            buckets=SECONDS,
            registry=registry,
        )
        self._items = Counter("morl_items", "Items scored.", ["objective"], registry=registry)
        self._no_score = Counter("morl_no_score", "Items that got no score.", ["objective"], registry=registry)
        self._failures = Counter(
            "morl_term_failures", "Terms that gave no value.", ["objective", "term", "status"], registry=registry
        )
        self.retries = Counter(
            "morl_replica_retries", "Calls sent again because a replica was lost.", ["reward"], registry=registry
        )
        self.waiting = Gauge("morl_waiting_items", "Items that wait for their scores.", registry=registry)
        for objective in objectives:
            # What has not happened yet is 0, not absent: a rate starts with it.
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
        """In Prometheus' text format."""
        return generate_latest(self._registry)
