"""A student's word with the supervisor: its leases, who serves, whom it suspects. One thread a student."""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError

from raydistill.teachers.pool.finding import supervisor
from raydistill.teachers.pool.link import Link
from raydistill.teachers.pool.messages import PoolView

RENEW_MOST_S, STARVING_S = 2.0, 0.1
REPLY_S = 5.0
# Silent for this long it is taken for dead, and made anew: the next one adopts all living replicas.
SILENT_S = 15.0
# Before its first word its process has to come up, on a loaded machine or with packages to install. Doubled each time.
COMES_UP_S = 40.0
LEAVE_S = 1.0


class Membership:
    """Keeps links up to date until it is closed.

    Args:
        holder: who this is, for people.
        ttl_s: length of the leases.
        record: hears of the supervisor's own failures.
        hear: takes each view's events.
    """

    def __init__(
        self, links: Iterable[Link], holder: str, ttl_s: float, record: Callable[[str], None],
        hear: Callable[[PoolView], None],
    ) -> None:  # fmt: skip
        self._ttl_s, self._record, self._hear = ttl_s, record, hear
        student = f"{holder}@{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:6]}"
        # By lease: two teachers of one run may be the same, and share a pool.
        self._links = {f"{student}/{link.spec.teacher}": link for link in links}
        self._joined: set[str] = set()
        self._stopped: set[str] = set()
        self._suspects: deque[tuple[str, str, float | None]] = deque()
        self._supervisor: Any = None
        self._heard, self._answered, self._comes_up_s = time.monotonic(), False, COMES_UP_S
        self._wake, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="pool-membership", daemon=True)
        self._thread.start()

    def suspect(self, pool_id: str, replica: str, silent_s: float | None) -> None:
        """Tell the supervisor, soon; see `Pool.suspect`."""
        self._suspects.append((pool_id, replica, silent_s))
        self._wake.set()

    def close(self) -> None:
        """Leave the pools: at once, or in some seconds where the supervisor is silent."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout=REPLY_S + LEAVE_S)
        if self._supervisor is None or not ray.is_initialized():
            return
        try:
            words = [self._supervisor.leave.remote(link.spec.id, lease_id) for lease_id, link in self._links.items()]
            ray.wait(words, num_returns=len(words), timeout=LEAVE_S)
        except RayError:
            pass  # the leases end by themselves

    def _run(self) -> None:
        while not self._closing.is_set() and ray.is_initialized():
            try:
                self._speak()
            except (RayError, RuntimeError, ValueError, OSError):  # the last three while it is being made
                self._lost("was lost")
            self._wake.wait(STARVING_S if self._starving else min(RENEW_MOST_S, self._ttl_s / 4))
            self._wake.clear()

    @property
    def _starving(self) -> bool:
        return any(not link.num_serving and lease_id not in self._stopped for lease_id, link in self._links.items())

    def _speak(self) -> None:
        if self._supervisor is None:
            self._supervisor = supervisor()
        while self._suspects:
            self._supervisor.suspect.remote(*self._suspects.popleft())
        asked = {
            lease_id: self._question(lease_id, link)
            for lease_id, link in self._links.items()
            if lease_id not in self._stopped
        }
        unknown = False
        for lease_id, reference in asked.items():
            if self._closing.is_set():
                return
            try:
                view: PoolView | None = ray.get(reference, timeout=REPLY_S)
            except GetTimeoutError:
                self._silent()
                return
            unknown |= view is None
            self._take(lease_id, view)
        self._heard, self._answered = time.monotonic(), True
        if unknown:
            self._wake.set()
            self._record("the teachers' supervisor was restarted, or this run was silent for too long; it joins again")

    def _question(self, lease_id: str, link: Link) -> Any:
        """Its lease's renewal, or its beginning."""
        if lease_id in self._joined:
            return self._supervisor.renew.remote(link.spec.id, lease_id, link.report())
        return self._supervisor.join.remote(link.spec, lease_id, self._ttl_s)

    def _take(self, lease_id: str, view: PoolView | None) -> None:
        if view is None:
            self._joined.discard(lease_id)
            return
        self._joined.add(lease_id)
        if view.stopped:
            self._stopped.add(lease_id)
        self._links[lease_id].update(view)
        self._hear(view)

    def _silent(self) -> None:
        silent_s = time.monotonic() - self._heard
        patience_s = SILENT_S if self._answered else self._comes_up_s
        if silent_s > patience_s and not self._closing.is_set():
            if not self._answered:
                self._comes_up_s *= 2
            ray.kill(self._supervisor)
            self._lost(f"was silent for {silent_s:.0f} s")

    def _lost(self, how: str) -> None:
        """Students go on with the replicas that they know; the next supervisor adopts those."""
        if self._joined:
            self._record(f"the teachers' supervisor {how}; a new one takes over")
        self._supervisor, self._heard, self._answered = None, time.monotonic(), False
        self._joined.clear()
