"""The student at work for a moment: the real training loop, with a clock in the place of its teachers."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch

from raydistill.commands.probe import inputs_timed_on, torch_threads, work
from raydistill.commands.students import make_student
from raydistill.config.models import Config
from raydistill.data.dataset import Split, TaskData
from raydistill.data.preparing import Preparer, prepared
from raydistill.evaluation.models import student_latency_ms
from raydistill.fusion.standing import Standing
from raydistill.planning.measured import Work
from raydistill.soft_labels.source import StepViews, TeacherCost
from raydistill.soft_labels.targets import SoftTargets
from raydistill.student.model import Student
from raydistill.timing import median_ms
from raydistill.training.batches import plan_rows
from raydistill.training.loop import train_student
from raydistill.training.plan import TrainingPlan
from raydistill.training.sampler import MicroBatch

WARM_UP_STEPS, WARM_UP_S = 3, 2.0  # whichever comes first
STEPS, LEAST_STEPS, BUDGET_S = 100, 2, 3.0  # that are measured: at most, at least, and seconds
ENDLESS = 10**6
EXAM_ROWS = 128


class _EnoughError(Exception):
    """Ends a training that was only looked at."""


class _Clock:
    """A `SoftTargetSource` that knows everything, zeros, and times the loop that it feeds: from one optimizer step to
    the next, as `auto` does with micro-batches."""

    way = "stored"

    def __init__(self, teachers: Mapping[str, str], num_classes: Mapping[str, int], micro_per_step: int) -> None:
        self._teachers, self._num_classes, self._micro_per_step = teachers, num_classes, micro_per_step
        self.step_s = self.cores = 0.0

    def stream(self, batches: Iterable[StepViews]) -> Iterator[tuple[StepViews, dict[str, SoftTargets]]]:
        """Until enough has been seen."""
        began = time.perf_counter()
        start: tuple[int, float, float] | None = None
        for number, views in enumerate(batches):
            step, within = divmod(number, self._micro_per_step)
            if not within and step:
                now = _now()
                if start is not None:
                    steps, seconds = step - start[0], now - start[1]
                    if steps >= STEPS or (steps >= LEAST_STEPS and seconds >= BUDGET_S):
                        self.step_s, self.cores = seconds / steps, (time.process_time() - start[2]) / seconds
                        raise _EnoughError
                elif step >= WARM_UP_STEPS or now - began >= WARM_UP_S:
                    start = step, now, time.process_time()
            yield views, self._zeros(views)

    def _zeros(self, views: StepViews) -> dict[str, SoftTargets]:
        targets: dict[str, SoftTargets] = {}
        for teacher, task in self._teachers.items():
            logits = np.zeros((len(views[task]), self._num_classes[task]), np.float16)
            targets.setdefault(task, SoftTargets({})).logits[teacher] = logits
        return targets

    def cost(self) -> dict[str, TeacherCost]:
        """None."""
        return {}

    def events(self) -> list[tuple[float, str]]:
        """None."""
        return []

    def flush(self) -> None:
        """Nothing is kept."""

    def close(self) -> None:
        """Nothing is held."""


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()  # what is queued is not done
    return time.perf_counter()


def probe_student(config: Config, data: dict[str, TaskData], threads: int, device: torch.device) -> tuple[Work, Work]:
    """A micro-batch of one worker's training, and the validation of all tasks.

    Args:
        threads: of torch.

    Raises:
        ConfigError: as `make_student`.
    """
    config = bare(config)
    with tempfile.TemporaryDirectory(prefix="raydistill-plan-") as folder, torch_threads(threads):
        initial = Path(folder) / "student"
        student = make_student(config, data, config.seed, initial)
        micro_per_step = config.training.gradient_accumulation
        clock = _Clock(
            {name: teacher.task for name, teacher in config.teachers.items()},
            {name: len(task.label_names) for name, task in data.items()},
            micro_per_step,
        )
        plan = TrainingPlan(
            config=config, arm="distilled", seed=config.seed, initial_student=initial, folder=Path(folder) / "run",
            tensorboard=Path(folder) / "tensorboard", ensemble_accuracy={}, standings=_standings(config),
            open_source=lambda: clock,
        )  # fmt: skip
        with contextlib.suppress(_EnoughError):
            train_student(plan, data, device=device)
        inputs_on = inputs_timed_on(device, config.training.placement.num_gpus)
        rows, host_s = _inputs(config, data, student, inputs_on)
        learning = work(rows, clock.step_s / micro_per_step, host_s, clock.cores)
        return learning, _exam(student.to(device).eval(), data, clock.cores)


def bare(config: Config) -> Config:
    """The config of one worker that never validates. Where weights come from changes no time; what feature losses take
    is left out."""
    training = {"num_workers": 0, "min_workers": None, "num_steps": ENDLESS, "evaluate_every": ENDLESS}
    return config.model_copy(
        update={
            "training": config.training.model_copy(update=training),
            "student": config.student.model_copy(update={"embeddings_from": None, "layers_from": None}),
            "distill": config.distill.model_copy(update={"features": {}}),
        }
    )


def _standings(config: Config) -> dict[str, tuple[Standing, ...]]:
    return {
        task: tuple(Standing(name, 1.0, 1.0, settings.kind) for name in config.teachers_of(task))
        for task, settings in config.tasks.items()
        if config.teachers_of(task)
    }


def _inputs(config: Config, data: dict[str, TaskData], student: Student, device: torch.device) -> tuple[int, float]:
    """Rows of a micro-batch of all tasks, and the seconds that its inputs take the host."""
    rows, seconds = 0, 0.0
    for name, planned in plan_rows(config, data, "distilled", config.seed).items():
        drawn, split, prepare = planned.sampler.micro_batch(0), data[name].train, student.preparer(name)
        seconds += median_ms(partial(_prepared, split, drawn, prepare, device), budget_s=0.2) / 1e3
        rows += len(drawn.rows)
    return rows, seconds


def _prepared(split: Split, drawn: MicroBatch, prepare: Preparer, device: torch.device) -> object:
    return prepared(prepare, split.views(drawn.rows, drawn.view), device)


def _exam(student: Student, data: dict[str, TaskData], cores: float) -> Work:
    """One validation."""
    seconds = 0.0
    for name, task in data.items():
        some = task.validation.views(range(min(EXAM_ROWS, len(task.validation))))
        seconds += len(task.validation) * student_latency_ms(student, name, some) / 1e3
    return work(sum(len(task.validation) for task in data.values()), seconds, 0.0, cores)
