"""Soft labels for a stream of micro-batches: from the store where it has them, from the teachers where it has not."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raydistill.config.models import Config, TeacherConfig
from raydistill.data.batch import ViewBatch
from raydistill.errors import SoftLabelError, TeacherGone
from raydistill.soft_labels.source import Labeller, Pending, StepViews, TeacherCost
from raydistill.soft_labels.store import LabelTable
from raydistill.soft_labels.tables import RunTables
from raydistill.soft_labels.targets import SoftTargets

POLL_S = 0.02  # between two looks at rows that another run is computing


@dataclass
class Question:
    """What one teacher is asked about one micro-batch.

    Attributes:
        table: None where nothing is kept.
        asked: positions in the batch that this stream has the teacher compute.
        pending: their answer, on its way.
        computed: rows that the teacher has computed for it.
    """

    teacher: str
    views: ViewBatch
    table: LabelTable | None
    asked: NDArray[np.int64]
    pending: Pending | None = None
    computed: int = 0
    logits: NDArray[np.float16] | None = None


Step = tuple[StepViews, list[Question]]


class LabelStream:
    """The one way from teachers and store to the student; see `SoftTargetSource`.

    A row that the store has is read. A missing one is claimed, asked and kept; one that another worker or run has
    claimed is waited for, so that no row is ever computed twice. A failed teacher changes nothing but the time.

    Args:
        config: of the run: what to do about lost teachers.
        teachers: those that are asked.
        labeller: answers for them; None: the store has to know everything.
        tables: of the store; None: every row is asked and nothing is kept.
        lets_go: of the labeller, as soon as the store knows everything.
    """

    def __init__(
        self,
        config: Config,
        teachers: Mapping[str, TeacherConfig],
        labeller: Labeller | None,
        tables: RunTables | None = None,
        lets_go: bool = True,
    ) -> None:
        self._teachers, self.tables, self._lets_go = teachers, tables, lets_go
        self.answer_through(labeller)
        self._on_loss = config.distill.on_teacher_loss
        self._costs = dict.fromkeys(teachers, TeacherCost())
        self._events: list[tuple[float, str]] = []
        self._lost: set[str] = set()

    def stream(self, batches: Iterable[StepViews]) -> Iterator[tuple[StepViews, dict[str, SoftTargets]]]:
        """See `SoftTargetSource.stream`. At most `window` micro-batches are asked ahead."""
        ahead: deque[Step] = deque()
        try:
            for step_views in batches:
                ahead.append((step_views, self._ask_all(step_views)))
                if len(ahead) >= self._window:
                    yield self._answer(ahead)
            while ahead:
                yield self._answer(ahead)
        finally:
            # Left early: others may compute what was asked and not heard.
            for _, questions in ahead:
                for question in questions:
                    if question.table and question.pending:
                        question.table.release(question.views.sample_ids[question.asked])

    def _ask_all(self, step_views: StepViews) -> list[Question]:
        return [
            self._ask(name, step_views[teacher.task])
            for name, teacher in self._teachers.items()
            if teacher.task in step_views and not (name in self._lost and self._on_loss == "hard_labels")
        ]

    def _ask(self, teacher: str, views: ViewBatch) -> Question:
        nothing = np.empty(0, dtype=np.int64)
        if self.tables is None:
            question = Question(teacher, views, None, nothing if teacher in self._lost else np.arange(len(views)))
        else:
            table = self.tables.open(teacher, views.view, self._event)
            rows = views.sample_ids
            question = Question(teacher, views, table, nothing)
            if not table.known(rows).all() and self.labeller and teacher not in self._lost:
                question.asked = _claim(table, rows)
        if len(question.asked):
            assert self.labeller is not None
            whole = len(question.asked) == len(views)
            question.pending = self.labeller.ask(teacher, views if whole else views.take(question.asked))
        return question

    def _answer(self, ahead: deque[Step]) -> tuple[StepViews, dict[str, SoftTargets]]:
        step_views, questions = ahead[0]
        for question in questions:
            self._hear(question)
            if question.logits is None:
                self._read(question, ahead)
        ahead.popleft()
        targets: dict[str, SoftTargets] = {}
        for question in questions:
            # A lost teacher of which nothing is known here leaves its task to the others, or to the labels.
            if question.logits is not None and not np.isnan(question.logits).all():
                said = targets.setdefault(self._teachers[question.teacher].task, SoftTargets({}))
                said.logits[question.teacher] = question.logits
        if self.labeller and self._lets_go and not any(q.pending for _, each in ahead for q in each):
            self._let_go()
        return step_views, targets

    def _hear(self, question: Question) -> None:
        """Wait for the teacher's answer and keep it."""
        if question.pending is None:
            return
        pending, question.pending = question.pending, None
        began = time.perf_counter()
        rows = question.views.sample_ids[question.asked]
        try:
            answer = pending.result()
        except BaseException as error:
            if question.table:
                question.table.release(rows)
            if isinstance(error, TeacherGone) and self._on_loss in ("stored", "hard_labels"):
                self._lose(question, error)
                return
            raise
        self._count(
            question.teacher,
            TeacherCost(
                len(rows), 0, answer.busy_s, time.perf_counter() - began, answer.failovers, answer.hedges, answer.gap_s
            ),
        )
        question.computed += len(rows)
        if question.table:
            question.table.write(rows, answer.logits)
        else:
            question.logits = answer.logits

    def _read(self, question: Question, ahead: deque[Step]) -> None:
        """The batch from the store; waits for rows that another run is computing."""
        table, rows = question.table, question.views.sample_ids
        if table is None or self.tables is None:
            return
        began = time.perf_counter()
        patience_s = self._teachers[question.teacher].timeout_s
        known = table.known(rows)
        while not known.all():
            if question.teacher in self._lost:
                self._read_known(question, known)
                return
            if self.labeller is None:
                raise SoftLabelError(
                    f"teacher {question.teacher!r}: no stored soft labels for {int((~known).sum())} rows of view "
                    f"{question.views.view}; run `raydistill label` first, or use another distill.soft_labels"
                )
            # Whoever computes them may wait for rows of ours: what is asked ahead is heard and written first.
            for _, questions in ahead:
                for other in questions:
                    self._hear(other)
            self.tables.flush()
            question.asked = _claim(table, rows)
            if not len(question.asked) and time.perf_counter() - began > patience_s:
                question.asked = np.flatnonzero(~table.known(rows))  # their owner lives and does nothing
            if len(question.asked):
                question.pending = self.labeller.ask(question.teacher, question.views.take(question.asked))
                self._hear(question)
            elif not table.known(rows).all():
                time.sleep(POLL_S)
            known = table.known(rows)
        question.logits = table.read(rows)
        seconds = time.perf_counter() - began
        cached = max(0, len(rows) - question.computed)
        waited_s = seconds if seconds > POLL_S else 0.0  # less is reading
        self._count(question.teacher, TeacherCost(samples_cached=cached, waited_s=waited_s))

    def _read_known(self, question: Question, known: NDArray[np.bool_]) -> None:
        """What the store has of a lost teacher; NaN for the rest."""
        assert question.table is not None
        rows = question.views.sample_ids
        question.logits = np.full((len(rows), question.table.num_classes), np.nan, dtype=np.float16)
        if known.any():
            question.logits[known] = question.table.read(rows[known])
        self._count(question.teacher, TeacherCost(samples_cached=int(known.sum())))

    def _lose(self, question: Question, error: TeacherGone) -> None:
        if question.teacher not in self._lost:
            self._lost.add(question.teacher)
            then = "stored soft labels only" if self._on_loss == "stored" and self.tables else "labels only"
            self._event(f"{error}; going on with {then}")

    def _let_go(self) -> None:
        """Once every view of every row is known, teachers have nothing to say any more."""
        if self.labeller and self.complete():
            self._event("the store has every soft label of this run: teachers are let go")
            self.labeller.close()
            self.answer_through(None)

    def _count(self, teacher: str, cost: TeacherCost) -> None:
        self._costs[teacher] += cost

    def _event(self, what: str) -> None:
        self._events.append((time.time(), what))

    def complete(self) -> bool:
        """Whether the store has every soft label that the run can ask for."""
        return self.tables is not None and self.tables.complete()

    def answer_through(self, labeller: Labeller | None) -> None:
        """Ask through another one from the next stream on; None: the store has to know everything."""
        self.labeller = labeller
        self._window = min((teacher.window for teacher in self._teachers.values()), default=1) if labeller else 1

    @property
    def way(self) -> str:
        """Where soft labels come from now."""
        return "stored" if self.labeller is None else self.labeller.way

    def cost(self) -> dict[str, TeacherCost]:
        """See `SoftTargetSource.cost`."""
        return dict(self._costs)

    def events(self) -> list[tuple[float, str]]:
        """See `SoftTargetSource.events`."""
        own, self._events = self._events, []
        theirs = self.labeller.events() if self.labeller else []
        return sorted(own + theirs)

    def close(self) -> None:
        """See `SoftTargetSource.close`."""
        if self.tables:
            self.tables.close()
        if self.labeller:
            self.labeller.close()


def _claim(table: LabelTable, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions of the rows that are now ours to have computed, in the order of the batch, none twice."""
    table.refresh()
    unique, first = np.unique(rows, return_index=True)
    missing = ~table.known(unique)
    if not missing.any():
        return np.empty(0, dtype=np.int64)
    ours = table.claim(unique[missing])
    return np.sort(first[missing][ours])
