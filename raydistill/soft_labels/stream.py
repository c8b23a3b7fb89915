"""Soft labels for a stream of micro-batches: from the store where it has them, from the teachers where it has not."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from raydistill.config.models import Config, TeacherConfig
from raydistill.data.batch import ViewBatch
from raydistill.errors import SoftLabelError, TeacherGone
from raydistill.soft_labels.layers import NO_LAYERS, Layers
from raydistill.soft_labels.questions import Question, claim, soft_targets
from raydistill.soft_labels.source import Labeller, StepViews, TeacherCost
from raydistill.soft_labels.tables import RunTables
from raydistill.soft_labels.targets import SoftTargets

POLL_S = 0.02  # between two looks at rows that another run is computing
PATIENCE_S = 30.0  # with rows that another run has claimed

Step = tuple[StepViews, list[Question]]


class LabelStream:
    """The one way from teachers and store to the student; see `SoftTargetSource`.

    A row that the store has is read. A missing one is claimed, asked and kept; one that another worker or run has
    claimed is waited for, so that it is computed once. Where the other one lives and has not come to it for 30 s, it is
    asked here, too; the next time it is waited for half as long. A failed teacher changes nothing but the time.

    Args:
        config: of the run: what to do about lost teachers.
        teachers: those that are asked.
        labeller: answers for them; None: the store has to know everything.
        tables: of the store; None: every row is asked and nothing is kept.
        lets_go: of the labeller, as soon as the store knows everything.
        layers: by teacher, those whose features are wanted, too: such a teacher is asked about every row, every time,
            where the tables do not keep them.
    """

    def __init__(
        self,
        config: Config,
        teachers: Mapping[str, TeacherConfig],
        labeller: Labeller | None,
        tables: RunTables | None = None,
        lets_go: bool = True,
        layers: Mapping[str, Layers] | None = None,
    ) -> None:
        self._layers = layers or {}
        self._teachers, self.tables, self._lets_go = teachers, tables, lets_go
        self._on_loss = config.distill.on_teacher_loss
        self._costs = dict.fromkeys(teachers, TeacherCost())
        self._overtaken = dict.fromkeys(teachers, 0)
        self._events: list[tuple[float, str]] = []
        self._lost: set[str] = set()
        self.labeller: Labeller | None = None
        self.answer_through(labeller)

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
        asks_always = self.tables is None or (teacher in self._layers and teacher not in self.tables.kept_layers)
        if self.tables is None or (asks_always and teacher not in self._lost):
            question = Question(teacher, views, None, nothing if teacher in self._lost else np.arange(len(views)))
        else:
            table = self.tables.open(teacher, views.view, self._event)
            rows = views.sample_ids
            question = Question(teacher, views, table, nothing)
            if not table.known(rows).all() and self.labeller and teacher not in self._lost:
                question.asked = claim(table, rows)
        if len(question.asked):
            assert self.labeller is not None
            whole = len(question.asked) == len(views)
            self._send(question, views if whole else views.take(question.asked))
        return question

    def _send(self, question: Question, views: ViewBatch) -> None:
        assert self.labeller is not None
        layers = self._layers.get(question.teacher, NO_LAYERS)
        question.pending = self.labeller.ask(question.teacher, views, layers)

    def _answer(self, ahead: deque[Step]) -> tuple[StepViews, dict[str, SoftTargets]]:
        step_views, questions = ahead[0]
        for question in questions:
            self._hear(question)
            if question.logits is None:
                self._read(question, ahead)
        ahead.popleft()
        if self.labeller and self._lets_go and not any(q.pending for _, each in ahead for q in each):
            self._let_go()
        return step_views, soft_targets(questions, self._teachers)

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
            if isinstance(error, TeacherGone):
                gap_s = time.perf_counter() - began
                self._count(question.teacher, TeacherCost(waited_s=gap_s, failovers=error.failovers, worst_gap_s=gap_s))
                if self._on_loss in ("stored", "hard_labels"):
                    self._lose(question, error)
                    if question.table is None and self.tables is not None:  # what others have had it say is there still
                        question.table = self.tables.open(question.teacher, question.views.view, self._event)
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
            kept = self.tables.kept_layers.get(question.teacher) if self.tables else None
            question.table.write(rows, kept.pack(answer.logits, answer.features) if kept else answer.logits)
        else:
            question.logits, question.features = answer.logits, answer.features

    def _read(self, question: Question, ahead: deque[Step]) -> None:
        """The batch from the store; waits for rows that another run is computing."""
        table, rows = question.table, question.views.sample_ids
        if table is None or self.tables is None:
            return
        waited_s, overtaken = 0.0, self._overtaken[question.teacher]
        patience_s = min(PATIENCE_S, self._teachers[question.teacher].timeout_s) / 2**overtaken
        known = table.known(rows)
        while not known.all():
            if question.teacher in self._lost:
                self._read_known(question)
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
            question.asked = claim(table, rows)
            if not len(question.asked) and waited_s > patience_s:
                question.asked = np.flatnonzero(~table.known(rows))
                self._overtake(question.teacher)
            if len(question.asked):
                self._send(question, question.views.take(question.asked))
                self._hear(question)
            elif not table.known(rows).all():
                began = time.perf_counter()
                time.sleep(POLL_S)
                waited_s += time.perf_counter() - began
            known = table.known(rows)
        if waited_s and self._overtaken[question.teacher] == overtaken:
            self._overtaken[question.teacher] = 0  # it was worth it
        self._unpack(question, table.read(rows))
        cached = max(0, len(rows) - question.computed)
        self._count(question.teacher, TeacherCost(samples_cached=cached, waited_s=waited_s))

    def _unpack(self, question: Question, values: NDArray[np.float16]) -> None:
        kept = self.tables.kept_layers.get(question.teacher) if self.tables else None
        question.logits, question.features = kept.unpack(values) if kept else (values, {})

    def _overtake(self, teacher: str) -> None:
        """Whoever claims far more than he can answer soon, as `raydistill label` does, must not hold up a student."""
        if not self._overtaken[teacher]:
            self._event(f"teacher {teacher!r}: another run has claimed rows and does not come to them; asked here, too")
        self._overtaken[teacher] = min(30, self._overtaken[teacher] + 1)

    def _read_known(self, question: Question) -> None:
        """What the store has of a lost teacher; NaN for the rest."""
        assert question.table is not None
        question.table.refresh()  # others may hear it still
        rows = question.views.sample_ids
        known = question.table.known(rows)
        values = np.full((len(rows), question.table.num_classes), np.nan, dtype=np.float16)
        if known.any():
            values[known] = question.table.read(rows[known])
        self._unpack(question, values)
        self._count(question.teacher, TeacherCost(samples_cached=max(0, int(known.sum()) - question.computed)))

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
        if self.tables is None or self._layers.keys() - self.tables.kept_layers:
            return False
        return self.tables.complete(self._event)

    def answer_through(self, labeller: Labeller | None) -> None:
        """Ask through another one from the next stream on; None: the store has to know everything."""
        if self.labeller:
            self._events += self.labeller.events()
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

    def flush(self) -> None:
        """See `SoftTargetSource.flush`."""
        if self.tables:
            self.tables.flush()

    def close(self) -> None:
        """See `SoftTargetSource.close`."""
        try:
            if self.tables:
                self.tables.close()
        finally:
            if self.labeller:
                self.labeller.close()
