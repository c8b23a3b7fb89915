"""Teachers in the caller's own process: the simplest source, and the measure for the others."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator

import torch

from raydistill.config.models import Config
from raydistill.soft_labels.source import StepViews, TeacherCost
from raydistill.soft_labels.targets import SoftTargets
from raydistill.teachers.teacher import Teacher, load_teacher


class LocalSource:
    """Asks each task's teachers one after the other.

    Args:
        teachers: by name.
    """

    def __init__(self, teachers: dict[str, Teacher]) -> None:
        self.teachers = teachers
        self._samples, self._busy_s = 0, 0.0

    def stream(self, batches: Iterable[StepViews]) -> Iterator[tuple[StepViews, dict[str, SoftTargets]]]:
        """See `SoftTargetSource.stream`."""
        for step_views in batches:
            targets = {}
            for task, views in step_views.items():
                logits = {}
                for name, teacher in self.teachers.items():
                    if teacher.task == task:
                        began = time.perf_counter()
                        logits[name] = teacher.logits(views)
                        self._busy_s += time.perf_counter() - began
                        self._samples += len(views)
                if logits:
                    targets[task] = SoftTargets(logits)
            yield step_views, targets

    def cost(self) -> TeacherCost:
        """See `SoftTargetSource.cost`."""
        return TeacherCost(samples=self._samples, busy_s=self._busy_s)

    def close(self) -> None:
        """Nothing is held."""


def open_local(config: Config, label_names: dict[str, tuple[str, ...]]) -> LocalSource:
    """Every configured teacher, loaded in this process, on its GPU where it asks for one and there is one.

    Args:
        label_names: by task.
    """
    teachers = {}
    for name, settings in config.teachers.items():
        device = "cuda" if settings.placement.num_gpus and torch.cuda.is_available() else "cpu"
        teachers[name] = load_teacher(config, name, label_names[settings.task], device)
    return LocalSource(teachers)
