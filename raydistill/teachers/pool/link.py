"""How a student waits for a teacher: never without bound, and never for one replica alone."""

from __future__ import annotations

import time
from collections.abc import Callable

import ray

from raydistill.data.batch import ViewBatch
from raydistill.errors import TeacherGone
from raydistill.soft_labels.layers import NO_LAYERS, Layers
from raydistill.teachers.pool.messages import LeaseReport, PoolSpec
from raydistill.teachers.pool.names import short
from raydistill.teachers.pool.requests import Attempt, Member, Request
from raydistill.teachers.pool.sending import Sender
from raydistill.teachers.pool.waiting import StandStill
from raydistill.teachers.pool.words import no_replica, no_reply

POLL_S = 0.1
MAX_TIMEOUTS = 2
SEEN_S = 1e-3  # an answer that was waited for longer than this was not there before


class Link(Sender):
    """A student's way to one teacher. Thread-safe.

    Args:
        patience_s: how long a request waits while there is no replica.
        record, suspect: see `Sender`.
    """

    def __init__(
        self, spec: PoolSpec, patience_s: float, record: Callable[[str], None], suspect: Callable[[str, bool], None]
    ) -> None:
        super().__init__(spec, record, suspect)
        self._patience_s, self._still = patience_s, StandStill()
        self._slow: set[str] = set()
        self._gone = False

    def ask(self, method: str, views: ViewBatch, layers: Layers = NO_LAYERS) -> Request:
        """Hand in a request; returns at once."""
        request = Request(method, views, self._wait, layers)
        with self._changed:
            if len(self._members) > 1:
                self._notice_answers()
            self._send(request)
        return request

    def report(self) -> LeaseReport:
        """How its student gets on, since the last report."""
        with self._changed:
            self._notice_answers()
            self._lose_who_hangs()
            queued_rows = sum(len(attempt.request.views) for attempt in self._under_way)
            queued_rows += sum(len(request.views) for request in self._unsent)
        waited_s, share = self._still.tell()
        self._metrics.waited(waited_s)
        self._metrics.queued(queued_rows)
        return LeaseReport(share, queued_rows)

    def _wait(self, request: Request) -> None:
        """Until it is done."""
        with self._still.standing() as began:
            while not request.done:
                attempts = list(request.attempts)
                if not attempts:
                    self._wait_for_a_replica(request)
                elif not self._receive(attempts):
                    self._lose_patience(request)
            request.waited_s = time.monotonic() - began

    def _receive(self, attempts: list[Attempt]) -> bool:
        """Wait a moment for an answer; whether anything came."""
        began = time.monotonic()
        ready, _ = ray.wait([attempt.reference for attempt in attempts], num_returns=1, timeout=POLL_S)
        for attempt in attempts:
            if attempt.reference in ready:
                self._take(attempt, saw_it_come=time.monotonic() - began > SEEN_S)
        return bool(ready)

    def _wait_for_a_replica(self, request: Request) -> None:
        with self._changed:
            if request.attempts or request.done:
                return
            self._count_members()
            if self._none_since is None:
                self._gone = False
                self._send(request)
                return
            missing_s = time.monotonic() - self._none_since
            why = self.view.failure if self.view else None
            if why is None and missing_s > self._patience_s:
                why = f"{no_replica(self.spec, self.view, missing_s)}; see distill.on_teacher_loss"
            if why is None:
                self._changed.wait(POLL_S)
                return
            if not self._gone:
                self._gone = True
                self._record(f"gone: {why.removeprefix(f'teacher {self.spec.teacher!r}: ')}")
            self._end(request, error=TeacherGone(why))

    def _lose_patience(self, request: Request) -> None:
        with self._changed:
            self._notice_answers()
            self._lose_who_hangs()
            now, hedge_s = time.monotonic(), self._usual.hedge_s
            if hedge_s is not None and len(request.attempts) == 1 and request.attempts[0].stalled_s(now) > hedge_s:
                self._hedge(request, request.attempts[0].member, now, hedge_s)

    def _lose_who_hangs(self) -> None:
        """Replicas that owe an answer for too long, even where another one has given it by now."""
        now, timeout_s = time.monotonic(), self.spec.settings.timeout_s
        for attempt in list(self._under_way):
            # The first that one owes is what it hangs at; with it go all others.
            if attempt in self._under_way and attempt.hangs_s(now) > timeout_s:
                request = attempt.request
                request.timeouts += 1
                if request.timeouts >= MAX_TIMEOUTS:
                    self._end(request, error=TeacherGone(no_reply(self.spec, request.timeouts)))
                self.lose(attempt.member.name, f"no answer within {timeout_s:g} s", for_good=True, hung=True)

    def _hedge(self, request: Request, slow: Member, now: float, hedge_s: float) -> None:
        """Ask a second one, if there is one that gets on better."""
        others = [
            member
            for member in self._members.values()
            if member is not slow and (member.outstanding == 0 or now - member.heard < hedge_s)
        ]
        if not others:
            return
        request.hedges += 1
        self._metrics.hedged()
        if slow.name not in self._slow:
            self._slow.add(slow.name)
            self._record(f"replica {short(slow.name)} is slow; another one was asked after {hedge_s:.1f} s")
        self._send_to(min(others, key=lambda each: (each.outstanding, each.turn)), request)
