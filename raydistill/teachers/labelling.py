"""Ask every teacher about every row of a split once, and keep the answers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raydistill.config.models import TaskConfig
from raydistill.data.dataset import Split, TaskData
from raydistill.data.ordering import sorted_batches
from raydistill.errors import TeacherError
from raydistill.soft_labels.source import SoftTargetSource, StepViews, TeacherCost
from raydistill.soft_labels.store import LabelKey, LabelStore

Progress = Callable[[str], None]


@dataclass(frozen=True)
class LabelJob:
    """One teacher's word on one view of one split."""

    teacher: str
    fingerprint: str
    task: str
    split: Split
    view: int
    batch_size: int

    @property
    def key(self) -> LabelKey:
        """Where the store keeps it."""
        return LabelKey(self.fingerprint, self.split.fingerprint, self.view)


def training_views(task: TaskConfig) -> list[int]:
    """The views that a distilled student draws from."""
    return list(range(1, task.num_views + 1)) or [0]


def label_split(
    job: LabelJob, source: SoftTargetSource, store: LabelStore, progress: Progress
) -> tuple[NDArray[np.float16], TeacherCost]:
    """Logits [num_rows, num_classes] from the store, or from the teacher and then into the store.

    Args:
        source: answers for this job's teacher, at least.
    """
    known = store.read(job.key, len(job.split))
    if known is not None:
        return known, TeacherCost(samples_cached=len(known))

    chunks = sorted_batches(len(job.split), job.split.lengths, job.batch_size)

    def batches() -> Iterator[StepViews]:
        for rows in chunks:
            yield {job.task: job.split.views(rows, job.view)}

    before, began = source.cost(), time.monotonic()
    answers: list[NDArray[np.float16]] = []
    done = 0
    for _, targets in source.stream(batches()):
        answers.append(targets[job.task].logits[job.teacher])
        done += len(answers[-1])
        rate = done / max(1e-9, time.monotonic() - began)
        what = f"{job.split.name} view {job.view}" if job.view else job.split.name
        progress(
            f"soft labels: {job.teacher}: {what}, {done:,}/{len(job.split):,} rows, {rate:,.0f} samples/s, "
            f"{(len(job.split) - done) / rate:.0f} s left"
        )
    logits = np.concatenate(answers)
    logits[np.concatenate(chunks)] = logits.copy()
    store.write(job.key, logits)
    after = source.cost()
    return logits, TeacherCost(after.samples - before.samples, 0, after.busy_s - before.busy_s)


def check_teacher(name: str, data: TaskData, validation_logits: NDArray[np.float16], allowed: bool) -> float:
    """The teacher's own accuracy on the validation split: the proof that its weights and labels are the right ones.

    Raises:
        TeacherError: no better than always naming the commonest class, by three standard errors.
    """
    labels = data.validation.labels
    labelled = labels >= 0
    accuracy = float((validation_logits.argmax(axis=1)[labelled] == labels[labelled]).mean())
    commonest = float(np.bincount(labels[labelled]).max() / labelled.sum())
    margin = 3 * (commonest * (1 - commonest) / labelled.sum()) ** 0.5
    # A small validation split cannot ask for more than it can show.
    if accuracy < min(commonest + margin, (1 + commonest) / 2) and not allowed:
        raise TeacherError(
            f"teacher {name!r} is at chance level: {accuracy:.3f} on the validation split of {data.name!r}, where the "
            f"commonest class alone gives {commonest:.3f}; check its checkpoint, label_names and preparation, or set "
            f"teachers.{name}.allow_chance_level=true"
        )
    return accuracy
