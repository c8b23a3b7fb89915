"""What replicas and students export through Ray: scraped from `--metrics-export-port` as `ray_raydistill_…`."""

from __future__ import annotations

from functools import cache

from ray.util.metrics import Counter, Gauge, Histogram

# Seconds: from a small model's batch on a GPU to a large one's on a laptop.
LATENCIES_S = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0]
TAGS = ("teacher",)


# One object a process and name: Ray adds up what several would report in ways of its own.
@cache
def _counter(name: str, description: str) -> Counter:
    return Counter(name, description=description, tag_keys=TAGS)


@cache
def _gauge(name: str, description: str) -> Gauge:
    return Gauge(name, description=description, tag_keys=TAGS)


@cache
def _histogram(name: str, description: str) -> Histogram:
    return Histogram(name, description=description, boundaries=LATENCIES_S, tag_keys=TAGS)


class ReplicaMetrics:
    """Of one replica."""

    def __init__(self, teacher: str) -> None:
        self._tags = {"teacher": teacher}
        self._samples = _counter("raydistill_teacher_samples", "rows that teachers answered")
        self._latency = _histogram("raydistill_teacher_batch_seconds", "from a request's start to its answer")

    def answered(self, rows: int, seconds: float) -> None:
        """One request."""
        self._samples.inc(rows, self._tags)
        self._latency.observe(seconds, self._tags)


class StudentMetrics:
    """Of one student's dealings with one teacher."""

    def __init__(self, teacher: str) -> None:
        self._tags = {"teacher": teacher}
        self._waited = _counter("raydistill_student_wait_seconds", "that students stood still for a teacher")
        self._failovers = _counter("raydistill_failovers", "requests that another replica had to answer")
        self._hedges = _counter("raydistill_hedges", "requests sent to a second replica because the first was slow")
        self._queue = _gauge("raydistill_queued_rows", "rows that a student asked for and has no answer to yet")

    def waited(self, seconds: float) -> None:
        """For one answer."""
        if seconds > 0:
            self._waited.inc(seconds, self._tags)

    def failed_over(self) -> None:
        """One request."""
        self._failovers.inc(1, self._tags)

    def hedged(self) -> None:
        """One request."""
        self._hedges.inc(1, self._tags)

    def queued(self, rows: int) -> None:
        """As of now."""
        self._queue.set(rows, self._tags)
