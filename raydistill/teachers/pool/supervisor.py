"""One actor a cluster that keeps all pools: who leases them, which replicas serve, what died. It needs no torch."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

import ray

from raydistill.errors import first_line
from raydistill.teachers.pool.launcher import Launcher, RayLauncher
from raydistill.teachers.pool.messages import LeaseReport, PoolSpec, PoolStatus, PoolView
from raydistill.teachers.pool.names import REPLICA_PREFIX, new_replica_name, replica_prefix
from raydistill.teachers.pool.pool import Pool
from raydistill.teachers.pool.scaling import ScalingRules

log = logging.getLogger(__name__)

TICK_S = 0.2
# A student renews every two seconds, so whose pool nobody joins for this long has nobody.
ORPHAN_S = 60.0
IDLE_END_S = 60.0
STOPPED_S = 10.0
STOPPED = "ended by `raydistill teachers --stop`"


class Supervisor:
    """The logic of all pools. Every method returns at once and may be called from any thread.

    Args:
        clock: seconds of a steady clock; `wall`: seconds since the epoch, for events.
    """

    def __init__(
        self, launcher: Launcher, clock: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time,
        rules: ScalingRules | None = None,
    ) -> None:  # fmt: skip
        self._launcher, self._clock, self._wall, self._rules = launcher, clock, wall, rules
        self._pools: dict[str, Pool] = {}
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._stopped: dict[tuple[str, str], tuple[float, PoolSpec]] = {}
        self._used = clock()
        self._seen: dict[str, float] = {}
        self._next_search = 0.0

    def join(self, spec: PoolSpec, lease_id: str, ttl_s: float) -> PoolView:
        """Begin (or go on with) a lease of `ttl_s` seconds; the pool is made where it is not there."""
        with self._lock:
            if (stopped := self._stop_word(spec.id, lease_id)) is not None:
                return stopped
            now = self._used = self._clock()
            pool = self._pools.get(spec.id)
            if pool is None:
                pool = self._pools[spec.id] = Pool(spec, self._launcher, now, self._wall, self._rules)
                self._wake.set()
            pool.join(lease_id, spec, ttl_s, now)
            return pool.view(lease_id)

    def renew(self, pool_id: str, lease_id: str, report: LeaseReport) -> PoolView | None:
        """Go on with a lease; None: it is not known here (any more), so join again, unless the view says `stopped`."""
        with self._lock:
            pool = self._pools.get(pool_id)
            if pool is None or not pool.leases.renew(lease_id, report, self._clock()):
                return self._stop_word(pool_id, lease_id)
            return pool.view(lease_id)

    def leave(self, pool_id: str, lease_id: str) -> None:
        """End a lease; the last one frees the pool."""
        with self._lock:
            pool = self._pools.get(pool_id)
            if pool is not None:
                pool.leases.leave(lease_id)
                self._free_unused()

    def suspect(self, pool_id: str, replica: str, silent_s: float | None) -> None:
        """A student says that a replica died (None), or that it did not answer for so long."""
        with self._lock:
            if pool_id in self._pools:
                self._pools[pool_id].suspect(replica, silent_s)
                self._wake.set()

    def status(self) -> list[PoolStatus]:
        """Of all pools."""
        with self._lock:
            return [pool.status(self._clock()) for pool in self._pools.values()]

    def stop(self, pool_id: str | None = None) -> list[PoolStatus]:
        """End one pool or all, and tell those that hold leases when they ask next. Returns what was ended."""
        with self._lock:
            now = self._clock()
            ended = [pool for key, pool in self._pools.items() if pool_id in (None, key)]
            told = [pool.status(now) for pool in ended]
            for pool in ended:
                self._stopped |= {(pool.spec.id, lease_id): (now, pool.spec) for lease_id in pool.leases.ids}
                pool.free()
                del self._pools[pool.spec.id]
            if pool_id is None:
                self._used = now - IDLE_END_S  # and itself, once those who hold leases know
            return told

    def tick(self) -> None:
        """Look after everything once."""
        with self._lock:
            now = self._clock()
            for pool in self._pools.values():
                for lease_id in pool.leases.expire(now):
                    log.warning("lease %s of %s expired", lease_id, pool.spec.teacher)
            self._free_unused()
            for pool in self._pools.values():
                try:
                    pool.tick(now)
                except Exception:  # of one pool; the others need their supervisor
                    log.exception("the pool of %s", pool.spec.teacher)
            if self._pools:
                self._used = now
            self._stopped = {key: told for key, told in self._stopped.items() if now - told[0] < STOPPED_S}
            missing = [(pool, pool.num_missing(now)) for pool in self._pools.values()]
        for pool, count in missing:
            for _ in range(count):
                self._start_one(pool)
        with self._lock:
            if now >= self._next_search:
                self._next_search = now + 10.0
                self._end_orphans(now)

    @property
    def is_idle(self) -> bool:
        """Nobody has needed it for a while."""
        with self._lock:
            needed = self._pools or self._seen or self._stopped
            return not needed and self._clock() - self._used >= IDLE_END_S

    def _stop_word(self, pool_id: str, lease_id: str) -> PoolView | None:
        """What those hear whose pool was ended on purpose; once."""
        stopped = self._stopped.pop((pool_id, lease_id), None)
        return None if stopped is None else _stopped_view(stopped[1])

    def _start_one(self, pool: Pool) -> None:
        """Without the lock: Ray's head is asked, which may take a while on a loaded machine, and students are answered
        meanwhile."""
        with self._lock:
            if self._pools.get(pool.spec.id) is not pool or not pool.num_missing(self._clock()):
                return
            spec, name = pool.leases.newest_spec, new_replica_name(pool.spec.id)
        try:
            handle = self._launcher.start(spec, name)
        except (ValueError, TypeError) as error:
            with self._lock:
                pool.cannot_start(first_line(error), self._clock())
            return
        with self._lock:
            if self._pools.get(pool.spec.id) is pool:
                pool.started(name, handle, self._clock())
            else:  # nobody wants it any more
                self._launcher.kill(handle)

    def _free_unused(self) -> None:
        for key in [key for key, pool in self._pools.items() if not len(pool.leases)]:
            self._pools.pop(key).free()

    def _end_orphans(self, now: float) -> None:
        """Replicas that an earlier supervisor started, for a pool that nobody has joined again."""
        known = tuple(replica_prefix(key) for key in self._pools)
        found = self._launcher.find(REPLICA_PREFIX, known)
        self._seen = {name: self._seen.get(name, now) for name in found}
        for name, handle in found.items():
            if now - self._seen[name] >= ORPHAN_S:
                self._launcher.kill(handle)


class SupervisorActor(Supervisor):
    """The supervisor in its actor: a thread ticks, and ends the process once nobody needs it."""

    def __init__(self) -> None:
        super().__init__(RayLauncher())
        threading.Thread(target=self._run, name="supervisor", daemon=True).start()

    def _run(self) -> None:
        while not self.is_idle:
            try:
                self.tick()
            except Exception:  # Ray's own head may be away for a moment
                log.exception("a tick of the supervisor failed")
            self._wake.wait(TICK_S)
            self._wake.clear()
        # Not exit_actor: that is for the actor's own threads.
        ray.kill(ray.get_runtime_context().current_actor)


def _stopped_view(spec: PoolSpec) -> PoolView:
    failure = f"teacher {spec.teacher!r}: {STOPPED}"
    return PoolView(True, (), {}, (), 0, 0, "", None, failure, (), stopped=True)
