"""Teachers in the caller's own process: the simplest way, and the measure for the others."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from raydistill.config.models import Config
from raydistill.data.batch import ViewBatch
from raydistill.devices import device_given
from raydistill.errors import RaydistillError, TeacherError, first_line
from raydistill.soft_labels.layers import NO_LAYERS, Layers
from raydistill.soft_labels.source import Answer, Pending
from raydistill.teachers.teacher import Teacher, load_teacher


@dataclass(frozen=True)
class _Call:
    teacher: Teacher
    views: ViewBatch
    layers: Layers

    def result(self) -> Answer:
        """Computed now: on one device nothing is won by computing ahead.

        Raises:
            TeacherError: whatever the model itself raises.
        """
        began = time.perf_counter()
        try:
            logits, features = self.teacher.answer(self.views, self.layers)
        except RaydistillError:
            raise
        except Exception as error:
            raise TeacherError(f"teacher {self.teacher.name!r} failed: {first_line(error)}") from error
        return Answer(logits, time.perf_counter() - began, features=features)


class LocalTeachers:
    """A `Labeller` that asks models of this process.

    Args:
        teachers: by name.
    """

    way = "local"

    def __init__(self, teachers: dict[str, Teacher]) -> None:
        self.teachers = teachers

    def ask(self, teacher: str, views: ViewBatch, layers: Layers = NO_LAYERS) -> Pending:
        """See `Labeller.ask`."""
        return _Call(self.teachers[teacher], views, layers)

    def events(self) -> list[tuple[float, str]]:
        """Nothing happens that is not raised."""
        return []

    def close(self) -> None:
        """Let the models' memory go."""
        self.teachers = {}


def load_teachers(
    config: Config, label_names: dict[str, tuple[str, ...]], names: Iterable[str] | None = None
) -> dict[str, Teacher]:
    """Configured teachers in this process, on its GPU where they ask for one and there is one.

    Args:
        label_names: by task.
        names: which; default all.

    Raises:
        TeacherError: see `load_teacher`.
    """
    teachers = {}
    for name in config.teachers if names is None else names:
        settings = config.teachers[name]
        device = device_given(settings.placement.num_gpus)
        teachers[name] = load_teacher(config, name, label_names[settings.task], str(device))
    return teachers
