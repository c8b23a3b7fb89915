"""A student's side of the pools: asks, and answers for every failure. One in each worker, one in the driver."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from raydistill.data.batch import ViewBatch
from raydistill.soft_labels.layers import NO_LAYERS, Layers
from raydistill.teachers.pool.link import Link
from raydistill.teachers.pool.membership import Membership
from raydistill.teachers.pool.messages import Event, PoolSpec, PoolView
from raydistill.teachers.pool.requests import Request


class PoolClient:
    """A `Labeller` for the teachers of a run. Thread-safe.

    It connects with the first request, in whichever process that is; sent to another process it begins anew there.

    Args:
        specs: by the run's names of its teachers.
    """

    way = "remote"

    def __init__(self, specs: Mapping[str, PoolSpec]) -> None:
        self.specs = dict(specs)
        self._lock = threading.Lock()
        self._links: dict[str, Link] = {}
        self._membership: Membership | None = None
        self._events: dict[Event, bool] = {}  # and whether it was told
        self._began = time.time()

    def __reduce__(self) -> tuple[Callable[..., PoolClient], tuple[dict[str, PoolSpec]]]:
        return PoolClient, (self.specs,)

    def connect(self) -> None:
        """Join the pools, without waiting for a replica. The first request does it too."""
        with self._lock:
            if self._membership is not None or not self.specs:
                return
            for name, spec in self.specs.items():
                self._links[name] = Link(spec, _patience_s(spec), self._record, self._suspecter(spec))
            config = next(iter(self.specs.values())).config
            self._membership = Membership(
                self._links.values(), config.name, config.ray.lease_s, self._record, self._hear
            )

    def ask(self, teacher: str, views: ViewBatch, layers: Layers = NO_LAYERS) -> Request:
        """See `Labeller.ask`: to the replica that owes the fewest rows."""
        return self._ask(teacher, "label", views, layers)

    def latency_ms(self, teacher: str, views: ViewBatch) -> float:
        """Milliseconds a row of the teacher alone, without the way there and back.

        Raises:
            TeacherError: see `Pending.result`.
        """
        latency: float = self._ask(teacher, "latency_ms", views).finish()
        return latency

    def link(self, teacher: str) -> Link:
        """The way to one teacher's replicas, connected."""
        self.connect()
        return self._links[teacher]

    def events(self) -> list[Event]:
        """See `Labeller.events`. What the supervisor did is told alike by all clients of a pool."""
        with self._lock:
            new = sorted(event for event, told in self._events.items() if not told)
            self._events.update(dict.fromkeys(new, True))
            return new

    def close(self) -> None:
        """Leave the pools; who still waits for an answer gets a `TeacherGone`. See `Labeller.close`."""
        for link in list(self._links.values()):
            link.close()
        if self._membership is not None:
            self._membership.close()

    def _ask(self, teacher: str, method: str, views: ViewBatch, layers: Layers = NO_LAYERS) -> Request:
        if self._membership is None:
            self.connect()
        return self._links[teacher].ask(method, views, layers)

    def _suspecter(self, spec: PoolSpec) -> Callable[[str, bool], None]:
        def suspect(replica: str, hung: bool) -> None:
            if self._membership is not None:
                self._membership.suspect(spec.id, replica, spec.settings.timeout_s if hung else None)

        return suspect

    def _record(self, what: str) -> None:
        with self._lock:
            self._events[(time.time(), what)] = False

    def _hear(self, view: PoolView) -> None:
        with self._lock:
            for event in view.events:
                if event[0] >= self._began:
                    self._events.setdefault(event, False)


def _patience_s(spec: PoolSpec) -> float:
    """How long a request waits while there is no replica, before its teacher counts as gone."""
    rules = spec.config.distill
    longer_s = rules.teacher_loss_wait_s if rules.on_teacher_loss == "wait" else 0.0
    return rules.teacher_loss_after_s + longer_s
