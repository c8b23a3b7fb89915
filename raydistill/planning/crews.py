"""Replicas and workers on their spots, as fast as those are; teachers grow where a student waits for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from raydistill.config.models import Config, PlacementConfig
from raydistill.planning.demand import STUDENT, Party
from raydistill.planning.fit import Fit
from raydistill.planning.measured import Measured, Speeds, Work
from raydistill.planning.nodes import CPU, GPU, Node
from raydistill.planning.rates import Crew, Server, Steady, steady_local, steady_remote
from raydistill.planning.room import Spot
from raydistill.planning.sizes import keeps

ELSEWHERE = Spot(None)


@dataclass(frozen=True)
class Cast:
    """Who works where.

    Attributes:
        spots: of each teacher and of the student.
        schools: of each teacher that is trained where its `train.placement` says.
    """

    config: Config
    nodes: Sequence[Node]
    spots: dict[str, tuple[Spot, ...]]
    measured: Measured
    speeds: Speeds
    schools: Mapping[str, Spot] = field(default_factory=dict)

    @property
    def cores(self) -> list[float]:
        """Of each node."""
        return [node.cores for node in self.nodes]

    @property
    def student(self) -> Crew:
        """The workers; of those that are fewer than the config's, each does several parts of a micro-batch."""
        spots, num_workers = self.spots[STUDENT], self.config.training.num_workers
        work, placement = self.measured.student, self.config.training.placement
        if not num_workers:  # in the command's own process, on whatever that has
            (spot,) = spots
            speed = self.speeds.of(self.nodes[spot.node].kind) if spot.gpus and spot.node is not None else 1.0
            return Crew(STUDENT, work, (Server(spot, speed),))
        return Crew(STUDENT, work, self._servers(spots, work, placement), -(-num_workers // len(spots)))

    def teacher(self, name: str, way: str) -> Crew:
        """Its replicas (`remote`), or itself in every worker (`local`)."""
        work = self.measured.teachers[name].asked[way]
        if way == "local":
            return Crew(name, work, self.student.servers)
        return Crew(name, work, self._servers(self.spots[name], work, self.config.teachers[name].placement))

    def ahead(self, name: str, way: str) -> Crew:
        """The same, asked `batch_size` rows at a time by the command itself."""
        work = self.measured.teachers[name].ahead
        if way == "local":
            return Crew(name, work, (Server(ELSEWHERE),))
        return Crew(name, work, self._servers(self.spots[name], work, self.config.teachers[name].placement))

    def steady(self, missing: Mapping[str, float], way: str) -> Steady:
        """While these teachers, by name, are asked about such a share of the rows, and the others' word is read."""
        teachers = [self.teacher(name, way) for name in missing]
        store_s = sum(
            each.keeping_s if name in missing else each.reading_s for name, each in self.measured.teachers.items()
        )
        store_s = store_s if keeps(self.config) else 0.0
        if way == "local" or not missing:
            return steady_local(self.student, teachers, missing, store_s)
        return steady_remote(self.student, teachers, missing, self.window, self.cores, store_s)

    def alone(self) -> Steady:
        """A student that hears no teacher."""
        return steady_local(self.student, [], {})

    def lesson(self, name: str) -> tuple[float, dict[str, float]]:
        """How fast a teacher's own training goes beside the probe's, and what it holds."""
        train, work = self.config.teachers[name].train, self.measured.teachers[name].lesson
        assert train is not None
        assert work is not None
        if name not in self.schools or train.placement is None:
            here = self.measured.device
            return 1.0, {CPU: float(work.threads)} if here == CPU else {here: 1.0}
        spot, placement = self.schools[name], train.placement
        assert spot.node is not None
        kind = self.nodes[spot.node].kind
        holds = {kind: placement.num_gpus} if placement.num_gpus else {CPU: placement.num_cpus}
        return self._speed(spot, work, placement), holds

    @property
    def window(self) -> int:
        """Micro-batches that a worker asks ahead: of all teachers as many."""
        return min(teacher.window for teacher in self.config.teachers.values())

    def _servers(self, spots: Sequence[Spot], work: Work, placement: PlacementConfig) -> tuple[Server, ...]:
        return tuple(Server(spot, self._speed(spot, work, placement)) for spot in spots)

    def _speed(self, spot: Spot, work: Work, placement: PlacementConfig) -> float:
        if spot.node is None:
            return 1.0
        if placement.num_gpus:
            return self.speeds.of(self.nodes[spot.node].kind)
        # More threads than there were to measure with are taken to be worth their number.
        return max(1, int(placement.num_cpus)) / work.threads

    def held(self, *names: str) -> dict[str, float]:
        """GPUs by kind, and the cores of those without one, that these parties hold."""
        held: dict[str, float] = {}
        for name in names:
            for kind, amount in self._held_by(name):
                held[kind] = held.get(kind, 0.0) + amount
        return held

    def _held_by(self, name: str) -> list[tuple[str, float]]:
        if name == STUDENT and not self.config.training.num_workers:
            (spot,) = self.spots[name]
            if spot.gpus and spot.node is not None:
                return [(self.nodes[spot.node].kind, 1.0)]
            return [(CPU, float(self.measured.student.threads))]
        placement = self.config.training.placement if name == STUDENT else self.config.teachers[name].placement
        if not placement.num_gpus:
            return [(CPU, placement.num_cpus)] * len(self.spots[name])
        return [(self.nodes[spot.node].kind, placement.num_gpus) for spot in self.spots[name] if spot.node is not None]


def cast(
    config: Config, parties: Sequence[Party], fitted: Fit, nodes: Sequence[Node], measured: Measured, speeds: Speeds
) -> Cast:
    """As they lie from the start."""
    spots = {party.name: fitted.placed[party.role, party.name] for party in parties if party.role != "teaching"}
    if STUDENT not in spots:
        spots[STUDENT] = (_here(nodes, measured),)
    schools = {name: where[0] for (role, name), where in fitted.placed.items() if role == "teaching"}
    return Cast(config, nodes, spots, measured, speeds, schools)


def _here(nodes: Sequence[Node], measured: Measured) -> Spot:
    """Where a student in the command's own process is: on this machine, if it is a node, or the only one that there is;
    else on one beside the cluster."""
    at = next((at for at, node in enumerate(nodes) if node.here), 0 if len(nodes) == 1 else None)
    if at is None:
        return ELSEWHERE
    # GPUs that Ray was only told of are no GPUs.
    real = nodes[at].kind != CPU and (nodes[at].kind != GPU or measured.device != CPU)
    return Spot(at, (0,) if real else ())


def grow(found: Cast, parties: Sequence[Party], fitted: Fit, missing: Mapping[str, float]) -> tuple[Cast, str]:
    """With as many replicas more as bring a student in training something, as far as `max_replicas` and room go.

    Args:
        missing: by teacher that is asked, the share of the rows.

    Returns:
        The cast, and the teacher that would have more if there were room; empty where all have what they want.
    """
    teachers = {party.name: party for party in parties if party.role == "teacher"}
    while missing:
        party = teachers.get(found.steady(missing, "remote").bound)
        if party is None or len(found.spots[party.name]) >= party.most:
            return found, ""
        spot = fitted.room[party.name].take(party)
        if spot is None:
            return found, party.name
        found = replace(found, spots={**found.spots, party.name: (*found.spots[party.name], spot)})
    return found, ""


def grow_ahead(found: Cast, parties: Sequence[Party], fitted: Fit) -> Cast:
    """The same where teachers are asked before any training: as many as requests are under way at a time."""
    spots = dict(found.spots)
    for party in parties:
        if party.role != "teacher":
            continue
        wanted = min(party.most, found.config.teachers[party.name].window)
        while len(spots[party.name]) < wanted and (spot := fitted.room[party.name].take(party)) is not None:
            spots[party.name] = (*spots[party.name], spot)
    return replace(found, spots=spots)
