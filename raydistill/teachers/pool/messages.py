"""What students, supervisor and replicas tell each other. All of it pickles, none of it needs torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raydistill.config.models import Config, TeacherConfig
from raydistill.data.batch import ViewBatch

Event = tuple[float, str]
"""Seconds since the epoch, and one line."""


@dataclass(frozen=True, eq=False)
class PoolSpec:
    """All that a replica needs to come up anywhere in the cluster.

    Attributes:
        id: see `identity.pool_id`: equal for all runs that may share.
        teacher: its name in `config`.
        label_names: the task's, in head order.
        canary: what every replica answers before it serves.
        import_path: the driver's `sys.path`: a `python` teacher may lie beside its config.
        runtime_env: the driver's, as Ray knows it.
    """

    id: str
    teacher: str
    config: Config
    label_names: tuple[str, ...]
    canary: ViewBatch
    import_path: tuple[str, ...] = ()
    runtime_env: dict[str, Any] = field(default_factory=dict)

    @property
    def settings(self) -> TeacherConfig:
        """Placement, how many replicas, merging, time-outs."""
        return self.config.teachers[self.teacher]


@dataclass(frozen=True, eq=False)
class Loaded:
    """A replica that is ready.

    Attributes:
        description: `Teacher.describe` with pid, node and gpu_ids.
        canary: its answer to the spec's, float16 [batch, num_classes].
    """

    description: dict[str, Any]
    canary: NDArray[np.float16]


@dataclass(frozen=True)
class ReplicaStats:
    """A replica's sign of life.

    Attributes:
        rows: answered so far.
        requests: ended so far, with an answer or an error.
        busy_s: seconds that it computed.
        idle_s: seconds since it last had something to do; 0 while it computes.
    """

    pid: int
    rows: int
    requests: int
    busy_s: float
    idle_s: float


@dataclass(frozen=True)
class LeaseReport:
    """What a student says when it renews.

    Attributes:
        waiting: share of the time since the last report in which it stood still for this teacher, 0…1.
        queued_rows: asked and not yet answered.
    """

    waiting: float = 0.0
    queued_rows: int = 0


@dataclass(frozen=True)
class PoolView:
    """A pool as its students see it.

    Attributes:
        settled: False just after the supervisor's own restart, while it still looks for living replicas.
        replicas: (name, handle) of those that serve.
        ended: by name: requests that they are done with, whoever asked. One that grows does not hang.
        lost: names of the latest that are dead: what they still owe will never come.
        starting: replicas that load.
        unplaced: replicas that Ray has found no room for yet.
        asks: what one replica takes, for messages.
        description: of the teacher, once one is loaded.
        failure: why no replica comes up, in one line; nobody needs to wait.
        events: the latest.
        stopped: ended on purpose: do not join again.
        begin: share of the replicas after which this student begins where it owes all alike: each has its own part, so
            that those who do not know of each other do not meet.
    """

    settled: bool
    replicas: tuple[tuple[str, Any], ...]
    ended: dict[str, int]
    lost: tuple[str, ...]
    starting: int
    unplaced: int
    asks: str
    description: dict[str, Any] | None
    failure: str | None
    events: tuple[Event, ...]
    stopped: bool = False
    begin: float = 0.0


@dataclass(frozen=True)
class LeaseStatus:
    """For `raydistill teachers`: who holds a lease, for how long, renewed when, and how much it waits."""

    holder: str
    age_s: float
    silent_s: float
    waiting: float


@dataclass(frozen=True)
class PoolStatus:
    """A pool for `raydistill teachers`.

    Attributes:
        replicas: (name, state, process id or None).
        rows: served since the pool began; rows_per_s: of late.
    """

    id: str
    teacher: str
    fingerprint: str | None
    age_s: float
    replicas: tuple[tuple[str, str, int | None], ...]
    leases: tuple[LeaseStatus, ...]
    rows: int
    rows_per_s: float
    waiting: float
    failure: str | None
