"""A plan as data: what `raydistill plan` prints, and what the Python call returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from raydistill.planning.course import Stage
from raydistill.planning.verdict import Balance


@dataclass(frozen=True)
class Asked:
    """What one party asks for, and where it would be.

    Attributes:
        each: what one of them takes.
        least, most: how many.
        placed: by kind of node, how many find room.
    """

    who: str
    each: str
    least: int
    most: int
    placed: Mapping[str, int]


@dataclass(frozen=True)
class Pace:
    """How fast one party is on the devices that it gets.

    Attributes:
        rows: of a micro-batch.
        call_s: that one replica or worker needs for it.
        count: replicas or workers.
        rows_per_s: of all.
    """

    who: str
    rows: int
    call_s: float
    count: int
    rows_per_s: float


@dataclass(frozen=True)
class Predicted:
    """What the probe leads one to expect.

    Attributes:
        samples_per_s: of the distilled student: while it asks teachers, or reading the store where it asks none.
        bound: who holds it up; `bounds`: samples/s that each would allow by itself.
        way: to the teachers.
        balance: by teacher.
        device_hours: by kind: GPUs, and cores of those without one.
        verdict: the sentence.
    """

    probed: str
    samples_per_s: float
    bound: str
    bounds: Mapping[str, float]
    way: str
    paces: tuple[Pace, ...]
    stages: tuple[Stage, ...]
    wall_s: float
    device_hours: Mapping[str, float]
    balance: Mapping[str, Balance]
    verdict: str


@dataclass(frozen=True)
class Plan:
    """A run that has not begun.

    Attributes:
        there: a line for each kind of node.
        waiting: a line for each party that does not get all that it asks for.
        predicted: None without a probe.
        remarks: what to know beside it.
    """

    name: str
    asked: tuple[Asked, ...]
    there: tuple[str, ...]
    waiting: tuple[str, ...]
    predicted: Predicted | None
    remarks: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)
