"""Every teacher's word on every row that a run needs: from the store, or from the teachers and then into the store."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from raydistill.commands.experts import Experts
from raydistill.commands.preparing import cache_folder
from raydistill.commands.progress import Progress
from raydistill.config.models import Config
from raydistill.data.dataset import TaskData
from raydistill.soft_labels.source import TeacherCost
from raydistill.soft_labels.store import LabelStore, StoredSource
from raydistill.soft_labels.targets import fuse
from raydistill.teachers.labelling import LabelJob, check_teacher, label_split, training_views

Logits = NDArray[np.float16]


@dataclass
class Labels:
    """What the teachers said.

    Attributes:
        plain: [split][task][teacher] -> logits of the plain view; splits validation and test.
        train: [task][teacher][view] -> logits; empty unless soft labels are `stored`.
        cost: of the asking.
    """

    plain: dict[str, dict[str, dict[str, Logits]]] = field(default_factory=lambda: {"validation": {}, "test": {}})
    train: dict[str, dict[str, dict[int, Logits]]] = field(default_factory=dict)
    cost: TeacherCost = field(default_factory=TeacherCost)

    def ensemble(self, split: str, task: str) -> NDArray[np.float32]:
        """The fused logits of a task's teachers on a split."""
        return fuse(list(self.plain[split][task].values()))

    def ensemble_accuracy(self, data: dict[str, TaskData], split: str = "validation") -> dict[str, float]:
        """By task: how often the fused teachers are right."""
        return {name: _accuracy(self.ensemble(split, name), getattr(task, split).labels) for name, task in data.items()}

    def source(self) -> StoredSource:
        """The training labels as a source for the student."""
        return StoredSource(self.train)


def collect_labels(
    config: Config,
    data: dict[str, TaskData],
    at_hand: Experts,
    progress: Progress,
    with_train: bool,
) -> Labels:
    """Ask all teachers; the plain views first, so that a teacher that knows nothing is found before the long part.

    Args:
        with_train: the training views too.

    Raises:
        TeacherError: at chance level, dead or silent. SoftLabelError: the store cannot be written.
    """
    store = LabelStore(cache_folder(config) / "soft_labels", progress.event)
    labels, lock, costs = Labels(), threading.Lock(), []

    def ask(name: str, split: str, view: int) -> Logits:
        teacher = config.teachers[name]
        job = LabelJob(
            name, at_hand.descriptions[name]["fingerprint"], teacher.task, getattr(data[teacher.task], split), view,
            teacher.batch_size,
        )  # fmt: skip
        logits, cost = label_split(job, at_hand.sources[name], store, progress)
        with lock:
            costs.append(cost)
        return logits

    def check(name: str) -> None:
        teacher = config.teachers[name]
        for split in ("validation", "test"):
            logits = ask(name, split, 0)
            with lock:
                labels.plain[split].setdefault(teacher.task, {})[name] = logits
        known = labels.plain["validation"][teacher.task][name]
        accuracy = check_teacher(name, data[teacher.task], known, teacher.allow_chance_level)
        progress.say(f"teachers: {name}: own accuracy on validation {accuracy:.3f}")

    def teach_on(name: str) -> None:
        task = config.teachers[name].task
        for view in training_views(config.tasks[task]):
            logits = ask(name, "train", view)
            with lock:
                labels.train.setdefault(task, {}).setdefault(name, {})[view] = logits

    _for_each(check, list(config.teachers), at_hand.remote)
    if with_train:
        _for_each(teach_on, list(config.teachers), at_hand.remote)
    # Threads finish in any order; sums of floats and the fused mean should not depend on it.
    for by_task in labels.plain.values():
        for task in by_task:
            by_task[task] = {name: by_task[task][name] for name in config.teachers if name in by_task[task]}
    labels.train = {
        task: {name: teachers[name] for name in config.teachers if name in teachers}
        for task, teachers in labels.train.items()
    }
    labels.cost = total_cost(costs)
    return labels


def total_cost(costs: list[TeacherCost]) -> TeacherCost:
    """The sum."""
    return TeacherCost(
        sum(cost.samples for cost in costs),
        sum(cost.samples_cached for cost in costs),
        sum(cost.busy_s for cost in costs),
    )


def _for_each(work: Callable[[str], None], names: list[str], remote: bool) -> None:
    if not remote:
        for name in names:
            work(name)
        return
    # They run elsewhere, here is only waiting: a thread each.
    pool = ThreadPoolExecutor(max_workers=max(1, len(names)))
    try:
        for future in [pool.submit(work, name) for name in names]:
            future.result()
    finally:
        # After an error or Ctrl-C nobody waits for the others: their actors are about to end, and they with them.
        pool.shutdown(wait=False, cancel_futures=True)


def _accuracy(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    labelled = labels >= 0
    return float((logits.argmax(axis=1)[labelled] == labels[labelled]).mean())
