"""One student and one teacher's replicas: which of them gets a request, and which gets it next when that one fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import ray
from ray.exceptions import ActorUnavailableError, GetTimeoutError, ObjectLostError, RayError, RayTaskError

from raydistill.errors import TeacherGone
from raydistill.teachers.pool.launcher import death
from raydistill.teachers.pool.messages import PoolSpec, PoolView
from raydistill.teachers.pool.metrics import StudentMetrics
from raydistill.teachers.pool.names import short
from raydistill.teachers.pool.requests import Attempt, Member, Request
from raydistill.teachers.pool.waiting import UsualAnswer
from raydistill.teachers.pool.words import deadly, refusal

# A request that ends one replica after the other is not answered by yet another one.
MAX_DEATHS = 8


class Sender:
    """Sends to the replica that owes the fewest rows; whatever a lost one owed, it sends again at once, in order.

    Args:
        record: hears of what goes wrong, a line each.
        suspect: hears (replica, whether it hangs) of those that fail.
    """

    def __init__(self, spec: PoolSpec, record: Callable[[str], None], suspect: Callable[[str, bool], None]) -> None:
        self.spec = spec
        self.view: PoolView | None = None
        self._record_line, self._suspect = record, suspect
        self._changed = threading.Condition(threading.RLock())
        self._members: dict[str, Member] = {}
        self._under_way: dict[Attempt, None] = {}
        self._unsent: dict[Request, None] = {}
        self._dead: dict[str, bool] = {}  # whether it hung
        self._none_since: float | None = time.monotonic()
        self._closed = False
        self._usual = UsualAnswer(spec.settings.hedge_s)
        self._metrics = StudentMetrics(spec.teacher)

    @property
    def num_serving(self) -> int:
        """Replicas that this student can ask."""
        return len(self._members)

    def update(self, view: PoolView) -> None:
        """Take the supervisor's word on who serves."""
        for name in view.lost:
            if name not in self._dead:
                self.lose(name, "the supervisor ended it", for_good=True, tell=False)
        with self._changed:
            self.view = view
            serving = dict(view.replicas)
            # A supervisor that has just come back does not know all that live: nobody is dropped on its word.
            if view.settled:
                self._members = {name: each for name, each in self._members.items() if name in serving}
            for name, handle in serving.items():
                if name in self._dead:
                    self._suspect(name, self._dead[name])  # the supervisor did not hear, or is a new one
                elif name not in self._members:
                    self._members[name] = Member(name, handle)
            first = round(view.begin * len(serving))
            for place, name in enumerate(serving):
                if name in self._members:
                    self._members[name].turn = (place - first) % len(serving)
            self._watch(view.ended)
            self._count_members()
            for request in list(self._unsent):
                self._send(request)
            self._changed.notify_all()

    def close(self) -> None:
        """Nobody waits for an answer any more, nor will: whoever does is told."""
        with self._changed:
            self._closed = True
            for request in [attempt.request for attempt in self._under_way] + list(self._unsent):
                self._end(request, error=self._left())
            self._changed.notify_all()

    def _left(self) -> TeacherGone:
        return TeacherGone(f"teacher {self.spec.teacher!r}: this run has left its pool")

    def lose(self, name: str, why: str, for_good: bool, hung: bool = False, tell: bool = True) -> None:
        """Ask a replica no more."""
        with self._changed:
            if for_good:
                self._dead[name] = hung
            known = self._members.pop(name, None)
            owed = [attempt for attempt in self._under_way if attempt.member.name == name]
            if tell and (known or owed):
                self._suspect(name, hung)
            again = []
            for attempt in owed:
                request = self._settle(attempt)
                request.deaths += for_good and not hung
                if not request.done and not request.attempts:
                    again.append(request)
            if again:
                requests = "a request goes" if len(again) == 1 else f"{len(again)} requests go"
                self._record(f"replica {short(name)}: {why}; {requests} to another one")
            self._count_members()
            for request in again:
                self._send_again(request)
            self._changed.notify_all()

    def _watch(self, ended: dict[str, int]) -> None:
        """Who gets on with what it was asked, by whomever."""
        for name, member in self._members.items():
            if ended.get(name, 0) != member.ended:
                member.ended, member.got_on = ended.get(name, 0), time.monotonic()

    def _send(self, request: Request) -> None:
        if self._closed:
            self._end(request, error=self._left())
            return
        if not self._members:
            self._unsent[request] = None
            return
        self._send_to(min(self._members.values(), key=lambda each: (each.outstanding, each.turn)), request)

    def _send_to(self, member: Member, request: Request) -> None:
        more = (request.layers,) if request.layers else ()
        reference = getattr(member.handle, request.method).remote(request.views, *more)
        attempt = Attempt(request, member, reference, time.monotonic())
        member.outstanding += len(request.views)
        request.attempts.append(attempt)
        self._under_way[attempt] = None
        self._unsent.pop(request, None)

    def _send_again(self, request: Request) -> None:
        request.failovers += 1
        self._metrics.failed_over()
        if request.deaths >= MAX_DEATHS:
            self._end(request, error=TeacherGone(deadly(self.spec, request.deaths)))
        else:
            self._send(request)

    def _notice_answers(self) -> None:
        """Take what has come and nobody has asked for yet: it is no longer owed, or it has to go elsewhere."""
        attempts = {attempt.reference: attempt for attempt in self._under_way}
        if attempts:
            ready, _ = ray.wait(list(attempts), num_returns=len(attempts), timeout=0)
            for reference in ready:
                self._take(attempts[reference], saw_it_come=False)

    def _take(self, attempt: Attempt, saw_it_come: bool) -> None:
        """Read what is there."""
        with self._changed:
            if attempt not in self._under_way:  # another thread was first, or its replica was lost
                return
            now = time.monotonic()
            try:
                value = ray.get(attempt.reference, timeout=1)
            except GetTimeoutError:
                return
            except RayTaskError as error:
                attempt.member.heard = now
                self._end(self._settle(attempt), error=refusal(self.spec, error))
            except ObjectLostError:  # the replica may be well: only this answer is gone
                request = self._settle(attempt)
                if not request.attempts and not request.done:
                    self._send_again(request)
            except RayError as error:
                self.lose(attempt.member.name, death(error), for_good=not isinstance(error, ActorUnavailableError))
            else:
                if attempt.request.method == "label":
                    self._usual.learn(value[1], attempt.stalled_s(now) if saw_it_come else 0.0)
                attempt.member.heard = now
                self._end(self._settle(attempt), value=value)

    def _settle(self, attempt: Attempt) -> Request:
        """It is over, one way or another; its request may go on elsewhere."""
        if attempt in self._under_way:
            del self._under_way[attempt]
            attempt.member.outstanding -= len(attempt.request.views)
        if attempt in attempt.request.attempts:
            attempt.request.attempts.remove(attempt)
        return attempt.request

    def _end(self, request: Request, value: Any = None, error: Exception | None = None) -> None:
        """The first word counts. A slower twin goes on: what it owes is owed until the replica has done with it."""
        if not request.done:
            request.value, request.error = value, error
            request.attempts = []
            request.done = True  # last: its student looks at it without the lock
            self._unsent.pop(request, None)

    def _count_members(self) -> None:
        self._none_since = None if self._members else (self._none_since or time.monotonic())

    def _record(self, what: str) -> None:
        self._record_line(f"teacher {self.spec.teacher!r}: {what}")
