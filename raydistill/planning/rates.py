"""The model: how many samples a second a student gets, and who holds it up. docs/planning.md has the formulas."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raydistill.planning.demand import STUDENT
from raydistill.planning.measured import Work
from raydistill.planning.room import Spot

# Between what two machines showed (0.6 and 0.9 ms, 0.9 and 2.6 ms): see scale_out.txt in benchmarks/results.
CLIENT_S = 0.8e-3  # of the student's own time that a question to an actor costs
REPLICA_S = 1.5e-3  # that a replica spends on one beside its answer
FULL = 0.9  # of a node's cores: from here on those who share them are in each other's way
SAME = 1.02  # bounds that are this close are one
CORES, DEVICE, TURNS = "shared cores", "a shared GPU", "taking turns"
WINDOW = "window of "


@dataclass(frozen=True)
class Server:
    """One replica or worker: where it is, and how fast beside what was probed."""

    spot: Spot
    speed: float = 1.0


@dataclass(frozen=True)
class Crew:
    """All replicas of a teacher, or all workers of the student.

    Attributes:
        work: a micro-batch, as probed. Of a worker that does the parts of several, see `parts`.
        parts: micro-batches that each does in a step.
    """

    name: str
    work: Work
    servers: tuple[Server, ...]
    parts: int = 1


@dataclass(frozen=True)
class Steady:
    """How it goes on, as long as nothing changes.

    Attributes:
        samples_per_s: of the student, all workers and tasks together.
        steps_per_s: micro-steps: a micro-batch of every task for every worker.
        bounds: samples/s that each would allow by itself; the least of them is what comes out.
        bound: whose that is.
    """

    samples_per_s: float
    steps_per_s: float
    bounds: Mapping[str, float]
    bound: str


def steady_remote(
    student: Crew, teachers: Sequence[Crew], missing: Mapping[str, float], window: int, cores: Sequence[float],
    store_s: float = 0.0,
) -> Steady:  # fmt: skip
    """With teachers in actors, asked ahead: all work at the same time, and the slowest decides.

    Args:
        teachers: those that are asked.
        missing: by teacher, the share of a micro-batch's rows that the store does not have.
        window: micro-batches that a worker asks ahead.
        cores: of each node.
        store_s: that a worker spends on the store, each micro-batch.
    """
    workers = len(student.servers) * student.parts  # micro-batches of a step
    beside_s = CLIENT_S * len(teachers) + store_s
    step_s = student.parts * max(student.work.seconds(server.speed) + beside_s for server in student.servers)
    loads = _Loads(cores)
    for server in student.servers:
        loads.add(server, student.work, student.parts, CLIENT_S * len(teachers) + store_s)
    bounds = {STUDENT: 1 / step_s}
    for teacher in teachers:
        share = missing[teacher.name]
        calls = [REPLICA_S + teacher.work.seconds(server.speed, share) for server in teacher.servers]
        together = sum(1 / call for call in calls)
        bounds[teacher.name] = together / workers
        # A micro-batch is on its way for an answer and then for its own step; `window` are, of each worker.
        usual = len(calls) / together
        bounds[WINDOW + teacher.name] = window / (usual * student.parts + step_s)
        for server, call in zip(teacher.servers, calls, strict=True):
            # Whoever owes the least is asked: shares as the speeds are.
            loads.add(server, teacher.work, workers / call / together, REPLICA_S, share)
    return _slowest(bounds | loads.bounds(), student, workers)


def steady_local(
    student: Crew, teachers: Sequence[Crew], missing: Mapping[str, float], store_s: float = 0.0
) -> Steady:  # fmt: skip
    """With teachers in the student's own process, in turn: times add up, 1/(1/S + 1/T). Args as above."""
    workers = len(student.servers) * student.parts

    def seconds(crew: Crew, share: float = 1.0) -> float:
        return student.parts * max(crew.work.seconds(server.speed, share) for server in student.servers)

    alone = seconds(student) + student.parts * store_s
    answers = {teacher.name: seconds(teacher, missing[teacher.name]) for teacher in teachers}
    bounds = {STUDENT: 1 / alone} | {name: 1 / answer for name, answer in answers.items() if answer}
    if answers:
        bounds[TURNS] = 1 / (alone + sum(answers.values()))
    return _slowest(bounds, student, workers)


