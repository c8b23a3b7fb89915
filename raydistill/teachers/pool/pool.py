"""One teacher's replicas: checked, replaced, scaled. Decisions only: Ray stands behind the `Launcher`."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from raydistill.config.models import PlacementConfig
from raydistill.teachers.pool import placement
from raydistill.teachers.pool.canary import Canary
from raydistill.teachers.pool.launcher import Launcher, Outcome
from raydistill.teachers.pool.leases import Leases
from raydistill.teachers.pool.members import Replica
from raydistill.teachers.pool.messages import Event, Loaded, PoolSpec, PoolStatus, PoolView
from raydistill.teachers.pool.names import replica_prefix, short
from raydistill.teachers.pool.scaling import Scaler, ScalingRules

# In a row, with nothing that serves: then the pool has failed, and whoever waits is told why.
MAX_DEATHS, MAX_ERRORS = 10, 3
MAX_BACKOFF_S = 5.0
UNPLACED_S = 30.0  # beyond the minimum nobody waits longer than this for room
REGROW_S = 60.0  # the cluster's sum had room, no node had: that does not change soon
DRAIN_S, DRAIN_MOST_S = 5.0, 60.0  # a leaving replica: students hear of it within two seconds


class Pool:
    """Keeps as many replicas serving as its leases want.

    Args:
        spec: of whoever joined first.
        wall: seconds since the epoch, for events. All other times are handed in, seconds of a steady clock.
    """

    def __init__(
        self, spec: PoolSpec, launcher: Launcher, now: float, wall: Callable[[], float],
        rules: ScalingRules | None = None,
    ) -> None:  # fmt: skip
        self.spec, self.leases, self.began = spec, Leases(), now
        self.failure: str | None = None
        self.rows = 0
        self.replicas: dict[str, Replica] = {}
        self._launcher, self._wall, self._scaler = launcher, wall, Scaler(rules)
        self._target = 0
        self._searched = self._settled = False
        self._canary = Canary()
        self._lost: deque[str] = deque(maxlen=64)
        self._events: deque[Event] = deque(maxlen=64)
        self._unreplaced: deque[float] = deque()
        self._not_before = self._grow_from = now
        self._deaths = self._errors = 0

    def join(self, lease_id: str, spec: PoolSpec, ttl_s: float, now: float) -> None:
        """A student begins its lease, or goes on with it. A new one is a reason to try again where none came up."""
        if lease_id not in self.leases.ids:
            self.failure, self._deaths, self._errors = None, 0, 0
        self.leases.join(lease_id, spec, ttl_s, now)

    def tick(self, now: float) -> None:
        """Look at every replica, and do what is to be done."""
        if not self._searched:
            self._adopt(now)
        for replica in list(self.replicas.values()):
            self._look_after(replica, now)
        if self._settled and self.failure is None:
            self._scale(now)
            self._end_drained(now)

    def num_missing(self, now: float) -> int:
        """Replicas that are to be started."""
        if not self._settled or self.failure is not None or now < self._not_before or not len(self.leases):
            return 0
        return max(0, self._target - sum(each.state != "draining" for each in self.replicas.values()))

    def started(self, name: str, handle: Any, now: float) -> None:
        """A new replica is on its way."""
        replica = Replica(name, handle, now)
        replica.load = self._launcher.call(handle, "load")
        replica.pinged(self._launcher.call(handle, "ping"), now)
        self.replicas[name] = replica

    def cannot_start(self, why: str, now: float) -> None:
        """Ray cannot read what is asked of it."""
        self._try_again(now, Outcome(error=why))

    def suspect(self, name: str, silent_s: float | None) -> None:
        """A student's word: it died (None), or gave no answer for so long. That is checked, unless it is as long as the
        most patient student would have waited."""
        replica = self.replicas.get(name)
        if replica is None:
            return
        if silent_s is not None and silent_s >= self.leases.timeout_s:
            self._lose(replica, f"gave no answer within {silent_s:g} s")
        else:
            replica.next_ping = 0.0

    def free(self) -> None:
        """End all replicas."""
        for replica in self.replicas.values():
            self._launcher.kill(replica.handle)
        self.replicas.clear()

    def view(self, lease_id: str) -> PoolView:
        """For a student."""
        states = [replica.state for replica in self.replicas.values()]
        return PoolView(
            settled=self._settled,
            replicas=tuple((key, each.handle) for key, each in self.replicas.items() if each.state == "serving"),
            ended={key: each.stats.requests for key, each in self.replicas.items() if each.stats},
            lost=tuple(self._lost),
            starting=states.count("loading"),
            unplaced=states.count("starting"),
            asks=placement.describe(self._asks),
            description=self._canary.description,
            failure=self.failure,
            events=tuple(self._events),
            begin=self.leases.share_before(lease_id),
        )

    def status(self, now: float) -> PoolStatus:
        """For people."""
        return PoolStatus(
            id=self.spec.id,
            teacher=self.spec.teacher,
            fingerprint=None if self._canary.description is None else str(self._canary.description["fingerprint"]),
            age_s=now - self.began,
            replicas=tuple(
                (key, each.state, each.stats.pid if each.stats else None) for key, each in self.replicas.items()
            ),
            leases=self.leases.status(now),
            rows=self.rows,
            rows_per_s=sum(replica.rows_per_s for replica in self.replicas.values()),
            waiting=self.leases.waiting,
            failure=self.failure,
        )

    @property
    def _asks(self) -> PlacementConfig:
        """What the next replica takes."""
        return self.leases.newest_spec.settings.placement

    def _adopt(self, now: float) -> None:
        """Once: take over what an earlier supervisor left."""
        for name, handle in self._launcher.find(replica_prefix(self.spec.id)).items():
            replica = Replica(name, handle, now)
            replica.described = self._launcher.call(handle, "describe")
            self.replicas[name] = replica
        self._target = len(self.replicas)  # they were wanted a moment ago
        self._searched, self._settled = True, not self.replicas

    def _look_after(self, replica: Replica, now: float) -> None:
        if replica.described is not None and (outcome := self._launcher.poll(replica.described)) is not None:
            replica.described = None
            if isinstance(outcome.value, Loaded):
                self._serve(replica, outcome.value, now)
            elif outcome.error is None:
                replica.load = self._launcher.call(replica.handle, "load")
            else:
                self._lose(replica, outcome.error)
        if replica.load is not None and (outcome := self._launcher.poll(replica.load)) is not None:
            replica.load = None
            if isinstance(outcome.value, Loaded):
                self._serve(replica, outcome.value, now)
            else:
                self._not_loaded(replica, outcome, now)
        if replica.name in self.replicas:
            self._listen(replica, now)
        if not self._settled:
            self._settled = all(each.described is None for each in self.replicas.values())

    def _listen(self, replica: Replica, now: float) -> None:
        """Signs of life."""
        if replica.ping is None:
            if now >= replica.next_ping:
                replica.pinged(self._launcher.call(replica.handle, "ping"), now)
            return
        outcome = self._launcher.poll(replica.ping)
        if outcome is None:
            if replica.silent_s(now) > replica.patience_s(self.leases.timeout_s):
                self._lose(replica, f"was silent for {replica.silent_s(now):.0f} s")
        elif outcome.error is not None:
            self._not_loaded(replica, outcome, now) if replica.load else self._lose(replica, outcome.error)
        else:
            self.rows += replica.answered(outcome.value, now)
            if replica.loads_for_ever(now):
                self._not_loaded(replica, Outcome(error=f"it loads for {now - replica.began:.0f} s already"), now)

    def _serve(self, replica: Replica, loaded: Loaded, now: float) -> None:
        """Let it answer students, if it says what its peers say."""
        why = self._canary.objection(loaded)
        if why is not None:
            self._record(f"replica {short(replica.name)} refused: {why}")
            self._drop(replica)
            self._try_again(now, Outcome(error=why))
            return
        replica.state, self.failure = "serving", None
        self._deaths = self._errors = 0
        if self._unreplaced:
            after_s = now - self._unreplaced.popleft()
            self._record(f"replica {short(replica.name)} serves in the lost one's place, {after_s:.1f} s later")

    def _lose(self, replica: Replica, why: str) -> None:
        served = replica.state in ("serving", "draining")
        if replica.state == "serving":
            self._unreplaced.append(replica.heard)
        if served:
            self._record(f"replica {short(replica.name)} lost: {why}")
        self._drop(replica)

    def _not_loaded(self, replica: Replica, outcome: Outcome, now: float) -> None:
        assert outcome.error is not None
        self._drop(replica)
        if self._canary.description is not None:
            self._record(f"replica {short(replica.name)} did not come up: {outcome.error}")
        self._try_again(now, outcome)

    def _try_again(self, now: float, outcome: Outcome) -> None:
        """Later, and later each time; or not at all."""
        self._deaths += outcome.died
        self._errors += not outcome.died
        self._not_before = now + min(MAX_BACKOFF_S, 0.25 * 2 ** min(9, self._deaths + self._errors))
        if any(each.state == "serving" for each in self.replicas.values()):
            return
        hopeless = outcome.ours and self._canary.description is None
        if hopeless or self._deaths >= MAX_DEATHS or self._errors >= MAX_ERRORS:
            line = outcome.error or ""
            name = f"teacher {self.spec.teacher!r}"
            self.failure = line if line.startswith(name) else f"{name}: no replica comes up: {line}"
            self._record(f"given up: {line}")

    def _drop(self, replica: Replica) -> None:
        self._launcher.kill(replica.handle)
        self.replicas.pop(replica.name, None)
        self._lost.append(replica.name)

    def _scale(self, now: float) -> None:
        least, most = self.leases.min_replicas, self.leases.max_replicas
        serving = [each for each in self.replicas.values() if each.state == "serving"]
        loading = [each for each in self.replicas.values() if each.state in ("starting", "loading")]
        self._target = min(max(self._target, least), most)
        for replica in loading:
            # Ray would let it wait for ever, and place it when nobody needs it any more.
            if replica.state == "starting" and len(serving) >= least and now - replica.began > UNPLACED_S:
                self._record("one more replica was wanted, and the cluster has no room for it")
                self._target, self._grow_from = max(least, self._target - 1), now + REGROW_S
                self._drop(replica)
        if len(serving) >= self._target:
            self._unreplaced.clear()
        if loading or not serving:
            self._scaler.rest()
            return
        busy = sum(each.busy for each in serving) / len(serving)
        step = self._scaler.decide(now, len(serving), least, most, self.leases.waiting, busy)
        # Students that are still to come find their room taken otherwise, until replicas have idled for a while.
        if step > 0 and (now < self._grow_from or not self._launcher.has_room(self._asks, self.leases.to_come)):
            step = 0
        if step:
            why = "students wait" if step > 0 else "they idle"
            self._target = len(serving) + step
            self._record(f"{len(serving)} → {self._target} replicas: {why}")
        surplus = sorted(serving, key=lambda each: each.busy)[: max(0, len(serving) - self._target)]
        for replica in surplus:
            replica.state, replica.drained = "draining", now

    def _end_drained(self, now: float) -> None:
        for replica in list(self.replicas.values()):
            if replica.state == "draining":
                gone_s = now - replica.drained
                if (gone_s > DRAIN_S and replica.is_idle) or gone_s > DRAIN_MOST_S:
                    self._drop(replica)

    def _record(self, what: str) -> None:
        self._events.append((self._wall(), f"teacher {self.spec.teacher!r}: {what}"))
