"""The seam: where soft labels come from. `local`, `remote` and `stored` all stand behind it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from raydistill.data.batch import ViewBatch
from raydistill.soft_labels.targets import SoftTargets

StepViews = dict[str, ViewBatch]
"""By task: one micro-batch of views."""


@dataclass(frozen=True)
class TeacherCost:
    """What the teachers did: rows asked of them, rows answered from the store, seconds they computed."""

    samples: int = 0
    samples_cached: int = 0
    busy_s: float = 0.0


class SoftTargetSource(Protocol):
    """Soft labels for a stream of micro-batches."""

    def stream(self, batches: Iterable[StepViews]) -> Iterator[tuple[StepViews, dict[str, SoftTargets]]]:
        """The same batches in the same order, each with its soft targets by task; reads ahead where that helps.

        Raises:
            TeacherError: a teacher died or did not answer in time.
            SoftLabelError: stored labels are missing or belong to something else.
        """
        ...

    def cost(self) -> TeacherCost:
        """So far."""
        ...

    def close(self) -> None:
        """Give back what the source holds. Safe to call twice."""
        ...