def ahead(
    teachers: Sequence[Crew], rows: Mapping[str, int], windows: Mapping[str, int], cores: Sequence[float], way: str
) -> tuple[float, str]:
    """Asking before any training: every teacher by itself, all at the same time where they are remote.

    Args:
        rows: by teacher, those that the store does not have.
        windows: by teacher, requests that are under way at a time.
        way: `remote` or `local`.

    Returns:
        Seconds, and who takes the longest.
    """
    seconds: dict[str, float] = {}
    loads = _Loads(cores)
    for teacher in teachers:
        name, work = teacher.name, teacher.work
        calls = [(REPLICA_S if way == "remote" else 0.0) + work.seconds(each.speed) for each in teacher.servers]
        together = rate = sum(1 / call for call in calls)
        if way == "remote":
            rate = min(together, windows[name] / (len(calls) / together + CLIENT_S), 1 / CLIENT_S)
        seconds[name] = work.of_rows(rows[name]) / rate
        for server, call in zip(teacher.servers, calls, strict=True):
            loads.add(server, work, work.of_rows(rows[name]) / call / together, REPLICA_S)
    if not seconds:
        return 0.0, ""
    longest = max(seconds, key=lambda name: seconds[name])
    if way == "local":
        return sum(seconds.values()), longest
    shared = {name: 1 / each for name, each in loads.bounds().items()}
    tightest = max(shared, key=lambda name: shared[name], default="")
    if tightest and shared[tightest] > SAME * seconds[longest]:
        return shared[tightest], tightest
    return seconds[longest], longest


def to_balance(student: Crew, teacher: Crew, share: float, target: float) -> int:
    """Replicas of a teacher, as fast as those that it has, that would allow `target` micro-steps a second."""
    calls = [REPLICA_S + teacher.work.seconds(server.speed, share) for server in teacher.servers]
    usual = len(calls) / sum(1 / call for call in calls)
    return max(1, math.ceil(target * len(student.servers) * student.parts * usual / SAME))


class _Loads:
    """Seconds of cores and of GPUs that a micro-step, or a stage, takes: what several share is not there twice."""

    def __init__(self, cores: Sequence[float]) -> None:
        self._cores = cores
        self._busy: dict[int, list[float]] = {}
        self._gpus: dict[tuple[int, int], list[float]] = {}

    def add(self, server: Server, work: Work, calls: float, beside_s: float, share: float = 1.0) -> None:
        """So many calls, each with `beside_s` seconds of one core for itself."""
        node = server.spot.node
        if node is None:
            return
        busy_s = calls * (work.cores * work.seconds(server.speed, share) + beside_s)
        self._busy.setdefault(node, []).append(busy_s)
        for gpu in server.spot.gpus:
            self._gpus.setdefault((node, gpu), []).append(calls * share * work.device_s / server.speed)

    def bounds(self) -> dict[str, float]:
        """Times a second that there is room for all this; of what one has for itself its own time says enough."""
        shared = {node: sum(busy) for node, busy in self._busy.items() if len(busy) > 1}
        cores = [FULL * self._cores[node] / busy_s for node, busy_s in shared.items() if busy_s and self._cores[node]]
        gpus = [1 / sum(busy) for busy in self._gpus.values() if len(busy) > 1 and sum(busy) > 0]
        return {name: min(each) for name, each in ((CORES, cores), (DEVICE, gpus)) if each}


def _slowest(bounds: Mapping[str, float], student: Crew, workers: int) -> Steady:
    least = min(bounds.values())
    # Of those that come to the same, the first: student and teachers before what they share.
    bound = next(name for name, each in bounds.items() if each <= SAME * least)
    rows = workers * student.work.rows
    return Steady(rows * least, least, {name: rows * each for name, each in bounds.items()}, bound)
