"""`auto`: try each way to the teachers for some steps, keep the faster one, do without once the store is full."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice

from raydistill.soft_labels.source import Labeller, StepViews, TeacherCost
from raydistill.soft_labels.stream import LabelStream
from raydistill.soft_labels.targets import SoftTargets

WARM_UP, PROBED = 5, 15  # micro-batches of each way: those that are not measured, and those that are


class AutoSource:
    """A `SoftTargetSource` that measures before it picks.

    A way is measured by what the student feels: the time from one micro-batch to the next, its own step included.

    Args:
        stream: answers from the store, or through one of the ways.
        ways: by name, in the order that they are tried; opened when their turn comes.
        why_one_way: where there is only one.
    """

    def __init__(self, stream: LabelStream, ways: Mapping[str, Callable[[], Labeller]], why_one_way: str = "") -> None:
        self._stream, self._ways, self._why_one_way = stream, ways, why_one_way
        self._opened: dict[str, Labeller] = {}
        self._settled = False
        self._notes: list[tuple[float, str]] = []

    def stream(self, batches: Iterable[StepViews]) -> Iterator[tuple[StepViews, dict[str, SoftTargets]]]:
        """See `SoftTargetSource.stream`."""
        iterator = iter(batches)
        if not self._settled:
            yield from self._probe(iterator)
            self._settled = True
        yield from self._stream.stream(iterator)

    def _probe(self, batches: Iterator[StepViews]) -> Iterator[tuple[StepViews, dict[str, SoftTargets]]]:
        if self._stream.complete():
            self._stream.answer_through(None)
            self._note("the store has every soft label of this run: stored")
            return
        if len(self._ways) == 1:
            ((way, open_way),) = self._ways.items()
            self._stream.answer_through(open_way())
            self._note(f"{way}: {self._why_one_way}")
            return
        seconds: dict[str, float] = {}
        for way, open_way in self._ways.items():
            self._opened[way] = open_way()
            self._stream.answer_through(self._opened[way])
            laps: list[float] = []
            began = time.perf_counter()
            for answered in self._stream.stream(islice(batches, WARM_UP + PROBED)):
                yield answered
                laps.append(time.perf_counter() - began)
                began = time.perf_counter()
            if self._stream.way == "stored" or len(laps) < WARM_UP + PROBED:
                self._drop_all_but(self._stream.way)
                return  # the store is full already, or the training is over
            seconds[way] = statistics.median(laps[WARM_UP:])
        best = min(seconds, key=lambda way: seconds[way])
        measured = ", ".join(f"{way} {seconds[way] * 1e3:.1f} ms" for way in seconds)
        self._note(f"{measured} a micro-batch: {best}")
        self._stream.answer_through(self._opened[best])
        self._drop_all_but(best)

    def _drop_all_but(self, kept: str) -> None:
        for way, labeller in self._opened.items():
            if way != kept:
                labeller.close()
                self._notes += labeller.events()

    def _note(self, what: str) -> None:
        self._notes.append((time.time(), f"soft labels: auto: {what}"))

    @property
    def way(self) -> str:
        """See `SoftTargetSource.way`."""
        return self._stream.way

    def cost(self) -> dict[str, TeacherCost]:
        """See `SoftTargetSource.cost`."""
        return self._stream.cost()

    def events(self) -> list[tuple[float, str]]:
        """See `SoftTargetSource.events`."""
        notes, self._notes = self._notes, []
        return sorted(notes + self._stream.events())

    def flush(self) -> None:
        """See `SoftTargetSource.flush`."""
        self._stream.flush()

    def close(self) -> None:
        """See `SoftTargetSource.close`."""
        try:
            self._stream.close()
        finally:
            for labeller in self._opened.values():
                labeller.close()
