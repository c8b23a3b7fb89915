"""Ask a teacher about every row of a split that the store does not know yet."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from raydistill.config.data import TaskConfig
from raydistill.config.models import Config
from raydistill.data.dataset import Split, TaskData
from raydistill.data.ordering import sorted_batches
from raydistill.errors import TeacherError
from raydistill.fusion.standing import asked_about
from raydistill.soft_labels.source import Labeller, StepViews, TeacherCost
from raydistill.soft_labels.stream import LabelStream
from raydistill.soft_labels.tables import RunTables, TaughtSplit
from raydistill.tasks import task_of

Progress = Callable[[str], None]


@dataclass(frozen=True)
class LabelJob:
    """One teacher's word on some views of one split."""

    teacher: str
    fingerprint: str
    task: str
    split: Split
    num_classes: int
    views: tuple[int, ...]

    @property
    def taught(self) -> TaughtSplit:
        """Where the store keeps it."""
        return TaughtSplit(
            self.fingerprint, self.task, self.split.name, self.split.fingerprint, len(self.split), self.num_classes,
            self.views,
        )  # fmt: skip


def training_views(task: TaskConfig) -> tuple[int, ...]:
    """The views that a distilled student draws from."""
    return tuple(range(1, task.num_views + 1)) or (0,)


def missing_batches(split: Split, known: NDArray[np.bool_], batch_size: int) -> list[NDArray[np.int64]]:
    """The rows that are not known, those of like length together, shortest first."""
    missing = np.flatnonzero(~known)
    lengths = split.lengths
    chunks = sorted_batches(len(missing), None if lengths is None else lengths[missing], batch_size)
    return [missing[chunk] for chunk in chunks]


def label_split(
    config: Config,
    job: LabelJob,
    labeller: Labeller | None,
    report: Callable[[str], None],
    progress: Progress,
    keep: Callable[[TeacherCost], None] = lambda cost: None,
) -> TeacherCost:
    """Make sure that the store knows all rows of the job's views; what it does not know, the teacher is asked.

    Args:
        config: of the run: the store's, and what to do about a lost teacher.
        labeller: answers for this job's teacher, at least; None: the store has to know.
        report: hears of damaged shards that are made again, and of replicas that were lost.
        progress: hears how far it is.
        keep: hears what it has cost so far, batch by batch.

    Returns:
        What was computed, and what the store had.

    Raises:
        TeacherError: the teacher is gone or refuses. SoftLabelError: the store cannot be read or written.
    """
    settings = config.teachers[job.teacher]
    tables = RunTables(config, {job.teacher: job.taught})
    # A teacher that is lost now cannot be done without: nothing is known of it yet.
    strict = config.model_copy(update={"distill": config.distill.model_copy(update={"on_teacher_loss": "fail"})})
    stream = LabelStream(strict, {job.teacher: settings}, labeller, tables, lets_go=False)
    every = np.arange(len(job.split))
    began = time.monotonic()
    cached = 0
    try:
        for view in job.views:
            table = tables.open(job.teacher, view, report)
            table.refresh()
            table.check()
            known = table.known(every)
            cached += int(known.sum())
            chunks = missing_batches(job.split, known, settings.batch_size)
            done, of = 0, sum(len(chunk) for chunk in chunks)

            def batches(chunks: list[NDArray[np.int64]] = chunks, view: int = view) -> Iterator[StepViews]:
                for rows in chunks:
                    yield {job.task: job.split.views(rows, view)}

            for step_views, _ in stream.stream(batches()):
                done += len(step_views[job.task])
                keep(stream.cost()[job.teacher])
                rate = done / max(1e-9, time.monotonic() - began)
                what = f"{job.split.name} view {view}" if view else job.split.name
                progress(
                    f"soft labels: {job.teacher}: {what}, {done:,}/{of:,} rows, {rate:,.0f} samples/s, "
                    f"{(of - done) / rate:.0f} s left"
                )
                for _, event in stream.events():
                    report(event)
    finally:
        tables.close()
    cost = stream.cost()[job.teacher]
    # What another run computed meanwhile is the store's, too; what was read back after asking is not.
    others = max(0, len(every) * len(job.views) - cached - cost.samples)
    return replace(cost, samples_cached=cached + others, waited_s=0.0)


def read_labels(config: Config, job: LabelJob, view: int) -> NDArray[np.float16]:
    """Logits [num_rows, num_classes] of a view that the store knows.

    Raises:
        SoftLabelError: it does not know all of it.
    """
    tables = RunTables(config, {job.teacher: job.taught})
    try:
        return tables.open(job.teacher, view).read(np.arange(len(job.split)))
    finally:
        tables.close()


def check_teacher(name: str, data: TaskData, validation_logits: NDArray[np.float16], allowed: bool) -> float:
    """The teacher's own metric on the validation split: the proof that its weights and labels are the right ones.

    Raises:
        TeacherError: no better than the best answer that is the same for every row, by three standard errors.
    """
    task = task_of(data)
    labels = asked_about(validation_logits, data.validation.labels)
    score = task.metric(validation_logits, labels) if task.is_labelled(labels).any() else math.nan
    if math.isnan(score):
        what = "class" if data.kind == "classification" else "label"
        raise TeacherError(f"teacher {name!r} knows no {what} that a row of the validation split of {data.name!r} has")
    least, constant = task.floor(validation_logits, labels)
    if score < least and not allowed:
        raise TeacherError(
            f"teacher {name!r} is at chance level: {score:.3f} on the validation split of {data.name!r}, where "
            f"{constant}; check its checkpoint, label_names and preparation, or set "
            f"teachers.{name}.allow_chance_level=true"
        )
    return score
