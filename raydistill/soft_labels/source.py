"""The seam: where soft labels come from, who answers, and what the answers cost."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, field, fields
from functools import reduce
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from raydistill.data.batch import ViewBatch
from raydistill.soft_labels.layers import NO_LAYERS, Features, Layers
from raydistill.soft_labels.targets import SoftTargets

StepViews = dict[str, ViewBatch]
"""By task: one micro-batch of views."""


@dataclass(frozen=True)
class TeacherCost:
    """What one teacher did.

    Attributes:
        samples: rows that it computed.
        samples_cached: rows that the store answered in its place.
        busy_s: seconds that it computed.
        waited_s: seconds that students stood still for it.
        failovers: requests that a dead or silent replica made another one answer.
        hedges: requests that were sent to a second replica because the first was slow.
        worst_gap_s: the longest that a student waited for an answer that a failure had delayed.
    """

    samples: int = 0
    samples_cached: int = 0
    busy_s: float = 0.0
    waited_s: float = 0.0
    failovers: int = 0
    hedges: int = 0
    worst_gap_s: float = 0.0

    def __add__(self, other: TeacherCost) -> TeacherCost:
        sums = [mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)]
        sums[-1] = max(self.worst_gap_s, other.worst_gap_s)
        return TeacherCost(*sums)

    @classmethod
    def of(cls, figures: Mapping[str, float]) -> TeacherCost:
        """From its figures by name."""
        counts = {"samples", "samples_cached", "failovers", "hedges"}
        exact: dict[str, Any] = {name: int(value) if name in counts else value for name, value in figures.items()}
        return cls(**exact)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Of its figures, in order."""
        return tuple(field.name for field in fields(cls))


Costs = Mapping[str, TeacherCost]
"""By teacher."""


def add_costs(*costs: Costs) -> dict[str, TeacherCost]:
    """The sum for each teacher."""
    names = dict.fromkeys(name for each in costs for name in each)
    return {name: total_cost(each[name] for each in costs if name in each) for name in names}


def total_cost(costs: Iterable[TeacherCost]) -> TeacherCost:
    """The sum over teachers."""
    return reduce(TeacherCost.__add__, costs, TeacherCost())


@dataclass(frozen=True)
class Answer:
    """A teacher's word on one request.

    Attributes:
        logits: float16 [batch, num_classes], columns in the task's label order.
        busy_s: seconds that the teacher computed.
        failovers, hedges, gap_s: what the request went through: see `TeacherCost`.
        features: of the layers that were asked for.
    """

    logits: NDArray[np.float16]
    busy_s: float
    failovers: int = 0
    hedges: int = 0
    gap_s: float = 0.0
    features: Features = field(default_factory=dict)


class Pending(Protocol):
    """A request on its way."""

    def result(self) -> Answer:
        """Wait for the answer.

        Raises:
            TeacherGone: no replica of the teacher is left, and none came in time.
            TeacherError: the teacher refuses the request.
        """
        ...


class Labeller(Protocol):
    """Whoever answers for teachers: models in this process, or a pool of actors.

    Attributes:
        way: `local` or `remote`.
    """

    way: str

    def ask(self, teacher: str, views: ViewBatch, layers: Layers = NO_LAYERS) -> Pending:
        """Hand in a request; returns at once."""
        ...

    def events(self) -> list[tuple[float, str]]:
        """What happened since the last call: seconds since the epoch, and a line."""
        ...

    def close(self) -> None:
        """Give back what it holds. Safe to call twice."""
        ...


class SoftTargetSource(Protocol):
    """Soft labels for a stream of micro-batches."""

    @property
    def way(self) -> str:
        """Where they come from now: `local`, `remote` or `stored`."""
        ...

    def stream(self, batches: Iterable[StepViews]) -> Iterator[tuple[StepViews, dict[str, SoftTargets]]]:
        """The same batches in the same order, each with its soft targets by task; reads ahead where that helps.

        Raises:
            TeacherError: a teacher is gone or did not answer in time.
            SoftLabelError: stored labels are missing or belong to something else, or cannot be written.
        """
        ...

    def cost(self) -> dict[str, TeacherCost]:
        """So far, by teacher."""
        ...

    def events(self) -> list[tuple[float, str]]:
        """What happened since the last call: seconds since the epoch, and a line for the report."""
        ...

    def flush(self) -> None:
        """Let the store have all that the student has heard. Who goes on from a checkpoint asks the same as before, in
        the same batches, only where the store has what was heard up to it.

        Raises:
            SoftLabelError: it cannot be written.
        """
        ...

    def close(self) -> None:
        """Give back what the source holds. Safe to call twice."""
        ...
