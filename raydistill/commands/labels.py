"""Every teacher's word on every row that a run needs ahead of training: from the store, or asked and then stored."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from raydistill.commands.experts import Experts
from raydistill.commands.ledger import Ledger
from raydistill.commands.progress import Progress
from raydistill.config.distill import DistillConfig
from raydistill.config.models import Config
from raydistill.data.dataset import TaskData
from raydistill.fusion.fuser import ensemble
from raydistill.fusion.standing import Standing, logit_scale
from raydistill.soft_labels.source import TeacherCost, add_costs
from raydistill.tasks import task_of
from raydistill.teachers.labelling import LabelJob, check_teacher, label_split, read_labels, training_views

Logits = NDArray[np.float16]
T = TypeVar("T")


@dataclass
class Labels:
    """What the teachers said.

    Attributes:
        distill: how they are fused.
        plain: [split][task][teacher] -> logits of the plain view; splits validation and test.
        standings: [task][teacher], by the validation split.
        costs: of the asking, by teacher.
    """

    distill: DistillConfig
    plain: dict[str, dict[str, dict[str, Logits]]] = field(default_factory=lambda: {"validation": {}, "test": {}})
    standings: dict[str, dict[str, Standing]] = field(default_factory=dict)
    costs: dict[str, TeacherCost] = field(default_factory=dict)

    def add(self, teacher: str, cost: TeacherCost) -> None:
        """More of a teacher's cost."""
        self.costs = add_costs(self.costs, {teacher: cost})

    def ensemble(self, split: str, task: str) -> NDArray[np.float32]:
        """The fused logits of a task's teachers on a split."""
        return ensemble(self.distill, task, list(self.standings[task].values()), self.plain[split][task])

    def by_task(self) -> dict[str, tuple[Standing, ...]]:
        """The teachers of each task as fusing wants to know them."""
        return {task: tuple(standings.values()) for task, standings in self.standings.items()}

    def ensemble_accuracy(self, data: dict[str, TaskData], split: str = "validation") -> dict[str, float]:
        """By task: the metric of the fused teachers."""
        return {
            name: task_of(task).metric(self.ensemble(split, name), getattr(task, split).labels)
            for name, task in data.items()
        }


def training_jobs(config: Config, data: dict[str, TaskData], descriptions: dict[str, dict[str, str]]) -> list[LabelJob]:
    """What a distilled student will hear, a job for each teacher."""
    return [label_job(config, data, name, str(descriptions[name]["fingerprint"]), "train") for name in config.teachers]


def label_job(config: Config, data: dict[str, TaskData], name: str, fingerprint: str, split: str) -> LabelJob:
    """A teacher and a split: the training rows in all their views, others as they are."""
    task = config.teachers[name].task
    views = training_views(config.tasks[task]) if split == "train" else (0,)
    return LabelJob(name, fingerprint, task, getattr(data[task], split), len(data[task].label_names), views)


def collect_labels(
    config: Config,
    data: dict[str, TaskData],
    at_hand: Experts,
    progress: Progress,
    ledger: Ledger,
    with_train: bool,
) -> Labels:
    """Ask all teachers; the plain views first, so that a teacher that knows nothing is found before the long part.

    Args:
        ledger: of the run, which it may take several processes to fill.
        with_train: the training views too.

    Raises:
        TeacherError: at chance level, dead or silent. SoftLabelError: the store cannot be written.
    """
    labels, lock = Labels(config.distill), threading.Lock()

    def ask(name: str, split: str) -> LabelJob:
        job = label_job(config, data, name, str(at_hand.descriptions[name]["fingerprint"]), split)
        cost = label_split(
            config, job, at_hand.labeller, progress.event, progress, lambda so_far: ledger.keep(name, split, so_far)
        )
        ledger.keep(name, split, cost, ended=True)
        return job

    def check(name: str) -> None:
        teacher = config.teachers[name]
        for split in ("validation", "test"):
            logits = read_labels(config, ask(name, split), 0)
            with lock:
                labels.plain[split].setdefault(teacher.task, {})[name] = logits
        known = labels.plain["validation"][teacher.task][name]
        task = data[teacher.task]
        score = check_teacher(name, task, known, teacher.allow_chance_level)
        standing = Standing(name, score, logit_scale(known, task.kind), task.kind)
        with lock:
            labels.standings.setdefault(teacher.task, {})[name] = standing
        unknown = at_hand.descriptions[name]["unknown_classes"]
        of_all, what = len(task.label_names), "classes" if task.kind == "classification" else "labels"
        part = f", of the {of_all - len(unknown)} of {of_all} {what} that it knows" if unknown else ""
        progress.say(f"teachers: {name}: own {task_of(task).metric_name} on validation {score:.3f}{part}")

    _for_each(check, list(config.teachers), at_hand.remote)
    if with_train:
        _for_each(lambda name: ask(name, "train"), list(config.teachers), at_hand.remote)
    # Threads finish in any order; sums of floats and the fused mean should not depend on it.
    labels.plain = {split: _in_order(config, by_task) for split, by_task in labels.plain.items()}
    labels.standings = _in_order(config, labels.standings)
    costs = ledger.costs()
    labels.costs = {name: costs[name] for name in config.teachers}
    return labels


def _in_order(config: Config, by_task: dict[str, dict[str, T]]) -> dict[str, dict[str, T]]:
    return {task: {name: by[name] for name in config.teachers if name in by} for task, by in by_task.items()}


def _for_each(work: Callable[[str], object], names: list[str], remote: bool) -> None:
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
