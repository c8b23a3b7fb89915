"""One training of benchmarks/methods.py: what it comes to, and what a step of it costs."""

from __future__ import annotations

import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from threading import Semaphore
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from raydistill.commands.known import KnownTeachers
    from raydistill.config.models import Config
    from raydistill.training.plan import TrainingPlan

LAYER = {"teacher": "resnet", "teacher_layer": "network.layer4", "student_layer": "trunk"}
INTERVALS, STEPS = 30, 2  # of the log, of so many steps


@dataclass(frozen=True)
class Job:
    """One training."""

    kind: str
    method: str
    seed: int
    arm: str
    distill: dict[str, Any]
    training: dict[str, Any]


PLAIN = Job("plain", "kl", 0, "distilled", {}, {})


_here: tuple[Any, ...] = ()


def begin(config: Config, known: KnownTeachers, folder: str) -> None:
    """Of a process that trains."""
    global _here
    import torch

    from raydistill.data.dataset import load_task_data

    torch.set_num_threads(1)
    cache = Path(config.cache_dir).expanduser()
    data = {name: load_task_data(name, task, cache) for name, task in config.tasks.items()}
    _here = (config, known, Path(folder), data)


def plan_of(job: Job, run: str) -> TrainingPlan:
    from filelock import FileLock

    from raydistill.commands.experts import _load
    from raydistill.commands.known import source_plan
    from raydistill.commands.students import make_student
    from raydistill.config.loader import load_config
    from raydistill.training.plan import TrainingPlan

    base, known, folder, data = _here
    content = base.model_dump(mode="json")
    content["distill"].update(job.distill)
    content["training"].update(job.training)
    content["seed"] = job.seed
    config = load_config(content)
    initial = folder / f"initial-{job.seed}"
    with FileLock(folder / "lock"):
        if not initial.exists():
            make_student(config, data, job.seed, initial)
    label_names = {name: task.label_names for name, task in data.items()}
    features = config.distill.features
    ways = {"local": partial(_load, config, label_names)} if features else {}
    shapes = {
        name: known.feature_shapes["attention" if each.loss == "attention" else "hint"]
        for name, each in features.items()
    }
    own = replace(known, ways=ways, feature_shapes=shapes)
    taught = job.arm == "distilled"
    return TrainingPlan(
        config, job.arm, job.seed, initial, folder / run, folder / run / "tensorboard", known.ensemble_accuracy,
        known.standings if taught else {}, source_plan(config, data, own) if taught else None, shapes,
    )  # fmt: skip


def train(job: Job, index: int) -> dict[str, float]:
    """Test accuracy by task."""
    import torch

    from raydistill.student.model import Student
    from raydistill.student.predicting import predict_split
    from raydistill.training.checkpoint import BEST
    from raydistill.training.loop import train_student

    plan, data = plan_of(job, str(index)), _here[3]
    train_student(plan, data)
    student = Student.from_pretrained(str(plan.initial_student))
    student.load_state_dict(torch.load(plan.folder / BEST, weights_only=True))
    said = {name: predict_split(student.eval(), name, task.test) for name, task in data.items()}
    return {name: student.tasks[name].metric(said[name], task.test.labels) for name, task in data.items()}


def cost(job: Job, index: int) -> tuple[float, float]:
    """CPU time of a step, in milliseconds, and over that of a step of plain distillation, with two steps of each in
    turns, so that both meet the same machine."""
    turns = _Turns()
    with ThreadPoolExecutor(2) as threads:
        plain = threads.submit(turns.take, 0, PLAIN, f"cost-{index}-plain")
        seconds = threads.submit(turns.take, 1, job, f"cost-{index}").result()
        return 1e3 * sum(seconds) / len(seconds) / STEPS, sum(seconds) / sum(plain.result())


class _Turns:
    """Two trainings in threads, of which one works at a time."""

    def __init__(self) -> None:
        self._mine = (Semaphore(1), Semaphore(0))

    def take(self, number: int, job: Job, run: str) -> list[float]:
        """Seconds of CPU of each interval, without the first, which starts things."""
        from raydistill.training import loop

        loop.LOG_EVERY = STEPS
        seconds: list[float] = []
        began = 0.0

        def on_log(line: dict[str, Any]) -> None:
            nonlocal began
            seconds.append(time.process_time() - began)
            if len(seconds) > INTERVALS:
                raise _Enough
            self._mine[1 - number].release()
            self._mine[number].acquire()
            began = time.process_time()

        self._mine[number].acquire()
        training = {**job.training, "evaluate_every": 10_000}
        try:
            with contextlib.suppress(_Enough):
                loop.train_student(plan_of(replace(job, training=training), run), _here[3], on_log=on_log)
        finally:
            self._mine[1 - number].release()
        return seconds[1:]


class _Enough(Exception):
    pass
