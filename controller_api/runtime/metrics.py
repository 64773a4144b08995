"""What `/metrics` shows, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.types import Message, Send

from services.federation import Entry

METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE", "PATCH", "OPTIONS")
SCORES = 50  # combined metrics that are shown: learners name them
SECONDS = (0.001, 0.01, 0.1, 0.5, 1, 5, 10, 60, 300, 1800, 3600)


class Metrics:
    """Counters of one controller, in a registry of their own."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "metis_http_requests", "Answers by route and status", ["method", "route", "status"], registry=self.registry
        )
        self._requests = cache(self.requests.labels)  # to find a label's counter costs more than to count
        self.bytes = Counter("metis_weights_bytes", "Bytes of weights moved", ["direction"], registry=self.registry)
        self.results = Counter("metis_results", "Results of tasks taken", ["kind"], registry=self.registry)
        self.failures = Counter("metis_task_failures", "Tasks that learners could not do", registry=self.registry)
        self.rounds = Counter("metis_rounds", "Rounds closed", registry=self.registry)
        self.learners = Gauge("metis_learners", "Learners by state", ["state"], registry=self.registry)
        self.round = Gauge("metis_round", "Round of the active run", registry=self.registry)
        self.score = Gauge(
            "metis_evaluation", "Combined metric of the newest round", ["metric"], registry=self.registry
        )
        self.aggregation = Histogram(
            "metis_aggregation_seconds", "Time of an aggregation", buckets=SECONDS, registry=self.registry
        )
        self.round_seconds = Histogram(
            "metis_round_seconds", "Federation round, evaluation included", buckets=SECONDS, registry=self.registry
        )
        self.stalled = Counter(
            "metis_stalled_seconds", "Time in which the controller stood still", registry=self.registry
        )

    def counting(self, method: str, route: str, send: Send) -> Send:
        """`send` that counts the answer."""

        def counted(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                self._requests(method if method in METHODS else "other", route, message["status"]).inc()
            return send(message)

        return counted

    def note(self, event: Entry) -> None:
        """Take an event of the federation into account."""
        if event.kind == "update-accepted":
            self.results.labels(event.data["task_kind"]).inc()
        elif event.kind == "task-failed":
            self.failures.inc()
        elif event.kind == "round-started":
            self.round.set(event.round or 0)
        elif event.kind == "round-closed":
            self.rounds.inc()
            spent = event.data["timings_ms"]["federation_round"]
            if spent is not None:
                self.round_seconds.observe(spent / 1000)
            self.score.clear()  # a name of earlier rounds is a series that never ends
            combined = event.data["evaluation_metrics"]["combined"]
            for name in [name for name, value in combined.items() if value is not None][:SCORES]:
                self.score.labels(name[:64]).set(combined[name])

    def text(self, states: Iterable[str]) -> bytes:
        """The page; `states` are those of the learners."""
        counts = {"active": 0, "lost": 0}
        for state in states:
            counts[state] += 1
        for state, count in counts.items():
            self.learners.labels(state).set(count)
        return generate_latest(self.registry)
