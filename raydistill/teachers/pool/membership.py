"""A student's word with the supervisor: its leases, who serves, whom it suspects. One thread a student."""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
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
SILENT_S, SILENT_WHILE_STARVING_S = 15.0, 5.0
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
        self._links, self._ttl_s, self._record, self._hear = list(links), ttl_s, record, hear
        self.lease_id = f"{holder}@{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:6]}"
        self._joined: set[str] = set()
        self._stopped: set[str] = set()
        self._suspects: list[tuple[str, str, bool]] = []
        self._supervisor: Any = None
        self._heard = time.monotonic()
        self._wake, self._closing = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="pool-membership", daemon=True)
        self._thread.start()

    def suspect(self, pool_id: str, replica: str, hung: bool) -> None:
        """Tell the supervisor, soon."""
        self._suspects.append((pool_id, replica, hung))
        self._wake.set()

    def wake(self) -> None:
        """Somebody waits for news."""
        self._wake.set()

    def close(self) -> None:
        """Leave the pools; takes a second at most."""
        if self._closing.is_set():
            return
        self._closing.set()
        self._wake.set()
        self._thread.join(timeout=REPLY_S)
        if self._supervisor is None or not ray.is_initialized():
            return
        try:
            words = [self._supervisor.leave.remote(link.spec.id, self.lease_id) for link in self._links]
            ray.wait(words, num_returns=len(words), timeout=LEAVE_S)
        except RayError:
            pass  # the leases end by themselves

    def _run(self) -> None:
        while not self._closing.is_set() and ray.is_initialized():
            try:
                self._speak()
            except GetTimeoutError:
                self._silent()
            except (RayError, RuntimeError, ValueError, OSError):  # the last three while it is being made
                self._lost("was lost")
            self._wake.wait(STARVING_S if self._starving else min(RENEW_MOST_S, self._ttl_s / 4))
            self._wake.clear()

    @property
    def _starving(self) -> bool:
        return any(not link.num_serving and link.spec.id not in self._stopped for link in self._links)

    def _speak(self) -> None:
        if self._supervisor is None:
            self._supervisor = supervisor()
        suspects, self._suspects = self._suspects, []
        for suspect in suspects:
            self._supervisor.suspect.remote(*suspect)
        asked = [(link, self._question(link)) for link in self._links if link.spec.id not in self._stopped]
        unknown = False
        for link, reference in asked:
            if self._closing.is_set():
                return
            view: PoolView | None = ray.get(reference, timeout=REPLY_S)
            if view is None:
                unknown = True
                self._joined.discard(link.spec.id)
                self._wake.set()
                continue
            self._joined.add(link.spec.id)
            if view.stopped:
                self._stopped.add(link.spec.id)
            link.update(view)
            self._hear(view)
        self._heard = time.monotonic()
        if unknown:
            self._record("the teachers' supervisor was restarted, or this run was silent for too long; it joins again")

    def _question(self, link: Link) -> Any:
        """Its lease's renewal, or its beginning."""
        if link.spec.id in self._joined:
            return self._supervisor.renew.remote(link.spec.id, self.lease_id, link.report())
        return self._supervisor.join.remote(link.spec, self.lease_id, self._ttl_s)

    def _silent(self) -> None:
        silent_s = time.monotonic() - self._heard
        if self._supervisor is not None and silent_s > (SILENT_WHILE_STARVING_S if self._starving else SILENT_S):
            ray.kill(self._supervisor)
            self._lost(f"was silent for {silent_s:.0f} s")

    def _lost(self, how: str) -> None:
        """Students go on with the replicas that they know; the next supervisor adopts those."""
        if self._joined:
            self._record(f"the teachers' supervisor {how}; a new one takes over")
        self._supervisor, self._heard = None, time.monotonic()
        self._joined.clear()
