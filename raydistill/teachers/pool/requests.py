"""A request on its way through a pool."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from raydistill.data.batch import ViewBatch
from raydistill.errors import TeacherGone
from raydistill.soft_labels.layers import NO_LAYERS, Layers
from raydistill.soft_labels.source import Answer


@dataclass(eq=False)
class Member:
    """A replica as one student sees it.

    Attributes:
        outstanding: rows that it still owes this student.
        heard: when it last answered this student; seconds of a steady clock.
        turn: among those that owe this student alike the least is asked.
        ended, got_on: requests that it was done with, this student's and others', and when that number last grew.
    """

    name: str
    handle: Any
    outstanding: int = 0
    heard: float = 0.0
    turn: int = 0
    ended: int = 0
    got_on: float = 0.0


@dataclass(eq=False)
class Attempt:
    """A request as it was sent to one replica."""

    request: Request
    member: Member
    reference: Any
    sent: float

    def stalled_s(self, now: float) -> float:
        """Seconds that the replica has had this request while nothing came of it, nor of what was before it."""
        return now - max(self.sent, self.member.heard)

    def hangs_s(self, now: float) -> float:
        """Seconds that the replica got nothing done, for other students neither: they may be first in its queue."""
        return now - max(self.sent, self.member.heard, self.member.got_on)


@dataclass(eq=False)
class Request:
    """What was asked, where it is now, and what it went through. It waits for itself: see `Pending`.

    Attributes:
        method: of the replica: `label` or `latency_ms`.
        layers: whose features are wanted, too.
        wait: returns once it is done.
        attempts: under way; two when hedged, none while there is no replica.
        deaths, timeouts: of replicas that had it.
        waited_s: that its student stood still for it.
    """

    method: str
    views: ViewBatch
    wait: Callable[[Request], None]
    layers: Layers = NO_LAYERS
    attempts: list[Attempt] = field(default_factory=list)
    failovers: int = 0
    hedges: int = 0
    deaths: int = 0
    timeouts: int = 0
    waited_s: float = 0.0
    done: bool = False
    value: Any = None
    error: Exception | None = None

    def finish(self) -> Any:
        """Wait for the replica's reply.

        Raises:
            TeacherGone: no replica is left, and none came in time; or one after the other failed at it.
            TeacherError: the teacher refuses the request.
        """
        if not self.done:
            self.wait(self)
        if self.error is not None:
            if isinstance(self.error, TeacherGone):
                self.error.failovers = self.failovers
            raise self.error
        return self.value

    def result(self) -> Answer:
        """See `Pending.result`."""
        logits, busy_s, features = self.finish()
        gap_s = self.waited_s if self.failovers or self.hedges else 0.0
        return Answer(logits, busy_s, self.failovers, self.hedges, gap_s, features)
