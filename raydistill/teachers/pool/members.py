"""What the supervisor knows of one replica."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from raydistill.teachers.pool.messages import ReplicaStats

PING_EVERY_S = 1.0
# A loaded machine keeps a process from its own threads for seconds; a stopped one for ever.
SILENT_S, SILENT_WHILE_LOADING_S = 10.0, 60.0
LOADING_MOST_S = 1_800.0
SMOOTHING = 0.5


@dataclass
class Replica:
    """A replica and the questions that are under way to it.

    `starting`: Ray has not placed it; `loading`: its process is up; `draining`: it ends what students asked of it.

    Attributes:
        began, heard: when it was started, and last gave a sign of life.
        described, load, ping: references of calls without an answer yet.
        busy: share of the time that it computed of late, 0…1.
    """

    name: str
    handle: Any
    began: float
    state: Literal["starting", "loading", "serving", "draining"] = "starting"
    described: Any = None
    load: Any = None
    ping: Any = None
    next_ping: float = 0.0
    asked: float = 0.0
    heard: float = 0.0
    drained: float = 0.0
    stats: ReplicaStats | None = None
    busy: float = 0.0
    rows_per_s: float = 0.0

    def __post_init__(self) -> None:
        self.heard = self.began

    def pinged(self, reference: Any, now: float) -> None:
        """A ping was sent."""
        self.ping, self.asked = reference, now

    def answered(self, stats: ReplicaStats, now: float) -> int:
        """It answered the ping; returns the rows that it served since the last time."""
        new_rows = stats.rows
        if self.stats is not None:  # the first may tell of a time before this supervisor
            passed_s = max(1e-6, now - self.heard)
            new_rows -= self.stats.rows
            self.busy += SMOOTHING * (min(1.0, max(0.0, stats.busy_s - self.stats.busy_s) / passed_s) - self.busy)
            self.rows_per_s += SMOOTHING * (new_rows / passed_s - self.rows_per_s)
        self.stats, self.heard, self.ping, self.next_ping = stats, now, None, now + PING_EVERY_S
        if self.state == "starting":
            self.state = "loading"
        return new_rows

    def silent_s(self, now: float) -> float:
        """Seconds that the last question to it is without an answer."""
        return now - self.asked if self.ping is not None else 0.0

    def patience_s(self, timeout_s: float) -> float:
        """How long it may be silent. What Ray has not placed may wait for ever."""
        if self.state == "starting" and self.stats is None and self.described is None:
            return float("inf")
        return SILENT_WHILE_LOADING_S if self.state == "loading" else min(SILENT_S, max(1.0, timeout_s))

    def loads_for_ever(self, now: float) -> bool:
        """It answers pings, and what it loads never comes."""
        return self.state == "loading" and now - self.began > LOADING_MOST_S

    @property
    def is_idle(self) -> bool:
        """Nobody has asked it for a while."""
        return self.stats is not None and self.stats.idle_s > 3.0
