"""Who uses a pool, and until when: a student that says nothing for its lease's length has let go."""

from __future__ import annotations

from dataclasses import dataclass, field

from raydistill.teachers.pool.messages import LeaseReport, LeaseStatus, PoolSpec
from raydistill.teachers.pool.placement import asked


@dataclass
class _Lease:
    spec: PoolSpec
    ttl_s: float
    began: float
    renewed: float
    report: LeaseReport = field(default_factory=LeaseReport)


class Leases:
    """The leases of one pool. Times are seconds of any steady clock."""

    def __init__(self) -> None:
        self._leases: dict[str, _Lease] = {}

    def __len__(self) -> int:
        return len(self._leases)

    def join(self, lease_id: str, spec: PoolSpec, ttl_s: float, now: float) -> None:
        """Begin a lease; a second time with the same id renews it."""
        known = self._leases.get(lease_id)
        self._leases[lease_id] = _Lease(spec, ttl_s, known.began if known else now, now)

    def renew(self, lease_id: str, report: LeaseReport, now: float) -> bool:
        """False: unknown, or expired."""
        lease = self._leases.get(lease_id)
        if lease is None:
            return False
        lease.renewed, lease.report = now, report
        return True

    def leave(self, lease_id: str) -> None:
        """End it; unknown ones are none."""
        self._leases.pop(lease_id, None)

    def expire(self, now: float) -> list[str]:
        """Drop those that were silent for longer than their length; returns their ids."""
        over = [key for key, lease in self._leases.items() if now - lease.renewed > lease.ttl_s]
        for key in over:
            del self._leases[key]
        return over

    @property
    def newest_spec(self) -> PoolSpec:
        """Of the student that joined last among those that hold: its files are there."""
        return list(self._leases.values())[-1].spec

    @property
    def ids(self) -> tuple[str, ...]:
        """Of those that hold."""
        return tuple(self._leases)

    def share_before(self, lease_id: str) -> float:
        """Of all that hold, those that came before this one."""
        return self.ids.index(lease_id) / len(self._leases)

    @property
    def min_replicas(self) -> int:
        """The most that one of them wants at least."""
        return max((lease.spec.settings.min_replicas for lease in self._leases.values()), default=0)

    @property
    def max_replicas(self) -> int:
        """The most that one of them allows."""
        most = [lease.spec.settings.max_replicas or lease.spec.settings.min_replicas for lease in self._leases.values()]
        return max(most, default=0)

    @property
    def to_come(self) -> dict[str, float]:
        """By resource: what training workers will take of runs whose driver is the only one yet to hold a lease."""
        configs = [lease.spec.config for lease in self._leases.values()]
        amounts: dict[str, float] = {}
        for training in [config.training for config in configs if configs.count(config) == 1]:
            for resource, amount in asked(training.placement).items():
                amounts[resource] = amounts.get(resource, 0.0) + amount * training.num_workers
        return amounts

    @property
    def timeout_s(self) -> float:
        """The most patient one's."""
        return max((lease.spec.settings.timeout_s for lease in self._leases.values()), default=0.0)

    @property
    def waiting(self) -> float:
        """The share of its time that the worst off student stands still, 0…1."""
        return max((lease.report.waiting for lease in self._leases.values()), default=0.0)

    def status(self, now: float) -> tuple[LeaseStatus, ...]:
        """For people."""
        return tuple(
            LeaseStatus(key, now - lease.began, now - lease.renewed, lease.report.waiting)
            for key, lease in self._leases.items()
        )
